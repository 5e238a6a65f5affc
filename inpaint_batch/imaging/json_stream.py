"""The members of a JSON file, one after the other: a file of annotations may be far larger than any one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from inpaint_batch.imaging.runs import bad

PARSED_BYTES_PER_CHARACTER = 32
"""Memory that JSON takes at most once it is Python: `{"a":1},` makes 192 bytes of 8."""
_CHUNK = 1 << 16
_NO_SPACE = re.compile(r"[^ \t\n\r]")


class Member(NamedTuple):
    """One value, and where it stood."""

    key: str
    """Of the outermost object; empty for the items of an outermost list."""
    value: Any
    text: str
    """The value as it stands in the file."""


def members(path: Path, itemised: Collection[str], *, max_bytes: int, shown: str) -> Generator[Member]:
    """The members of the object in `path`, in its order; a list under one of the keys `itemised` comes item by item.

    If the outermost value is a list, its items. No value may take more than `max_bytes` parsed. Raises RowError(MASK)
    where the text is not such JSON (NaN and Infinity are none) or a value is too large; later, while members are taken.
    Whoever may stop before the end closes it, and with it the file.
    """
    with understood(shown), path.open(encoding="utf-8-sig") as file:
        stream = _Stream(file, max_bytes // PARSED_BYTES_PER_CHARACTER, shown)
        if stream.peek() == "[":
            yield from _items(stream, "")
        else:
            yield from _object(stream, itemised)
        if stream.peek():
            raise bad(shown, "has more after the end of its JSON")


def _object(stream: _Stream, itemised: Collection[str]) -> Iterator[Member]:
    stream.take("{")
    while stream.peek() != "}":
        key, _ = stream.value()
        if not isinstance(key, str):
            raise ValueError("a key that is no text")
        stream.take(":")
        if key in itemised and stream.peek() == "[":
            yield from _items(stream, key)
        else:
            yield Member(key, *stream.value())
        if stream.peek() != "}":
            stream.take(",")
    stream.take("}")


def _items(stream: _Stream, key: str) -> Iterator[Member]:
    stream.take("[")
    while stream.peek() != "]":
        yield Member(key, *stream.value())
        if stream.peek() != "]":
            stream.take(",")
    stream.take("]")


class _Stream:
    """Values out of a text of which a part is in memory."""

    def __init__(self, file: IO[str], max_characters: int, shown: str) -> None:
        self._file = file
        self._max_characters = max_characters
        self._shown = shown
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder(parse_constant=_refused)

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            if (found := _NO_SPACE.search(self._text, self._at)) is not None:
                self._at = found.start()
                return found[0]
            self._at = len(self._text)
            if not self._more(_CHUNK):
                return ""

    def take(self, sign: str) -> None:
        """Pass over the sign that must come next."""
        if (found := self.peek()) != sign:
            raise ValueError(f"{sign!r} expected, {found!r} found" if found else "its end is missing")
        self._at += 1

    def value(self) -> tuple[Any, str]:
        """The next value, and its text."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number right before the end of what is in memory may go on behind it, as "1" does in "1e+5".
                if end + len("e+") < len(self._text) or not self._more(_CHUNK):
                    text, self._at = self._text[self._at : end], end
                    return value, text
            except json.JSONDecodeError:
                num_characters = len(self._text) - self._at
                if num_characters > self._max_characters:
                    raise bad(
                        self._shown,
                        f"has a part of more than {self._max_characters:,} characters",
                        "split it, save the mask as a grey PNG, or raise --max-image-megabytes",
                    ) from None
                if not self._more(max(_CHUNK, num_characters)):
                    raise

    def _more(self, num_characters: int) -> bool:
        chunk = self._file.read(num_characters)
        if chunk:
            self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number")


@contextmanager
def understood(shown: str) -> Iterator[None]:
    """Turn what goes wrong with JSON inside into RowError(MASK)."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise bad(shown, "is not UTF-8 text", "save it as UTF-8") from error
    except RecursionError as error:
        raise bad(shown, "is nested too deep to be a mask") from error
    except json.JSONDecodeError as error:  # its position counts from wherever the text in memory begins
        raise bad(shown, f"is not sound JSON ({error.msg})") from error
    except ValueError as error:
        raise bad(shown, f"is not sound JSON ({error})") from error
