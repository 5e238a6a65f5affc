"""URIs as text: which ones name something in a store that is known here, and how they are put together and shown."""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEMES = {"s3": "s3", "gs": "gs", "az": "az", "memory": "s3"}
"""Stores that are known, each with the extra that brings its client (for `memory`, one that brings fsspec)."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_USER = re.compile(r"(?<=://)(?:[^/\s'\"@]*@|[^/\s'\"@:]*:[^\s'\"]*@)")  # a secret may contain a slash
_QUERY = re.compile(r"(?<=[^\s'\"?])\?[^\s'\"]+")


def is_uri(location: str) -> bool:
    """Whether `location` starts with a scheme such as `s3://` (a Windows drive letter is not one)."""
    return "://" in location and _SCHEME.match(location) is not None


def redacted(text: str) -> str:
    """`text` without user names, passwords and query strings of the URIs in it."""
    return _QUERY.sub("?…", _USER.sub("…@", text)) if "://" in text else text


class UriParts(NamedTuple):
    """What a URI is made of; what is not there is empty."""

    scheme: str
    bucket: str
    key: str


def split_uri(uri: str) -> UriParts:
    """A URI taken apart; nothing in it is checked."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return UriParts(scheme, bucket, key)


def uri_problem(uri: str) -> str | None:
    """Why a URI cannot be used, as a clause to put after it; None if it can. Looks at the text only."""
    scheme, bucket, key = split_uri(uri)
    if scheme == "file":
        return "is a file of this machine; write its path alone, such as /scans/a.png"
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name != "memory")
        return f"is of no store that is known here ({known})"
    if "@" in bucket or ":" in bucket:
        return (
            "names a user; leave credentials out of URIs and give them to the client of the store, such as in the "
            "environment or a profile"
        )
    if set("?#") & set(bucket + key):
        return "has a query or fragment (? or #); name an object without, and leave credentials to the environment"
    if not bucket:
        return "names no bucket"
    parts = key.split("/")
    if ".." in parts or "." in parts or "" in parts[:-1]:
        return "has an empty, '.' or '..' part; name the object by its key"
    return None


def joined(prefix: str, name: str) -> str:
    """The URI of `name` below `prefix`."""
    return f"{prefix.rstrip('/')}/{name}"
