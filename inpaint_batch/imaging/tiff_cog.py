"""TIFFs that GDAL has laid out for reading over a network: a note behind the header says so, and that nobody has
changed them since.

A segment that is written anew has neither its place in the order nor the lengths around it that the note speaks of.
Where GDAL itself changes such a file it turns the note over, and then reads it like any other; so it is done here.
"""

from __future__ import annotations

from typing import BinaryIO

_HEAD_BYTES = 4096
_BEGINNING = b"GDAL_STRUCTURAL_METADATA_SIZE="
_UNCHANGED = b"KNOWN_INCOMPATIBLE_EDITION=NO\n "
CHANGED = b"KNOWN_INCOMPATIBLE_EDITION=YES\n"
"""Exactly as long as what it takes the place of."""
assert len(CHANGED) == len(_UNCHANGED)


def note_place(file: BinaryIO, *, is_big: bool) -> int | None:
    """Where a TIFF says that it was not changed; None where it says no such thing."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    place = head.find(_UNCHANGED) if head.startswith(_BEGINNING, 16 if is_big else 8) else -1
    return place if place >= 0 else None


def turn_note(file: BinaryIO, *, is_big: bool) -> None:
    """Say that the file was changed, where it says that it was not."""
    place = note_place(file, is_big=is_big)
    if place is not None:
        file.seek(place)
        file.write(CHANGED)
