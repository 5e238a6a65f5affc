"""What goes wrong with a request to a store: the exceptions of its client, in the words of a run."""

from __future__ import annotations

import errno
from typing import Literal

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.storage.uris import redacted
from inpaint_batch.words import one_line

Trouble = Literal["missing", "denied", "refused", "busy"]

_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_BAD_CREDENTIALS = frozenset(
    (
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
        "AuthenticationFailed",  # Azure's
        "AuthorizationFailure",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
        "401",
    )
)


class ObjectError(Exception):
    """A request that came to nothing, for good or after all attempts; the message says why, and names no secret."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        """`missing`, `denied` (this object), `refused` (the store as a whole), or `busy` (it may work later)."""
        super().__init__(trouble, message)
        self.trouble = trouble
        self.message = message

    def __str__(self) -> str:
        return self.message

    def for_row(self, uri: str, role: str) -> RowError | StorageError:
        """What it means where a row wanted to read `uri`, its `role` (image, mask): StorageError ends the run."""
        match self.trouble:
            case "missing":
                return RowError(FailureCode.READ, f"the {role} {uri} does not exist; correct the manifest or bring it")
            case "refused":
                return self.for_run("read")
            case trouble:
                why = self.message.removeprefix(uri).lstrip(":, ")
                if trouble == "denied":
                    why += "; a store says so, too, of what is not there in a bucket that may not be listed"
                return RowError(FailureCode.READ, f"cannot read the {role} {uri}: {why}", retryable=trouble == "busy")

    def for_run(self, verb: str) -> StorageError:
        """What it means where the run as a whole depends on it; `verb` is what was to be done: read, write, list."""
        return StorageError(f"cannot {verb}: {self.message}")


def trouble_of(error: Exception) -> Trouble:
    """What kind of trouble a client's exception tells of; raises it again where it is about this machine's own disk."""
    if isinstance(error, ObjectError):
        return error.trouble
    if isinstance(error, OSError) and error.errno in _LOCAL:
        raise error
    if _code(error) == "NoSuchUpload":  # it was given up, or all of it is there and the answer was lost
        return "busy"
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or _code(error) == "404":
        return "missing"
    name = type(error).__name__
    if name == "ParamValidationError":  # such as no name of a bucket
        return "denied"
    if _code(error) in _BAD_CREDENTIALS or "Credential" in name or "ProfileNotFound" in name:
        return "refused"
    if isinstance(error, PermissionError) or _is_forbidden(error):
        return "denied"
    if isinstance(error, ValueError | TypeError | AttributeError | NotImplementedError):
        return "refused"
    return "busy"


def reason_of(error: Exception) -> str:
    """Why, in one line without secrets."""
    text = one_line(redacted(str(error)), 160) or type(error).__name__
    code = _code(error)
    if type(error).__name__ == "NoCredentialsError":
        return "there are no credentials; set those of the store's client in the environment or a profile"
    return f"{text} ({code})" if code and code not in text else text


def is_wordless(error: Exception) -> bool:
    """Whether S3 refused a request and told but the number of its answer, which may have many reasons."""
    return _code(error) in ("400", "403")


def _is_forbidden(error: Exception) -> bool:
    """As the clients for Azure and Google put it."""
    return _code(error) == "403" or getattr(error, "status_code", 0) == 403 or str(error).startswith("Forbidden: ")


def _code(error: Exception) -> str:
    """The store's own word for what is wrong, such as `SlowDown`, or the number of its answer; empty without either."""
    for link in (error, error.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        # The first two are Azure's, the others Google's, whose older client knows its `code` no more.
        for name in ("error_code", "status_code", "status", "code"):
            if code := getattr(link, name, None):
                return str(getattr(code, "value", code))
    return ""
