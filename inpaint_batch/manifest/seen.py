"""Which texts came before: 13 to 27 bytes for each of millions, where a set of strings would take about 200."""

from __future__ import annotations

from array import array


class Seen:
    """A set of strings that answers `add` only. Keeps a 64-bit hash of each.

    Two different texts share a hash, and the second is then taken for a duplicate, about once in a million manifests of
    five million rows.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 16))
        self._mask = len(self._slots) - 1
        self._room = len(self._slots) * 6 // 10

    def add(self, text: str) -> bool:
        """Remember `text`; true where it was not there before."""
        key = hash(text) & 0xFFFF_FFFF_FFFF_FFFF or 1  # 0 marks an empty slot
        slots, mask = self._slots, self._mask
        at = key & mask
        while (found := slots[at]) != 0:
            if found == key:
                return False
            at = (at + 1) & mask
        slots[at] = key
        self._room -= 1
        if self._room == 0:
            self._grow()
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = slots = array("Q", bytes(16 * len(old)))
        self._mask = mask = len(slots) - 1
        self._room = len(slots) * 6 // 10
        for key in old:
            if key:
                at = key & mask
                while slots[at]:
                    at = (at + 1) & mask
                slots[at] = key
                self._room -= 1
