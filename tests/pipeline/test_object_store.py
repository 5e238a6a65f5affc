"""Runs from and to an S3 server: what arrives, what a second run does, and what faults do.

The program is called in this process, where the client of the store is loaded once; where its death or its end matters,
as a process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from gallery import Gallery, run
from s3 import SECRET, Server, s3_server

from inpaint_batch.cli.main import main
from inpaint_batch.storage import objects

PATIENCE_S = 120
BUCKET = "archive"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("home")) as server:
        server.client().create_bucket(Bucket=BUCKET)
        with using(server):
            yield server


@contextmanager
def using(server: Server) -> Iterator[None]:
    """Within it, this process takes that server for S3."""
    with pytest.MonkeyPatch.context() as changed:
        for name in set(os.environ) - set(server.environment):
            changed.delenv(name)
        for name, value in server.environment.items():
            changed.setenv(name, value)
        changed.setattr(objects, "_clients", {})
        yield


@pytest.fixture
def prefix(server: Server, request) -> str:
    """A part of the bucket for one test; no fault is left from the one before."""
    server.fault(every=1, times=0)
    return f"{request.node.name}/"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "inpaint_batch.cli.main", *arguments]


def restore(manifest: str, output: str, *flags: str, engine: str = "identity") -> list[str]:
    return command("run", manifest, "--output", output, "--engine", engine, "--workers", "2", *flags)


def call(server: Server, words: list[str]) -> subprocess.CompletedProcess[str]:
    """The program, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as changed, redirect_stdout(out), redirect_stderr(err):
        changed.setattr(sys, "argv", words[2:])
        with pytest.raises(SystemExit) as caught:
            main()
    code = caught.value.code
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def started(server: Server, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """The program, as a process."""
    return subprocess.run(
        words, env=server.environment | variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


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

    checked = call(server, command("check", source, "--output", output))
    assert checked.returncode == 0, checked.stderr
    first = started(server, restore(source, output))
    assert first.returncode == 0, first.stderr
    assert server.results(BUCKET, f"{prefix}out/") == expected(gallery, tmp_path)
    lines = server.ledger(BUCKET, f"{prefix}out/")
    assert Counter(line["status"] for line in lines) == {"started": 8, "done": 8}
    state = server.objects(BUCKET, f"{prefix}out/.inpaint-batch/")
    assert "lock.json" not in state
    assert not [body for body in state.values() if SECRET.encode() in body]
    assert not list(Path(server.environment["TMPDIR"]).glob("inpaint-batch-*"))
    assert summary(server, prefix)["options"]["output"] == output

    again = call(server, restore(source, output))
    assert again.returncode == 0, again.stderr
    assert summary(server, prefix)["rows"]["skipped"] == 8
    assert server.ledger(BUCKET, f"{prefix}out/") == lines
    told = call(server, command("status", output, "--json"))
    assert json.loads(told.stdout)["done"] == 8


def test_missing_and_damaged_objects_fail_their_rows_alone(server, prefix, gallery):
    filled(gallery, 3)
    gallery.add_row("absent.png", "a/00.png.mask.png")
    gallery.add_row("a/01.jpg.mask.png", "absent.mask.png")
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    done = call(server, restore(source, output))
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
    retried = call(server, restore(f"{output}/.inpaint-batch/failures.csv", output, "--retry-failed"))
    assert retried.returncode == 8, retried.stderr
    assert set(server.results(BUCKET, f"{prefix}out/")) == {"a/00.png", "a/01.jpg", "a/02.tif", "absent.png"}


def test_kill_9_and_resume(server, prefix, gallery, tmp_path):
    filled(gallery, 14, side=260, hole=(60, 50, 40, 110))  # one large tile each: a batch takes four of them
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

    resumed = started(server, restore(source, output, engine="faulty:s@0"))
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
    done = call(server, restore(source, output))
    assert done.returncode == 0, done.stderr
    assert server.results(BUCKET, f"{prefix}out/") == expected(gallery, tmp_path)

    server.fault(every=1, times=1000, path="out/a/")  # results are not taken: the run ends, and says after how long
    done = call(server, restore(source, output, "--fresh", "--on-conflict", "overwrite"))
    assert done.returncode == 7, done.stderr
    assert "after 5 attempts in" in done.stderr
    assert "SlowDown" in done.stderr


def test_wrong_credentials_and_buckets_end_the_run_with_a_sentence(tmp_path, gallery):
    filled(gallery, 1)
    with s3_server(tmp_path / "home", INITIAL_NO_AUTH_ACTION_COUNT="1") as guarded:
        guarded.client().create_bucket(Bucket=BUCKET)
        output = f"s3://{BUCKET}/out"
        with using(guarded):
            done = call(guarded, restore(str(gallery.manifest()), output))
        assert done.returncode == 7, done.stderr
        assert "InvalidAccessKeyId" in done.stderr or "Access Key Id" in done.stderr
        assert SECRET not in done.stderr + done.stdout
        guarded.environment = {name: value for name, value in guarded.environment.items() if "ACCESS_KEY" not in name}
        with using(guarded):
            done = call(guarded, restore(str(gallery.manifest()), output))
        assert done.returncode == 7, done.stderr
        assert "there are no credentials" in done.stderr


def test_a_uri_with_credentials_is_refused_and_not_repeated(server, prefix, gallery):
    filled(gallery, 1)
    done = call(server, restore(str(gallery.manifest()), "s3://me:hush@bucket/out"))
    assert done.returncode == 2
    assert "names a user" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.slow
def test_workers_of_ray_fetch_and_send_by_themselves(server, prefix, gallery, tmp_path):
    pytest.importorskip("ray")
    filled(gallery, 6)
    gallery.manifest()
    server.upload(gallery.folder, BUCKET, f"{prefix}in/")
    source, output = f"s3://{BUCKET}/{prefix}in/manifest.csv", f"s3://{BUCKET}/{prefix}out"
    flags = ("--executor", "ray", "--actors", "2", "--sidecar")
    done = started(server, restore(source, output, *flags), RAY_AUTH_MODE="disabled")
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
    done = call(server, restore(source, output, "--sidecar"))
    assert done.returncode == 0, done.stderr
    results = server.results(BUCKET, f"{prefix}out/")
    assert {name: data for name, data in results.items() if not name.endswith(".json")} == want
    told = [json.loads(data)["mask"] for name, data in results.items() if name.endswith(".json")]
    whole = (gallery.folder / "all.json").read_bytes()
    assert [(mask["bytes"], mask["sha256"]) for mask in told] == [(len(whole), hashlib.sha256(whole).hexdigest())] * 4
