"""What the ledger says of each row, for millions of them: about 60 bytes a row where objects would take 600."""

from __future__ import annotations

from binascii import unhexlify
from typing import NamedTuple

from inpaint_batch.errors import FailureCode
from inpaint_batch.execution.identity import KEY_DIGITS
from inpaint_batch.execution.ledger_lines import LedgerEntry, Status
from inpaint_batch.execution.packed_map import PackedMap

_KEY_BYTES = KEY_DIGITS // 2
_PLACE_BYTES = 8
_SIGN: dict[Status, bytes] = {"started": b"s", "dropped": b"x", "done": b"d", "failed": b"f"}
_SIGN_WITHOUT_KEY = {status: sign.upper() for status, sign in _SIGN.items()}
_STATUS = {sign.decode(): status for status, sign in _SIGN.items()}
_CODES = tuple(code.value for code in FailureCode)
_RETRYABLE = 0x80
_NO_OUTPUT = b"\0"
_MAX_NAME_BYTES = 1 << 15


class Known(NamedTuple):
    """What the ledger remembers of a row."""

    status: Status
    key: str
    output: str
    """The name under which this row's result was, or was about to be, written; empty where it never came so far."""
    code: str = ""
    retryable: bool = False
    num_deaths: int = 0
    """How often in a row the process died while it worked on this row alone."""
    place: int = 0
    """Of a failed row: where its line is, which has the message (`Ledger.message`)."""


class LedgerIndex:
    """The last word about every row, by its id; where two ids share a hash (see `PackedMap`), one is done again."""

    def __init__(self) -> None:
        # A sign for the status, a capital where there is no key; of failed rows the code and the place; the key; the
        # output, empty where it is the id. Nothing of rows that do not go into that: they are kept as they are.
        self._rows = PackedMap()
        self._others: dict[int, Known] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, row_id: str) -> Known | None:
        """The last word about a row, or None where there is none."""
        found = self._rows.get(row_id)
        if found is None:
            return None
        return _unpacked(found, row_id) if found else self._others[hash(row_id)]

    def add(self, line: LedgerEntry, place: int = 0) -> None:
        """One line more, the next in order; `place` is where it can be read again."""
        output, num_deaths = line.output, 0
        if line.alone or not output or self._others:
            before = self.get(line.id)
            if not output and before is not None:
                # A row that failed before it had a name for its output still owns that of an earlier, better day.
                output = before.output
            if line.status == "started":
                num_deaths = line.alone + (before.num_deaths if before is not None else 0)
        place = place if line.status == "failed" else 0
        packed = None if num_deaths else _packed(line, output, place)
        self._rows.put(line.id, packed or b"")
        if packed is None:
            self._others[hash(line.id)] = Known(
                line.status, line.key, output, line.code, bool(line.retryable), num_deaths, place
            )
        elif self._others:
            self._others.pop(hash(line.id), None)


def _packed(line: LedgerEntry, output: str, place: int) -> bytes | None:
    try:
        key = unhexlify(line.key)
    except ValueError:
        return None  # a key by hand
    if key and len(key) != _KEY_BYTES:
        return None  # of another version
    packed = (_SIGN if key else _SIGN_WITHOUT_KEY)[line.status]
    if line.status == "failed":
        code = _CODES.index(line.code) | (_RETRYABLE if line.retryable else 0)
        packed += bytes([code]) + place.to_bytes(_PLACE_BYTES, "big")
    if output == line.id:
        return packed + key
    name = output.encode("utf-8", "surrogatepass") or _NO_OUTPUT
    return packed + key + name if len(name) <= _MAX_NAME_BYTES else None


def _unpacked(packed: bytes, row_id: str) -> Known:
    sign = chr(packed[0])
    status = _STATUS[sign.lower()]
    code, place, start = "", 0, 1
    if status == "failed":
        code = _CODES[packed[1] & ~_RETRYABLE]
        start += 1 + _PLACE_BYTES
        place = int.from_bytes(packed[2:start], "big")
    end = start + (_KEY_BYTES if sign.islower() else 0)
    name = packed[end:]
    output = "" if name == _NO_OUTPUT else name.decode("utf-8", "surrogatepass") or row_id
    return Known(
        status, packed[start:end].hex(), output, code, status == "failed" and packed[1] >= _RETRYABLE, place=place
    )
