"""Layers that Photoshop keeps in a TIFF, beside the flat picture that all other programs read. It opens the layers."""

from __future__ import annotations

import struct

import tifffile

_TAG = 37724
_NAMES = (b"Adobe Photoshop Document Data Block\x00", b"Adobe Photoshop Document Data V0002\x00")
_ORDERS = {b"8BIM": ">", b"8B64": ">", b"MIB8": "<", b"46B8": "<"}
_LAYERS = (b"Layr", b"Lr16", b"Lr32")
_WIDE = (*_LAYERS, b"LMsk", b"Mt16", b"Mt32", b"Mtrn", b"Alph", b"FMsk", b"lnk2", b"FEid", b"FXid", b"PxSD")
"""Blocks whose length has eight bytes in the second form."""
_MOST_BLOCKS = 1000


def has_layers(page: tifffile.TiffPage) -> bool:
    """Whether there is at least one; what is damaged is taken for none, as there is nothing to open then."""
    tag = page.tags.get(_TAG)
    if tag is None:
        return False
    file = page.parent.filehandle
    position, end = int(tag.valueoffset), int(tag.valueoffset) + int(tag.valuebytecount)
    file.seek(position)
    name = file.read(len(_NAMES[0]))
    if name not in _NAMES:
        return False
    position += len(name)
    for _ in range(_MOST_BLOCKS):
        file.seek(position)
        head = file.read(18)
        order = _ORDERS.get(head[:4])
        if position + len(head) > end or len(head) < 18 or order is None:
            return False
        key = head[4:8] if order == ">" else head[7:3:-1]
        is_wide = key in _WIDE and (name == _NAMES[1] or head[:4] in (b"8B64", b"46B8"))
        (length,) = struct.unpack_from(order + ("Q" if is_wide else "I"), head, 8)
        body = 16 if is_wide else 12
        if key in _LAYERS and length:
            return head[body : body + 2] != bytes(2)  # how many they are; below zero where one is of transparency
        position += body + length + -length % 4
    return False
