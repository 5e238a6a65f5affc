"""Which things came before: 11 to 23 bytes for each of millions, where a set of strings would take about 200."""

from __future__ import annotations

from array import array
from collections.abc import Hashable

_ALL_BITS = 0xFFFF_FFFF_FFFF_FFFF


class Seen:
    """A set of anything that has a hash, of which a 64-bit one is kept.

    Two different things share a hash, and the second then passes for the first, about once in a million sets of five
    million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 << 16))
        self._mask = len(self._slots) - 1
        self._room = len(self._slots) * 7 // 10

    def __contains__(self, thing: Hashable) -> bool:
        key = hash(thing) & _ALL_BITS or 1  # 0 marks an empty slot
        return self._slots[self._slot(key)] != 0

    def add(self, thing: Hashable) -> bool:
        """Remember `thing`; true where it was not there before."""
        key = hash(thing) & _ALL_BITS or 1
        slots, mask = self._slots, self._mask
        at = key & mask
        while (found := slots[at]) != 0:  # as `_slot`, whose call would cost half as much again
            if found == key:
                return False
            at = (at + 1) & mask
        slots[at] = key
        self._room -= 1
        if self._room == 0:
            self._grow()
        return True

    def _slot(self, key: int) -> int:
        """Where that key is, or would be."""
        slots, mask = self._slots, self._mask
        at = key & mask
        while (found := slots[at]) and found != key:
            at = (at + 1) & mask
        return at

    def _grow(self) -> None:
        old = self._slots
        self._slots = slots = array("Q", bytes(16 * len(old)))
        self._mask = len(slots) - 1
        self._room = len(slots) * 7 // 10
        for key in old:
            if key:
                slots[self._slot(key)] = key
                self._room -= 1
