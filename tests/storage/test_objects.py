"""Requests to stores, with a store in memory and a client that fails on command."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode, MissingDependencyError, RowError, StorageError
from inpaint_batch.execution.identity import object_version
from inpaint_batch.storage import objects
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.uris import is_uri, joined, redacted, uri_problem

pytest.importorskip("fsspec")


class Moody:
    """A client whose first requests fail."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.num_requests = 0

    def _strip_protocol(self, uri: str) -> str:
        return uri.partition("://")[2]

    def cat_file(self, key: str) -> bytes:
        self.num_requests += 1
        if self.errors:
            raise self.errors.pop(0)
        return key.encode()

    def info(self, key: str) -> dict[str, object]:
        return {"type": "file", "size": len(self.cat_file(key)), "ETag": "first"}


@pytest.fixture
def moody(monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.0, 0.0))

    def use(*errors: Exception) -> Moody:
        object_version.cache_clear()
        client = Moody(*errors)
        monkeypatch.setattr(objects, "_client", lambda scheme, **_: client)
        return client

    return use


def test_an_object_comes_and_goes_whole(tmp_path):
    uri = f"memory://{tmp_path.name}/a/b.png"
    assert objects.describe(uri) == ""
    objects.write_bytes(uri, b"one")
    first = objects.describe(uri)
    assert objects.read_bytes(uri) == b"one"
    (tmp_path / "file").write_bytes(b"two")
    objects.send(tmp_path / "file", uri)
    assert objects.describe(uri) not in ("", first)
    objects.fetch(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"two"
    assert objects.names_below(f"memory://{tmp_path.name}") == ["a/b.png"]
    objects.remove(uri)
    objects.remove(uri)
    assert objects.names_below(f"memory://{tmp_path.name}") == []
    with pytest.raises(ObjectError) as caught:
        objects.read_bytes(uri)
    assert caught.value.trouble == "missing"
    error = caught.value.for_row(uri, "mask")
    assert isinstance(error, RowError)
    assert (error.code, error.retryable) == (FailureCode.READ, False)
    assert f"the mask {uri} does not exist" in error.message


class Paged(Moody):
    """A bucket that is listed by two keys at a time, as S3 lists by a thousand; some pages do not come at first."""

    req_kw = {"RequestPayer": "requester"}  # noqa: RUF012
    keys = ("prefix/a.png", "prefix/b/", "prefix/b/c.png", "prefix/d.png", "prefix/e.png")

    def call_s3(self, method: str, **asked: str) -> dict[str, object]:
        assert (method, asked["Bucket"], asked["RequestPayer"]) == ("list_objects_v2", "bucket", "requester")
        self.num_requests += 1
        start = int(asked.get("ContinuationToken", 0))
        if start and self.errors:
            raise self.errors.pop(0)
        found = [key for key in self.keys if key.startswith(asked["Prefix"])]
        rest = {"IsTruncated": True, "NextContinuationToken": str(start + 2)} if start + 2 < len(found) else {}
        return {"Contents": [{"Key": key} for key in found[start : start + 2]]} | rest


def test_a_listing_goes_on_with_the_page_that_did_not_come(monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.0,))
    client = Paged(OSError("503"))
    monkeypatch.setattr(objects, "_client", lambda scheme, **_: client)
    names = objects.each_name_below("s3://bucket/prefix")
    assert next(names) == "a.png"
    assert client.num_requests == 1  # no more is asked for, or kept, than is taken
    assert list(names) == ["b/c.png", "d.png", "e.png"]
    assert client.num_requests == 4
    assert objects.names_below("s3://bucket") == ["prefix/a.png", "prefix/b/c.png", "prefix/d.png", "prefix/e.png"]
    assert objects.names_below("s3://bucket/pre") == []
    client.errors = [OSError("503"), OSError("503")]
    with pytest.raises(ObjectError, match="2 attempts"):
        objects.names_below("s3://bucket/prefix")


def test_a_busy_store_is_asked_again(moody):
    client = moody(OSError("503"), TimeoutError())
    assert objects.read_bytes("s3://bucket/key") == b"bucket/key"
    assert client.num_requests == 3


def _answer(**attributes: object) -> Exception:
    error = Exception("the server did not like it")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


def test_patience_ends_and_says_so(moody):
    client = moody(*[OSError("Please reduce your request rate")] * 9)
    with pytest.raises(ObjectError, match="after 3 attempts in 0 s: Please reduce") as caught:
        objects.read_bytes("s3://bucket/key")
    assert client.num_requests == 3
    error = caught.value.for_row("s3://bucket/key", "image")
    assert isinstance(error, RowError)
    assert error.retryable


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (PermissionError("Forbidden"), "denied"),
        (FileNotFoundError(), "missing"),
        (ValueError("no account"), "refused"),
        (_answer(error_code="AuthenticationFailed", status_code=403), "refused"),  # as Azure's client has it
        (_answer(error_code="AuthorizationPermissionMismatch", status_code=403), "denied"),
        (_answer(error_code=None, status_code=403), "denied"),
        (_answer(code=401), "refused"),  # and Google's
        (_answer(status=404), "missing"),  # as its older releases pass it on
        (_answer(status=403), "denied"),
        (OSError("Forbidden: https://host/b/o\nno permission"), "denied"),
        (type("ParamValidationError", (Exception,), {})("Invalid bucket name"), "denied"),  # as S3's client has it
    ],
)
def test_what_will_not_change_is_not_tried_again(moody, error, trouble):
    client = moody(error)
    with pytest.raises(ObjectError) as caught:
        objects.read_bytes("s3://bucket/key")
    assert (caught.value.trouble, client.num_requests) == (trouble, 1)
    assert isinstance(caught.value.for_row("s3://bucket/key", "image"), StorageError) == (trouble == "refused")


