"""An S3 server of one's own, as a process on this machine: moto, with faults on demand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECRET = "wJalrXUtnFEMI/K7MDENG+veryverysecret"
SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

inner = DomainDispatcherApplication(create_backend_app)
faults = {"left": 0, "every": 0, "seen": 0, "path": ""}

def serve(environ, start):
    path = environ["PATH_INFO"]
    if path == "/faults":
        every, left, about = environ["QUERY_STRING"].split(",")
        faults.update(every=int(every), left=int(left), seen=0, path=about)
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    if faults["left"] and faults["path"] in path:
        faults["seen"] += 1
        if faults["seen"] % faults["every"] == 0:
            faults["left"] -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "application/xml")])
            said = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return [said] if environ["REQUEST_METHOD"] != "HEAD" else []
    return inner(environ, start)

make_server("127.0.0.1", int(sys.argv[1]), serve, threaded=True).serve_forever()
"""


class Server:
    """Where it is, and what is in it."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self.url = url
        self.environment = environment
        """For programs that shall use it."""
        self._client: Any = None

    def fault(self, *, every: int, times: int, path: str = "") -> None:
        """Answer every so many-th request whose path contains `path` with 503, so many times."""
        with urllib.request.urlopen(f"{self.url}/faults?{every},{times},{path}", timeout=10):
            pass

    def client(self):
        """A client of boto3 for it; one, since making it takes longer than all that it is asked."""
        if self._client is None:
            import boto3

            keys = {"aws_access_key_id": "me", "aws_secret_access_key": SECRET}
            self._client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        return self._client

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """Every file below a folder."""
        client = self.client()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(
                    Bucket=bucket, Key=prefix + path.relative_to(folder).as_posix(), Body=path.read_bytes()
                )

    def names(self, bucket: str, prefix: str) -> list[str]:
        """Names below the prefix, without the state."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = [about["Key"].removeprefix(prefix) for page in pages for about in page.get("Contents", [])]
        return [name for name in names if not name.startswith(".inpaint-batch/")]

    def objects(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Content by name below the prefix."""
        client, found = self.client(), {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for about in page.get("Contents", []):
                body = client.get_object(Bucket=bucket, Key=about["Key"])["Body"].read()
                found[about["Key"].removeprefix(prefix)] = body
        return found

    def results(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """The same without the state."""
        found = self.objects(bucket, prefix)
        return {name: body for name, body in found.items() if not name.startswith(".inpaint-batch/")}

    def ledger(self, bucket: str, prefix: str) -> list[dict]:
        """All lines, in order."""
        parts = self.objects(bucket, f"{prefix}.inpaint-batch/ledger/")
        return [json.loads(line) for name in sorted(parts) for line in parts[name].splitlines()]


@contextmanager
def s3_server(home: Path, **variables: str) -> Iterator[Server]:
    """A server with an empty store; `variables` are for its own environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_"))
    }
    clean = dict(environment)
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(home),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean | variables,
    ) as process:
        try:
            until_s = time.monotonic() + 60
            while time.monotonic() < until_s and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"{url}/faults?1,0,", timeout=5):
                        break
                except OSError:
                    time.sleep(0.05)
            yield Server(url, environment)
        finally:
            process.kill()
