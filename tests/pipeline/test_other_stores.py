"""Google's and Azure's stores, as emulators on this machine speak for them: the same run, resumed and changed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, run
from store_calls import PATIENCE_S, call, command, restore, using

from inpaint_batch.storage import objects
from inpaint_batch.storage.object_errors import ObjectError

KEY = base64.b64encode(b"an account key that nobody may see").decode()
GOOGLE = """
import sys
from gcp_storage_emulator.server import create_server
create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="archive").run()
"""


@contextmanager
def emulator(words: list[str], port: int, environment: dict[str, str]) -> Iterator[None]:
    """A server process, from when it listens on."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, env=environment, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            until_s = time.monotonic() + PATIENCE_S
            while time.monotonic() < until_s and process.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.kill()


@pytest.fixture(scope="module", params=["gs", "az"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`gs://archive` or `az://archive`; skips where its client or its emulator is not installed."""
    hidden = ("AWS_", "AZURE_", "GOOGLE_", "INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if request.param == "gs":
        pytest.importorskip("gcsfs")
        pytest.importorskip("gcp_storage_emulator")
        words = [sys.executable, "-W", "ignore", "-c", GOOGLE, str(port)]
        told = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "FSSPEC_GS_TOKEN": "anon"}
        told["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it asks by gRPC, which the emulator does not speak
    else:
        pytest.importorskip("adlfs")
        azurite = shutil.which("azurite-blob")
        if azurite is None:
            pytest.skip("Azurite is not on the PATH: npm install --global azurite")
        words = [azurite, "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
        environment["AZURITE_ACCOUNTS"] = f"restorer:{KEY}"
        place = f"BlobEndpoint=http://127.0.0.1:{port}/restorer;"
        account = f"DefaultEndpointsProtocol=http;AccountName=restorer;AccountKey={KEY};"
        told = {"AZURE_STORAGE_CONNECTION_STRING": account + place}
    with emulator(words, port, environment), using(environment | told):
        if request.param == "az":
            objects._client("az").mkdir("archive")
        yield f"{request.param}://archive"


def upload(folder: Path, uri: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            objects.send(path, f"{uri}/{path.relative_to(folder).as_posix()}")


def test_a_run_that_is_repeated_and_changed(store: str, gallery: Gallery, tmp_path: Path) -> None:
    for number, suffix in enumerate(("png", "jpg", "tif", "webp", "png")):
        gallery.add(f"a/{number}.{suffix}")
    gallery.add_row("absent.png", "a/0.png.mask.png")
    gallery.manifest()
    upload(gallery.folder, f"{store}/in")
    source, output = f"{store}/in/manifest.csv", f"{store}/out"

    def done_and_skipped() -> tuple[int, int]:
        rows = json.loads(objects.read_bytes(f"{output}/.inpaint-batch/summary.json"))["rows"]
        return rows["done"], rows["skipped"]

    told = call(restore(source, output, "--sidecar"))
    assert told.returncode == 8, told.stderr
    assert f"the image {store}/in/absent.png does not exist" in told.stderr
    assert done_and_skipped() == (5, 0)
    run(gallery.manifest(), tmp_path / "local")
    for row in gallery.rows[:-1]:
        assert objects.read_bytes(f"{output}/{row['output']}") == (tmp_path / "local" / row["output"]).read_bytes()
    again = call(restore(source, output, "--sidecar"))
    assert (again.returncode, *done_and_skipped()) == (8, 0, 5)

    other = Gallery(tmp_path / "other")
    other.add("0.png", side=80)
    objects.send(other.folder / "0.png", f"{store}/in/a/0.png")  # another picture under the same name: its row is new
    objects.send(other.folder / "0.png.mask.png", f"{store}/in/a/0.png.mask.png")
    changed = call(restore(source, output, "--sidecar"))
    assert (changed.returncode, *done_and_skipped()) == (8, 1, 4), changed.stderr
    status = call(command("status", output, "--json"))
    assert json.loads(status.stdout)["done"] == 5
    everything = told.stdout + told.stderr + again.stderr + changed.stderr + status.stdout
    for name in objects.names_below(output):
        everything += repr(objects.read_bytes(f"{output}/{name}"))
    assert KEY not in everything
    assert not [name for name in objects.names_below(output) if "lock" in name]


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of the client, about itself
def test_large_and_missing_objects(store: str, tmp_path: Path) -> None:
    path, uri = tmp_path / "large.tif", f"{store}/large/a b.tif"
    path.write_bytes(np.random.default_rng(1).bytes((17 << 20) + 7))  # more than a part
    objects.send(path, uri)
    objects.fetch(uri, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    before = objects.describe(uri)
    objects.write_bytes(uri, b"small")
    assert objects.describe(uri) not in ("", before)
    assert objects.read_bytes(uri) == b"small"
    objects.remove(uri)
    objects.remove(uri)
    assert objects.describe(uri) == ""
    assert objects.names_below(f"{store}/large") == []
    with pytest.raises(ObjectError) as caught:
        objects.read_bytes(uri)
    assert caught.value.trouble == "missing"


def test_a_wrong_key_ends_the_run_at_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not store.startswith("az"):
        pytest.skip("Google's emulator lets everybody in")
    wrong = base64.b64encode(b"another key").decode()
    told = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", told.replace(KEY, wrong))
    monkeypatch.setattr(objects, "_clients", {})
    stopped = call(restore(f"{store}/in/manifest.csv", f"{store}/refused"))
    assert stopped.returncode == 7, stopped.stderr
    assert "AuthorizationFailure" in stopped.stderr
    assert wrong not in stopped.stderr
