"""Runs from and to an S3 server: what arrives, what a second run does, and what faults do.

The program is called in this process, where the client of the store is loaded once; where its death or its end matters,
as a process.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery import Gallery, run
from s3 import SECRET, Server, s3_server
from store_calls import PATIENCE_S, call, command, restore, started, using

from inpaint_batch.pipeline import ahead
from inpaint_batch.storage import objects
from inpaint_batch.storage.object_errors import ObjectError

BUCKET = "archive"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("home")) as server:
        server.client().create_bucket(Bucket=BUCKET)
        with using(server.environment):
            yield server


@pytest.fixture
def prefix(server: Server, request) -> str:
    """A part of the bucket for one test; no fault is left from the one before."""
    server.fault(every=1, times=0)
    return f"{request.node.name}/"


def filled(gallery: Gallery, num_rows: int = 8, **cells: Any) -> Gallery:
    for number in range(num_rows):
        gallery.add(f"a/{number:02d}.{('png', 'jpg', 'tif', 'webp')[number % 4]}", **cells)
    return gallery


def expected(gallery: Gallery, tmp_path: Path) -> dict[str, bytes]:
    """What a run on this machine makes of it."""
    assert run(gallery.manifest(), tmp_path / "local")["exit_code"] == 0
    return {row["output"]: (tmp_path / "local" / row["output"]).read_bytes() for row in gallery.rows}


def summary(server: Server, prefix: str) -> dict:
    return json.loads(server.objects(BUCKET, f"{prefix}out/.inpaint-batch/summary.json")[""])


def test_from_s3_to_s3_and_nothing_twice(server, prefix, gallery, tmp_path):
    filled(gallery)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"

    checked = call(command("check", source, "--output", output))
    assert checked.returncode == 0, checked.stderr
    first = started(server.environment, restore(source, output))
    assert first.returncode == 0, first.stderr
    assert server.results(BUCKET, f"{prefix}out/") == expected(gallery, tmp_path)
    lines = server.ledger(BUCKET, f"{prefix}out/")
    assert Counter(line["status"] for line in lines) == {"started": 8, "done": 8}
    state = server.objects(BUCKET, f"{prefix}out/.inpaint-batch/")
    assert "lock.json" not in state
    assert not [body for body in state.values() if SECRET.encode() in body]
    assert not list(Path(server.environment["TMPDIR"]).glob("inpaint-batch-*"))
    assert summary(server, prefix)["options"]["output"] == output

    again = call(restore(source, output))
    assert again.returncode == 0, again.stderr
    assert summary(server, prefix)["rows"]["skipped"] == 8
    assert server.ledger(BUCKET, f"{prefix}out/") == lines
    sound = call(command("verify", source, "--output", output))
    assert (sound.returncode, sound.stdout.splitlines()[0]) == (0, "8 rows: 8 sound, 0 not, 0 warnings"), sound.stderr
    told = call(command("status", output, "--json"))
    assert json.loads(told.stdout)["done"] == 8


def test_missing_and_damaged_objects_fail_their_rows_alone(server, prefix, gallery):
    filled(gallery, 3)
    gallery.add_row("absent.png", "a/00.png.mask.png")
    gallery.add_row("a/01.jpg.mask.png", "absent.mask.png")
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    done = call(restore(source, output))
    assert done.returncode == 8, done.stderr
    assert f"{output}/.inpaint-batch/failures.csv" in done.stderr
    failures = server.objects(BUCKET, f"{prefix}out/.inpaint-batch/failures.csv")[""].decode()
    assert f"the image s3://{BUCKET}/{prefix}in/absent.png does not exist" in failures
    assert f"the mask s3://{BUCKET}/{prefix}in/absent.mask.png does not exist" in failures
    assert server.environment["TMPDIR"] not in failures
    assert len(server.results(BUCKET, f"{prefix}out/")) == 3

    # What failed is a manifest in the store; once the objects are there, it is done.
    server.client().put_object(
        Bucket=BUCKET, Key=f"{prefix}in/absent.png", Body=(gallery.folder / "a/00.png").read_bytes()
    )
    retried = call(restore(f"{output}/.inpaint-batch/failures.csv", output, "--retry-failed"))
    assert retried.returncode == 8, retried.stderr
    assert set(server.results(BUCKET, f"{prefix}out/")) == {"a/00.png", "a/01.jpg", "a/02.tif", "absent.png"}


def test_names_that_no_object_may_have_fail_their_rows_alone(server, prefix, gallery):
    filled(gallery, 2)
    gallery.add("a/c #1.png")
    gallery.add("a/what?.png")
    gallery.add("a/long.png", output="/".join(["x" * 250] * 4) + ".png")
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    output = f"s3://{BUCKET}/{prefix}out"
    for source in (str(gallery.folder / "manifest.csv"), f"s3://{BUCKET}/{prefix}in/manifest.csv"):
        assert call(command("check", source, "--output", output)).returncode == 8
        done = call(restore(source, output, "--retry-failed"))
        assert done.returncode == 8, done.stderr
        assert "a/c #1.png" in done.stderr
        assert "a/what?.png" in done.stderr
        assert "makes a key of more than 1024 bytes" in done.stderr
        assert set(server.results(BUCKET, f"{prefix}out/")) == {"a/00.png", "a/01.jpg"}


def test_objects_that_mark_folders_are_no_part_of_the_state(server, prefix, gallery):
    filled(gallery, 2)
    source, output = str(gallery.manifest()), f"s3://{BUCKET}/{prefix}out"
    for name in ("", ".inpaint-batch/", ".inpaint-batch/ledger/", ".inpaint-batch/ledger-archive/", "a/"):
        server.client().put_object(Bucket=BUCKET, Key=f"{prefix}out/{name}", Body=b"")
    assert call(restore(source, output)).returncode == 0
    assert call(restore(source, output)).returncode == 0
    assert summary(server, prefix)["rows"]["skipped"] == 2
    assert call(restore(source, output, "--fresh")).returncode == 0
    assert call(command("status", output)).returncode == 0


def test_kill_9_and_resume(server, prefix, gallery, tmp_path):
    filled(gallery, 14, side=260, hole=(60, 50, 18, 110))  # one large tile each: a batch takes four of them
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    whole = expected(gallery, tmp_path)
    with subprocess.Popen(
        restore(source, output, engine="faulty:s@1"), env=server.environment, stderr=subprocess.DEVNULL
    ) as process:
        until_s = time.monotonic() + PATIENCE_S
        while len(server.names(BUCKET, f"{prefix}out/")) < 3 and time.monotonic() < until_s:
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    partial = server.results(BUCKET, f"{prefix}out/")
    assert 3 <= len(partial) < 14
    assert all(body == whole[name] for name, body in partial.items())  # nothing partial is visible
    begun = {line["id"] for line in server.ledger(BUCKET, f"{prefix}out/")}
    assert {row["id"] for row in gallery.rows if row["output"] in partial} <= begun

    resumed = started(server.environment, restore(source, output, engine="faulty:s@0"))
    assert resumed.returncode == 0, resumed.stderr
    assert server.results(BUCKET, f"{prefix}out/") == whole
    assert summary(server, prefix)["rows"]["failed"] == 0
    assert not list(Path(server.environment["TMPDIR"]).glob("inpaint-batch-*"))  # nor what the killed one left here


def test_errors_of_the_store_are_tried_again_for_a_while(server, prefix, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.05, 0.05, 0.05, 0.05))
    filled(gallery, 4)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    server.fault(every=3, times=8, path=prefix)
    done = call(restore(source, output))
    assert done.returncode == 0, done.stderr
    assert server.results(BUCKET, f"{prefix}out/") == expected(gallery, tmp_path)

    server.fault(every=1, times=1000, path="out/a/")  # results are not taken: the run ends, and says after how long
    done = call(restore(source, output, "--fresh", "--on-conflict", "overwrite"))
    assert done.returncode == 7, done.stderr
    assert "after 5 attempts in" in done.stderr
    assert "SlowDown" in done.stderr


def test_a_store_that_does_not_answer_unmakes_no_result(server, prefix, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.01,))
    filled(gallery, 3)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    assert call(restore(source, output)).returncode == 0
    lines = server.ledger(BUCKET, f"{prefix}out/")

    server.fault(every=1, times=1000, path="in/a/01.jpg")
    told = call(restore(source, output))
    assert told.returncode == 8, told.stderr
    rows = summary(server, prefix)["rows"]
    assert (rows["skipped"], rows["failed_now"], rows["redone"]) == (2, 1, {})
    failures = server.objects(BUCKET, f"{prefix}out/.inpaint-batch/failures.csv")[""].decode()
    assert f"cannot read the image s3://{BUCKET}/{prefix}in/a/01.jpg" in failures
    assert "run again when the store answers" in failures

    server.fault(every=1, times=0)
    told = call(restore(source, output))
    assert told.returncode == 0, told.stderr
    assert summary(server, prefix)["rows"]["skipped"] == 3
    assert server.ledger(BUCKET, f"{prefix}out/") == lines


def test_a_mask_of_which_the_store_does_not_tell_is_not_called_missing(server, prefix, gallery, monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.01,))
    filled(gallery, 1)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    server.fault(every=1, times=1000, path="in/a/00.png.mask.png")
    told = call(command("check", f"s3://{BUCKET}/{prefix}in/manifest.csv", "--depth", "headers"))
    assert told.returncode == 8, told.stderr
    said = told.stdout + told.stderr
    assert "cannot read the mask s3://" in said
    assert "does not exist" not in said


def test_wrong_credentials_and_buckets_end_the_run_with_a_sentence(tmp_path, gallery):
    filled(gallery, 1)
    with s3_server(tmp_path / "home", INITIAL_NO_AUTH_ACTION_COUNT="1") as guarded:
        guarded.client().create_bucket(Bucket=BUCKET)
        output = f"s3://{BUCKET}/out"
        with using(guarded.environment):
            done = call(restore(str(gallery.manifest()), output))
        assert done.returncode == 7, done.stderr
        assert "InvalidAccessKeyId" in done.stderr or "Access Key Id" in done.stderr
        assert SECRET not in done.stderr + done.stdout
        guarded.environment = {name: value for name, value in guarded.environment.items() if "ACCESS_KEY" not in name}
        with using(guarded.environment):
            done = call(restore(str(gallery.manifest()), output))
        assert done.returncode == 7, done.stderr
        assert "there are no credentials" in done.stderr


def test_a_uri_with_credentials_is_refused_and_not_repeated(server, prefix, gallery, tmp_path):
    filled(gallery, 1)
    done = call(restore(str(gallery.manifest()), "s3://me:hush@bucket/out"))
    assert done.returncode == 2
    assert "names a user" in done.stderr
    assert "hush" not in done.stderr
    for number, uri in enumerate(
        ("s3://me:hush@bucket/a", "s3://bucket/a?X-Amz-Signature=hush", "https://me:hush@h/a")
    ):
        gallery.add_row(uri, "a/00.png.mask.png")
        gallery.rows[-1] |= {"id": "" if number % 2 else f"row {number}", "output": ""}
    output = tmp_path / "out"
    done = call(restore(str(gallery.manifest()), str(output), "--log-format", "json"))
    assert done.returncode == 8
    everything = done.stdout + done.stderr + "".join(p.read_text() for p in output.rglob("*.*l*") if p.is_file())
    everything += (output / ".inpaint-batch" / "failures.csv").read_text()
    assert "leave credentials" in everything
    assert "hush" not in everything


def test_no_credential_is_ever_written_down(server, prefix, gallery, tmp_path):
    """With faults that are logged, in JSON and in words, in the store and here; secrets come by the environment."""
    filled(gallery, 3)
    gallery.add_row("absent.png", "a/00.png.mask.png")
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "token/of+the=session"}
    server.fault(every=5, times=6, path=prefix)
    flags = ("--log-format", "json", "--sidecar", "--metrics", str(tmp_path / "run.prom"))
    with using(server.environment | secrets):
        told = call(restore(source, output, *flags))
        assert told.returncode == 8, told.stderr
        server.fault(every=1, times=1000, path="out/a/")
        ended = call(restore(source, output, "--fresh", "--on-conflict", "overwrite"))
    assert ended.returncode == 7
    server.fault(every=1, times=0)
    assert '"event": "log"' in told.stdout  # an attempt that failed
    written = server.objects(BUCKET, f"{prefix}out/")
    assert any(name.endswith("run.log") for name in written)
    assert any(name.endswith(".inpaint-batch.json") for name in written)
    everything = told.stdout + told.stderr + ended.stdout + ended.stderr + (tmp_path / "run.prom").read_text()
    everything += "".join(f"{name} {body!r}" for name, body in written.items())
    for secret in secrets.values():
        assert secret not in everything


def test_a_large_result_goes_in_parts(server, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)  # the least that S3 takes
    monkeypatch.setattr(objects, "PAUSES_S", (0.05, 0.05))
    path, uri = tmp_path / "large.tif", f"s3://{BUCKET}/{prefix}large.tif"
    path.write_bytes(np.random.default_rng(1).bytes((12 << 20) + 7))
    server.fault(every=3, times=1, path=prefix)  # a part is refused: the whole is sent again
    objects.send(path, uri)
    client = server.client()
    about = client.head_object(Bucket=BUCKET, Key=f"{prefix}large.tif")
    assert about["ETag"].endswith('-3"')  # of so many parts
    assert about["ContentType"] == "image/tiff"
    objects.fetch(uri, tmp_path / "back.tif")
    assert (tmp_path / "back.tif").read_bytes() == path.read_bytes()
    version = objects.describe(uri)

    path.write_bytes(bytes(11 << 20))
    server.fault(every=2, times=1000, path=prefix)
    with pytest.raises(ObjectError, match="after 3 attempts"):
        objects.send(path, uri)
    server.fault(every=1, times=0)
    assert objects.describe(uri) == version  # nothing of the new one is visible


def test_there_are_connections_for_all_who_ask_at_a_time(server):
    """With the client's own ten, a few large objects on their way would keep the lock from being renewed."""
    assert objects._client("s3").s3.meta.config.max_pool_connections >= 4 * ahead.NUM_REQUESTS


