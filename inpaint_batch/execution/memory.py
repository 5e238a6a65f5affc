"""What the ledger says of each row, for millions of them: about 150 bytes a row where objects would take 600."""

from __future__ import annotations

from binascii import unhexlify
from typing import NamedTuple

from inpaint_batch.execution.identity import KEY_DIGITS
from inpaint_batch.execution.ledger_lines import LedgerEntry, Status

_KEY_BYTES = KEY_DIGITS // 2
_STATUS: dict[int, Status] = {ord("s"): "started", ord("x"): "dropped", ord("d"): "done"}
_SIGN = {status: bytes([sign]) for sign, status in _STATUS.items()}


class Known(NamedTuple):
    """What the ledger remembers of a row."""

    status: Status
    key: str
    output: str
    """The name under which this row's result was, or was about to be, written; empty where it never came so far."""
    code: str = ""
    message: str = ""
    retryable: bool = False
    num_deaths: int = 0
    """How often in a row the process died while it worked on this row alone."""


class Memory:
    """The last word about every row, by a 64-bit hash of its id.

    Two ids share a hash once in a million ledgers of five million rows; one of the two rows is then done again.
    """

    def __init__(self) -> None:
        # Rows of whom there is nothing to say but status, key and output are kept as bytes in that order, the output
        # empty where it is the id.
        self._rows: dict[int, bytes | Known] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, row_id: str) -> Known | None:
        """The last word about a row, or None where there is none."""
        found = self._rows.get(hash(row_id))
        return _unpacked(found, row_id) if isinstance(found, bytes) else found

    def add(self, line: LedgerEntry) -> None:
        """One line more, the next in order."""
        at = hash(line.id)
        before = self._rows.get(at)
        known = packed = None
        if line.alone or line.code or not line.output or isinstance(before, Known):
            known = _merged(_unpacked(before, line.id) if isinstance(before, bytes) else before, line)
            if known.output and not (known.code or known.num_deaths):
                packed = _packed(line, known.output)
        else:
            packed = _packed(line, line.output)
        self._rows[at] = packed or known or _merged(None, line)


def _packed(line: LedgerEntry, output: str) -> bytes | None:
    if len(line.key) == KEY_DIGITS and line.status != "failed":
        name = b"" if output == line.id else output.encode("utf-8", "surrogatepass")
        try:
            return _SIGN[line.status] + unhexlify(line.key) + name
        except ValueError:
            pass  # a key of another version, or by hand
    return None


def _unpacked(packed: bytes, row_id: str) -> Known:
    output = packed[1 + _KEY_BYTES :].decode("utf-8", "surrogatepass")
    return Known(_STATUS[packed[0]], packed[1 : 1 + _KEY_BYTES].hex(), output or row_id)


def _merged(before: Known | None, line: LedgerEntry) -> Known:
    # A row that failed before it had a name for its output still owns the output of an earlier, better day.
    output = line.output or (before.output if before else "")
    num_deaths = 0
    if line.status == "started":
        num_deaths = (before.num_deaths if before else 0) + line.alone
    return Known(line.status, line.key, output, line.code, line.message, bool(line.retryable), num_deaths)
