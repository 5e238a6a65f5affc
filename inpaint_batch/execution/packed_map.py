"""A few bytes for each of millions of things: about 25 bytes each besides, where a dict would take about 130."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

MAX_VALUE_BYTES = (1 << 16) - 1


class PackedMap:
    """A dict from anything that has a hash to at most MAX_VALUE_BYTES. Keeps a 64-bit hash of each key, not the key.

    Two different keys share a hash, and the second then has the value of the first, about once in a million maps of
    five million keys.
    """

    def __init__(self) -> None:
        # An open hash table of numbers of entries, 0 where there is none; and of each entry the hash of its key, and
        # where in the log its value lies.
        self._slots = array("I", bytes(4 << 16))
        self._mask = len(self._slots) - 1
        self._hashes = array("q", (0,))
        self._places = array("Q", (0,))
        self._sizes = array("H", (0,))
        self._log = bytearray()

    def __len__(self) -> int:
        return len(self._hashes) - 1

    def get(self, key: Hashable) -> bytes | None:
        """What was put last under `key`; None where nothing was."""
        hashed = hash(key)
        slots, hashes, mask = self._slots, self._hashes, self._mask
        at = hashed & mask
        while number := slots[at]:
            if hashes[number] == hashed:
                place = self._places[number]
                return bytes(self._log[place : place + self._sizes[number]])
            at = (at + 1) & mask
        return None

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep `value`, where the one before was if that is as long. Raises OverflowError where it is too long."""
        hashed, size = hash(key), len(value)
        slots, hashes, mask = self._slots, self._hashes, self._mask
        at = hashed & mask
        while number := slots[at]:  # as in `get`: a call of its own would cost as much as all else here
            if hashes[number] == hashed:
                if self._sizes[number] == size:
                    place = self._places[number]
                    self._log[place : place + size] = value
                else:
                    self._sizes[number] = size
                    self._places[number] = len(self._log)
                    self._log += value
                return
            at = (at + 1) & mask
        self._sizes.append(size)
        slots[at] = len(hashes)
        hashes.append(hashed)
        self._places.append(len(self._log))
        self._log += value
        if 10 * len(hashes) > 7 * len(slots):
            self._grow()

    def _grow(self) -> None:
        self._slots = slots = array("I", bytes(8 * len(self._slots)))
        self._mask = mask = len(slots) - 1
        for number in range(1, len(self._hashes)):
            at = self._hashes[number] & mask
            while slots[at]:
                at = (at + 1) & mask
            slots[at] = number