def test_an_object_comes_in_one_answer(server, prefix, tmp_path, monkeypatch):
    """So it is of one version, and of a large one no more than a piece is in memory."""
    monkeypatch.setattr(objects, "PAUSES_S", ())
    uri, content = f"s3://{BUCKET}/{prefix}large.tif", np.random.default_rng(1).bytes(3 << 20)
    objects.write_bytes(uri, content)
    monkeypatch.setattr(objects._client("s3"), "default_block_size", 1 << 20)  # what more than it would come in parts
    server.fault(every=2, times=1, path=prefix)  # a second request would fail
    assert objects.read_bytes(uri) == content
    server.fault(every=2, times=1, path=prefix)
    objects.fetch(uri, tmp_path / "back.tif")
    assert (tmp_path / "back.tif").read_bytes() == content


@pytest.mark.slow
def test_workers_of_ray_fetch_and_send_by_themselves(server, prefix, gallery, tmp_path):
    pytest.importorskip("ray")
    filled(gallery, 6)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    flags = ("--executor", "ray", "--actors", "2", "--sidecar")
    done = started(server.environment, restore(source, output, *flags), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    results = server.results(BUCKET, f"{prefix}out/")
    sidecars = {name: json.loads(results.pop(name)) for name in list(results) if name.endswith(".json")}
    assert results == expected(gallery, tmp_path)
    assert {about["source"]["path"] for about in sidecars.values()} == {
        f"s3://{BUCKET}/{prefix}in/{row['image']}" for row in gallery.rows
    }


def test_one_file_of_annotations_serves_all_rows(server, prefix, gallery, tmp_path):
    filled(gallery, num_rows=4)
    images = [{"id": 7 + number, "file_name": row["image"]} for number, row in enumerate(gallery.rows)]
    area = [[24, 20, 40, 20, 40, 32, 24, 32]]  # the same hole as that of the masks that the gallery draws
    annotations = [{"image_id": image["id"], "segmentation": area} for image in images]
    (gallery.folder / "all.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    want = expected(gallery, tmp_path)
    for number, row in enumerate(gallery.rows):
        row["mask"] = f"s3://{BUCKET}/{prefix}in/all.json#{7 + number}" if number % 2 else "all.json"
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    done = call(restore(source, output, "--sidecar"))
    assert done.returncode == 0, done.stderr
    results = server.results(BUCKET, f"{prefix}out/")
    assert {name: data for name, data in results.items() if not name.endswith(".json")} == want
    told = [json.loads(data)["mask"] for name, data in results.items() if name.endswith(".json")]
    whole = (gallery.folder / "all.json").read_bytes()
    assert [(mask["bytes"], mask["sha256"]) for mask in told] == [(len(whole), hashlib.sha256(whole).hexdigest())] * 4
