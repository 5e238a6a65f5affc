"""Pages for looking at what `mask` found: every image with its marks on top, which vanish under the pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from inpaint_batch.holes.orientation import turn
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.paths import safe_join
from inpaint_batch.types import BoolArray, Box

REVIEW = "review"
"""Name of the first page."""
PICTURES = ".review"
"""Folder of the pictures on the pages. In a folder without the dot the mask of a photograph could lie."""
PREVIEW_SIDE_PX = 1200
"""Longer side of the largest picture."""
PER_PAGE = 100
ROWS = 512
"""Rows of an image that are made smaller together, at least."""
JPEG_QUALITY = 85
MARK_BGRA = (120, 40, 235, 255)

_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1.5em auto;max-width:1240px;padding:0 1em;color:#222}
figure{margin:0 0 2.5em}figcaption{margin:.3em 0}.both{position:relative;display:inline-block;background:#eee}
.both img{display:block;max-width:100%}.both img+img{position:absolute;inset:0;width:100%;height:100%}
.both:hover img+img,.both:focus img+img{opacity:0}code{background:#f2f2f2;padding:.1em .3em}nav a{margin-right:.7em}"""


@dataclass(frozen=True, slots=True)
class Preview:
    """One image on the pages."""

    image: str
    """Where it is, as in the manifest."""
    output: str
    """Relative name of its result; that of its mask adds `.png`."""
    coverage: float
    """Part of the image that is mask, 0..1; 0 where it is not known."""
    shares: Mapping[str, float]
    """The same for each kind."""


def preview_files(output: Path, name: str) -> tuple[Path, Path]:
    """Where the small image and its marks are, for the result `name`."""
    return safe_join(output, f"{PICTURES}/{name}.jpg"), safe_join(output, f"{PICTURES}/{name}.png")


def write_preview(source: ImageSource, hole: BoolArray, output: Path, name: str) -> None:
    """Write a small upright copy of the image, and its marks as a picture that is transparent elsewhere.

    Raises RowError (read) where the image is damaged, and StorageError where the files cannot be written.
    """
    header = source.header
    factor = max(1, -(-max(header.height_px, header.width_px) // PREVIEW_SIDE_PX))
    rows = -(-ROWS // factor) * factor
    parts, marks = [], []
    for top in range(0, header.height_px, rows):
        box = Box(top, 0, min(rows, header.height_px - top), header.width_px)
        size = (-(-box.width // factor), -(-box.height // factor))
        rgb = samples_to_rgb(source.read(box), header)
        parts.append(np.rint(255 * cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)).astype(np.uint8))
        # A mark of one pixel must not vanish.
        part = hole[box.slices].astype(np.float32)
        marks.append((cv2.resize(part, size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8))
    small = np.vstack(parts)
    upright = np.dstack([turn(np.ascontiguousarray(small[..., each]), header.orientation) for each in (2, 1, 0)])
    marked = turn(np.vstack(marks), header.orientation)
    jpeg, png = preview_files(output, name)
    _write(jpeg, cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    _write(png, cv2.imencode(".png", marked[..., None] * np.array(MARK_BGRA, np.uint8))[1].tobytes())


def write_review(output: Path, previews: Sequence[Preview]) -> Path:
    """Write `review.html`, and `review-2.html` and so on where there are more than 100 images; returns the first."""
    num_pages = max(1, -(-len(previews) // PER_PAGE))
    names = [f"{REVIEW}.html" if number == 0 else f"{REVIEW}-{number + 1}.html" for number in range(num_pages)]
    for number, name in enumerate(names):
        page = _page(output, previews[number * PER_PAGE : (number + 1) * PER_PAGE], names, number)
        _write(output / name, page.encode())
    for number in range(num_pages + 1, 1 << 30):  # of an earlier call that found more
        stale = output / f"{REVIEW}-{number}.html"
        if not stale.exists():
            break
        stale.unlink()
    return output / names[0]


def _page(output: Path, previews: Sequence[Preview], names: Sequence[str], number: int) -> str:
    links = "".join(
        f"<b>{at + 1}</b> " if at == number else f'<a href="{name}">{at + 1}</a>' for at, name in enumerate(names)
    )
    figures = "\n".join(_figure(output, each) for each in previews) or "<p>Nothing was found.</p>"
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Masks to review, page {number + 1}</title><style>{_STYLE}</style>
<h1>Masks to review</h1>
<p>Marks vanish under the pointer. Where one is wrong, paint it black in the mask, or delete the mask file; then call
<code>inpaint-batch mask</code> again with <code>--relist --review</code>.</p>
<nav>{links}</nav>
{figures}
<nav>{links}</nav>
</html>
"""


def _figure(output: Path, preview: Preview) -> str:
    kinds = ", ".join(f"{escape(kind)} {share:.2%}" for kind, share in preview.shares.items() if share)
    told = f"{preview.coverage:.2%} of the image" + (f" ({kinds})" if kinds else "") if preview.coverage else "edited"
    jpeg, png = (quote(path.relative_to(output).as_posix()) for path in preview_files(output, preview.output))
    mask = quote(f"{preview.output}.png")
    return f"""<figure><figcaption><b>{escape(preview.output)}</b> · {told} · <a href="{mask}">mask</a></figcaption>
<div class="both" tabindex="0"><img loading="lazy" src="{jpeg}" alt="{escape(preview.image)}"><img loading="lazy"
src="{png}" alt=""></div></figure>"""


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