def _of_s3(error: Exception, code: str) -> Exception:
    error.__cause__ = _answer(response={"Error": {"Code": code}})
    return error


def test_an_upload_that_is_gone_is_sent_anew(moody):
    client = moody(_of_s3(FileNotFoundError("The specified upload does not exist."), "NoSuchUpload"))
    assert objects.read_bytes("s3://bucket/key") == b"bucket/key"
    assert client.num_requests == 2


@pytest.mark.parametrize(("number", "code", "trouble"), [
    ("400", "ExpiredToken", "refused"), ("403", "InvalidAccessKeyId", "refused"), ("403", "AccessDenied", "denied"),
])  # fmt: skip
def test_s3_is_asked_for_a_word_where_it_tells_but_a_number(number, code, trouble, monkeypatch):
    class Wordless(Moody):
        def info(self, key: str) -> dict[str, object]:
            raise _of_s3(OSError("Bad Request"), number)

        def cat_file(self, key: str, start: int, end: int) -> bytes:
            raise _of_s3(PermissionError("a sentence"), code)

    monkeypatch.setattr(objects, "_client", lambda scheme, **_: Wordless())
    with pytest.raises(ObjectError, match=f"a sentence \\({code}\\)") as caught:
        objects.describe("s3://bucket/key")
    assert caught.value.trouble == trouble
    told = str(caught.value.for_row("s3://bucket/key", "image"))
    assert told.count("s3://bucket/key") == 1


def test_a_large_file_may_take_its_time_on_the_way(monkeypatch, tmp_path):
    """S3 says nothing until it has all of it, so a slow line looked like a store that does not answer."""
    patient: list[bool] = []

    class Sender(Moody):
        def put_file(self, path: str, key: str, **_: object) -> None:
            pass

    def client(scheme: str, *, sends: bool) -> Sender:
        patient.append(sends)
        return Sender()

    monkeypatch.setattr(objects, "_client", client)
    for num_bytes in (objects.LARGE_BYTES - 1, objects.LARGE_BYTES):
        (tmp_path / "a.tif").write_bytes(bytes(num_bytes))
        objects.send(tmp_path / "a.tif", "s3://bucket/a.tif")
    assert patient == [False, True]
    timeouts = [objects._settings("s3", sends)["config_kwargs"]["read_timeout"] for sends in patient]
    assert timeouts == [objects.READ_TIMEOUT_S, objects.SEND_TIMEOUT_S]


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/"])
def test_a_bucket_is_no_object(uri, moody, tmp_path):
    client = moody()
    for read in (objects.read_bytes, lambda uri: objects.fetch(uri, tmp_path / "copy")):
        with pytest.raises(ObjectError) as caught:
            read(uri)
        assert caught.value.trouble == "missing"
    assert client.num_requests == 0


def test_only_an_object_that_is_not_there_has_no_version(moody):
    moody(FileNotFoundError(), PermissionError("Forbidden"), *[TimeoutError()] * 3)
    assert objects.describe("s3://bucket/key") == ""
    for trouble in ("denied", "busy"):
        with pytest.raises(ObjectError) as caught:
            object_version("s3://bucket/key")
        assert caught.value.trouble == trouble
    assert object_version("s3://bucket/key") == "10\0first"  # it is asked again after an error


def test_a_full_disk_is_no_fault_of_the_store(moody):
    client = moody(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        objects.read_bytes("s3://bucket/key")
    assert client.num_requests == 1


def test_errors_of_clients_are_told_without_secrets(moody):
    moody(*[OSError("GET https://host/key?X-Amz-Signature=hush and https://me:hush@host/ failed")] * 3)
    with pytest.raises(ObjectError) as caught:
        objects.read_bytes("s3://bucket/key")
    assert "hush" not in str(caught.value)
    assert "failed" in str(caught.value)


def test_a_missing_client_is_named_with_its_extra(monkeypatch):
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gs", raising=False)  # of tests before
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setattr(objects, "_clients", {})
    with pytest.raises(MissingDependencyError, match=r"pip install 'inpaint-batch\[gs\]'"):
        objects.read_bytes("gs://bucket/key")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://bucket/a/b.png", None),
        ("gs://bucket", None),
        ("s3://bucket/prefix/", None),
        ("s3://bucket/img@2x.png", None),
        ("ftp://host/a", "of no store"),
        ("file:///scans/a.png", "path alone"),
        ("s3:///a", "names no bucket"),
        ("s3://bucket/../a", "'..' part"),
        ("s3://bucket/a//b", "empty"),
        ("s3://me:hush@bucket/a", "names a user"),
        ("s3://me:hu/sh@bucket/a", "names a user"),
        ("s3://bucket/a?versionId=1", "query"),
    ],
)
def test_which_uris_can_be_used(uri, said):
    problem = uri_problem(uri)
    assert (problem is None) if said is None else (problem is not None and said in problem)
    assert "hu" not in redacted(uri).replace("hub", "")


SAFE = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1)


@given(user=SAFE, secret=st.text("HUSH/+=", min_size=4), bucket=SAFE, key=SAFE)
def test_no_secret_survives(user, secret, bucket, key):
    assert secret not in redacted(f"cannot read s3://{user}:{secret}@{bucket}/{key}: denied")
    assert secret not in redacted(f"cannot read s3://{bucket}/{key}?{secret}")
    assert redacted(f"s3://{bucket}/{key}: denied") == f"s3://{bucket}/{key}: denied"


@given(prefix=SAFE, name=SAFE)
def test_names_are_put_below(prefix, name):
    uri = joined(f"s3://bucket/{prefix}/", name)
    assert is_uri(uri)
    assert uri == joined(f"s3://bucket/{prefix}", name) == f"s3://bucket/{prefix}/{name}"
