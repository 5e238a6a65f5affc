"""Words of sentences for people."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`, `0 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(text: object, max_length: int = 200) -> str:
    """What `text`, an error perhaps, says, in one line of at most so many characters."""
    return " ".join(str(text).split())[:max_length]


def either(names: Sequence[str]) -> str:
    """`a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def first_line(error: BaseException) -> str:
    """What an error says first, since those of engines go on for a page; its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def writable(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file's name that are none are written out, as in `caf\\udce9`."""
    return text.encode("utf-8", "backslashreplace").decode()
