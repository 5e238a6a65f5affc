"""The pages of a TIFF: which one is meant, and which of the others are reduced copies of it."""

from __future__ import annotations

import struct
from pathlib import Path

import tifffile

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.file_errors import damaged, refuse

_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType: a smaller version of another page; which pixels of another page are valid."""
SAVE_WITHOUT = "save it without them"
"""What to do about pages beside the one that is meant."""


def has_single_page(path: Path) -> bool:
    """Whether all pages of a TIFF but the first are smaller versions of others, or their masks."""
    with tifffile.TiffFile(path) as file:
        return _has_single_page(file)


def choose_page(path: Path, file: tifffile.TiffFile, page_number: int | None) -> tifffile.TiffPage:
    """The page of that number (from 1; None: the only one). Raises `RowError` (read) where there is no such page."""
    num_pages = len(file.pages)
    if not num_pages:
        raise damaged(path, "it holds no page")
    if page_number is None and not _has_single_page(file):
        advice = f"say which one in the column `page` (1 to {num_pages}; the others then stay as they are) or split it"
        raise refuse(path, f"a TIFF of {num_pages} pages", advice)
    if page_number is not None and not 1 <= page_number <= num_pages:
        message = f"the image {path} has no page {page_number}; its pages are 1 to {num_pages}"
        raise RowError(FailureCode.READ, message)
    page = file.pages[(page_number or 1) - 1]
    if not isinstance(page, tifffile.TiffPage):
        raise damaged(path, "its directories do not hold together")
    return page


def sub_images(page: tifffile.TiffPage | tifffile.TiffFrame) -> list[tifffile.TiffPage]:
    """The pages that hang below one (SubIFDs)."""
    pages = page.pages if isinstance(page, tifffile.TiffPage) and page.subifds else None
    return [each for each in pages or () if isinstance(each, tifffile.TiffPage)]


def reduced_copies(path: Path, file: tifffile.TiffFile, page: tifffile.TiffPage) -> list[tifffile.TiffPage]:
    """The smaller versions of `page`, which are made anew with it: its sub-images, and what follows it in the file.

    Masks among them, which say where there is something to see, stay as they are. Raises `RowError` (read) where pages
    hang together in another way.
    """
    subs = sub_images(page)
    if len(subs) != len(page.subifds or ()) or not all(_is_subfile(sub, _REDUCED) for sub in subs):
        raise refuse(path, "a TIFF with sub-images that are no reduced copies", SAVE_WITHOUT)
    if any(next_offset(file, sub) not in {0, *(each.offset for each in subs)} for sub in subs):
        raise refuse(path, "a TIFF with chains of sub-images", SAVE_WITHOUT)
    number = next(number for number, each in enumerate(file.pages) if each.offset == page.offset)
    followers: list[tifffile.TiffPage] = []
    for other in file.pages[number + 1 :]:
        if not isinstance(other, tifffile.TiffPage) or not _is_subfile(other, _REDUCED | _MASK):
            break
        followers.append(other)
    if _is_subfile(page, _REDUCED) and len(file.pages) > 1:
        raise refuse(path, f"page {number + 1} of a TIFF, a reduced copy of another", "name the page that it is one of")
    if len(file.pages) > 1 and _is_subfile(file.pages[0], _REDUCED):
        raise refuse(path, "a TIFF that begins with a reduced copy of a later page", SAVE_WITHOUT)
    copies = [each for each in subs + followers if not _is_subfile(each, _MASK)]
    if any(map(sub_images, [*subs, *followers])):
        raise refuse(path, "a TIFF whose reduced copies have sub-images", SAVE_WITHOUT)
    return copies


def next_offset(file: tifffile.TiffFile, page: tifffile.TiffPage | tifffile.TiffFrame) -> int:
    """Where the directory behind that of `page` begins; 0 for none."""
    order, handle = file.tiff, file.filehandle
    handle.seek(page.offset)
    (num_tags,) = struct.unpack(order.tagnoformat, handle.read(order.tagnosize))
    handle.seek(page.offset + order.tagnosize + num_tags * order.tagsize)
    packed = handle.read(order.offsetsize)
    return int(struct.unpack(order.offsetformat, packed)[0]) if len(packed) == order.offsetsize else 0


def _has_single_page(file: tifffile.TiffFile) -> bool:
    return all(_is_subfile(page, _REDUCED | _MASK) for page in file.pages[1:])


def _is_subfile(page: tifffile.TiffPage | tifffile.TiffFrame, bits: int) -> bool:
    return isinstance(page, tifffile.TiffPage) and bool(int(page.subfiletype) & bits)
