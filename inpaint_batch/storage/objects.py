"""Objects in stores, by URI: looked at, fetched, sent whole, listed, removed; every request patient but not for ever.

fsspec is imported with the first request, and the client of a store (an extra each) by fsspec. Credentials come from
where that client looks for them (environment, profile, role of the machine) and never from a URI: what names one is
refused, and what a client says in an error is redacted before anybody reads it.
"""

from __future__ import annotations

import logging
import math
import mimetypes
import os
import random
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from inpaint_batch.errors import MissingDependencyError
from inpaint_batch.storage.object_errors import ObjectError, is_wordless, reason_of, trouble_of
from inpaint_batch.storage.uris import SCHEMES, redacted, split_uri, uri_problem

log = logging.getLogger(__name__)

PAUSES_S = (0.2, 0.6, 1.8, 5.4)
"""Pauses between the attempts of one request, each made longer or shorter by up to a half."""
_PATIENT = ("gs", "az")
"""Stores whose clients try again by themselves, for half a minute and more, and cannot be told otherwise."""

PART_BYTES = 16 << 20
"""Files of twice this size and more go to a store in parts. The clients' own parts of 50 MiB, ten at a time, would hold
half a gigabyte in memory."""
PARTS_AT_A_TIME = 2
READ_TIMEOUT_S = 60
"""Seconds without a byte from S3 after which a request counts as lost."""
SEND_TIMEOUT_S = 600
"""The same where a large file is sent: S3 says nothing before it has all of it, and the line may be slow."""
LARGE_BYTES = 1 << 20
"""What is large in that sense."""
CONNECTIONS = 256
"""At most, of one process with S3: more than there are threads that ask. With the client's own 10 a few large objects
on their way would keep the lock of a run from being renewed, and looks at the next rows would wait for them, too."""
MAX_PARTS = 10_000
"""What S3 takes of one object."""

ResultT = TypeVar("ResultT")

_UNIT_BYTES = 256 << 10  # parts for Google's store are multiples of it
_clients: dict[tuple[int, str, bool], Any] = {}
_making = threading.Lock()


def describe(uri: str) -> str:
    """Size and version of an object, as text that changes when it was written anew; empty where there is none.

    Raises ObjectError where the store does not tell.
    """

    def look(client: Any, key: str) -> dict[str, Any]:
        try:
            about: dict[str, Any] = client.info(key)
        except Exception as error:
            # S3 answers this request without a word why. That for a byte names credentials that have expired.
            if uri.startswith("s3://") and is_wordless(error):
                client.cat_file(key, start=0, end=1)
            raise
        return about

    try:
        about = _ask(uri, f"look at {uri}", look)
    except ObjectError as error:
        if error.trouble == "missing":
            return ""
        raise
    if about.get("type") != "file":
        return ""
    names = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "created")
    version = next((about[name] for name in names if about.get(name)), "")
    return f"{about.get('size')}\0{version}"


def fetch(uri: str, path: Path) -> None:
    """Bring an object into the file `path`. Raises ObjectError, and OSError where the disk does not take it."""
    _check_key(uri)
    _ask(uri, f"read {uri}", lambda client, key: client.get_file(key, str(path)))


def read_bytes(uri: str) -> bytes:
    """The content of an object. Raises ObjectError."""
    _check_key(uri)
    content: bytes = _ask(uri, f"read {uri}", lambda client, key: client.cat_file(key))
    return content


def write_bytes(uri: str, content: bytes) -> None:
    """Put an object, whole or not at all. Raises ObjectError."""
    _ask(uri, f"write {uri}", lambda client, key: client.pipe_file(key, content))


def send(path: Path, uri: str) -> None:
    """Put the file `path` into the store; large ones in parts, and there is no object before the last one is in.

    Raises ObjectError.
    """
    kind = mimetypes.guess_type(uri.rpartition("/")[2])[0]
    num_bytes = path.stat().st_size
    part_bytes = max(PART_BYTES, math.ceil(num_bytes / MAX_PARTS / _UNIT_BYTES) * _UNIT_BYTES)
    options: dict[str, dict[str, Any]] = {
        "s3": {"chunksize": part_bytes, "max_concurrency": PARTS_AT_A_TIME} | ({"ContentType": kind} if kind else {}),
        "gs": {"chunksize": part_bytes} | ({"content_type": kind} if kind else {}),
        "az": {"overwrite": True, "max_concurrency": PARTS_AT_A_TIME},
    }
    scheme = split_uri(uri).scheme

    def put(client: Any, key: str) -> None:
        if scheme == "memory":  # its put_file would show an empty object first
            client.pipe_file(key, path.read_bytes())
        else:
            client.put_file(str(path), key, **options[scheme])

    _ask(uri, f"write {uri}", put, sends=num_bytes >= LARGE_BYTES)


def names_below(prefix: str) -> list[str]:
    """Names of all objects below a prefix, relative to it, in any order; maybe none. Raises ObjectError.

    Empty objects whose keys end in a slash, with which consoles and other programs mark folders, are none.
    """
    return list(each_name_below(prefix))


