"""TIFFs that GDAL has laid out for reading over a network: a note behind the header says so.

A segment that is written anew has neither its place in the order nor the lengths around it that the note speaks of, so
the note is blanked, and the file is one like any other. Where GDAL itself changes such a file it only marks the note as
outdated; but GDAL 3.10 crashes all the same on tiles with a mask, read over HTTP, that are not where it lets it look.
"""

from __future__ import annotations

import re
from typing import BinaryIO, NamedTuple

_NOTE = re.compile(rb"GDAL_STRUCTURAL_METADATA_SIZE=(\d{6}) bytes\n")
_TEXT = re.compile(rb"[\n -~]*")
BLANK = b" "


class Note(NamedTuple):
    """Where in the file the note stands."""

    start: int
    length: int


def find_note(file: BinaryIO, *, is_big: bool) -> Note | None:
    """The note of a TIFF, or None where it has none, or one that is more than text: somebody else's bytes, perhaps."""
    start = 16 if is_big else 8
    file.seek(start)
    found = _NOTE.match(file.read(64))
    if found is None:
        return None
    file.seek(start)
    text = file.read(found.end() + int(found[1]))
    return Note(start, len(text)) if _TEXT.fullmatch(text) else None


def blank_note(file: BinaryIO, *, is_big: bool) -> None:
    """Take the note of a TIFF away, if it has one; nothing else moves."""
    note = find_note(file, is_big=is_big)
    if note is not None:
        file.seek(note.start)
        file.write(BLANK * note.length)