def each_name_below(prefix: str) -> Iterator[str]:
    """The same, a page at a time where the store is S3: there may be millions. Raises ObjectError, also on the way."""
    keys = _keys_in_pages if prefix.startswith("s3://") else _keys_at_once
    try:
        for root, found in keys(prefix):
            yield from (key[len(root) :] for key in found if key.startswith(root) and not key.endswith("/"))
    except ObjectError as error:
        if error.trouble != "missing":
            raise


def _keys_at_once(prefix: str) -> Iterator[tuple[str, list[str]]]:
    def find(client: Any, key: str) -> tuple[str, list[str]]:
        root = f"{key.rstrip('/')}/"
        return root, client.find(root)

    yield _ask(prefix, f"list {prefix}", find)


def _keys_in_pages(prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Each page is a request of its own, tried again by itself. The client's own `find` keeps a kilobyte of each object
    until it has seen all, and begins anew where a page does not come.
    """
    token: dict[str, str] = {}

    def ask(client: Any, key: str) -> tuple[str, dict[str, Any]]:
        bucket, _, folder = key.partition("/")
        root = f"{folder.rstrip('/')}/".lstrip("/")
        return root, client.call_s3("list_objects_v2", Bucket=bucket, Prefix=root, **client.req_kw, **token)

    while True:
        root, page = _ask(prefix, f"list {prefix}", ask)
        yield root, [found["Key"] for found in page.get("Contents", ())]
        if not page.get("IsTruncated"):
            return
        token["ContinuationToken"] = page["NextContinuationToken"]


def remove(uri: str) -> None:
    """Delete an object; nothing happens where there is none. Raises ObjectError."""
    try:
        _ask(uri, f"remove {uri}", lambda client, key: client.rm_file(key))
    except ObjectError as error:
        if error.trouble != "missing":
            raise


def _check_key(uri: str) -> None:
    """Raise ObjectError where `uri` names a bucket alone: clients take that for a fault in the request."""
    if not split_uri(uri).key.strip("/"):
        raise ObjectError("missing", f"{uri} is a bucket")


def _ask(uri: str, what: str, request: Callable[[Any, str], ResultT], *, sends: bool = False) -> ResultT:
    """The answer to a request, tried again after PAUSES_S while the store is only busy; `sends`: a large file."""
    if (problem := uri_problem(uri)) is not None:
        raise ObjectError("refused", f"{redacted(uri)} {problem}")
    scheme = split_uri(uri).scheme
    client = _client(scheme, sends=sends and scheme == "s3")
    started_s = time.monotonic()
    for attempt, pause_s in enumerate((*(PAUSES_S if scheme not in _PATIENT else ()), None), start=1):
        try:
            key: str = client._strip_protocol(uri)
            return request(client, key)
        except Exception as error:
            trouble = trouble_of(error)
            reason = reason_of(error)
            if trouble != "busy":
                raise ObjectError(trouble, f"{uri}: {reason}") from error
            if pause_s is None:
                number = f"{attempt} attempts in " if attempt > 1 else ""
                waited = f"after {number}{time.monotonic() - started_s:.0f} s"
                raise ObjectError("busy", f"{uri}, {waited}: {reason}; run again when the store answers") from error
            log.warning("attempt %d to %s failed (%s); it is tried again", attempt, what, reason)
            time.sleep(pause_s * random.uniform(0.5, 1.5))
    raise AssertionError


def _client(scheme: str, *, sends: bool = False) -> Any:
    """The one client of this process for a store; for S3 there is another one for large files that are sent."""
    with _making:
        client = _clients.get((os.getpid(), scheme, sends))
        if client is None:
            extra = SCHEMES[scheme]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the clients' own imports
                    import fsspec

                    client = fsspec.filesystem(scheme, skip_instance_cache=True, **_settings(scheme, sends))
            except ImportError as error:
                raise MissingDependencyError(
                    f"{scheme}:// needs a package that is not installed ({error}): pip install 'inpaint-batch[{extra}]'"
                ) from error
            except Exception as error:
                raise ObjectError("refused", f"the client for {scheme}:// cannot start: {reason_of(error)}") from error
            if scheme == "s3":
                client.retries = 1  # attempts are counted here
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints traces of what is told here
            _clients[os.getpid(), scheme, sends] = client
        return client


def _settings(scheme: str, sends: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {"use_listings_cache": False} if scheme != "memory" else {}
    if scheme == "s3":
        retries = {"total_max_attempts": 1, "mode": "standard"}
        config = {"retries": retries, "connect_timeout": 10, "max_pool_connections": CONNECTIONS}
        settings |= {"config_kwargs": config | {"read_timeout": SEND_TIMEOUT_S if sends else READ_TIMEOUT_S}}
        # Objects come in one answer. Several at a time would hold half a gigabyte of a large one, and may be of two
        # versions where it is written just then; small ones would be asked for their size first.
        settings["max_concurrency"] = 1
    return settings
