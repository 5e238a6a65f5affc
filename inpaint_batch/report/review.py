"""Pages for looking at what `mask` found: every image with its marks on top, which vanish under the pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.report.pictures import Overview
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.paths import safe_join
from inpaint_batch.types import BoolArray

REVIEW = "review"
"""Name of the first page."""
PICTURES = ".review"
"""Folder of the pictures on the pages. In a folder without the dot the mask of a photograph could lie."""
PREVIEW_SIDE_PX = 1200
"""Longer side of the largest picture."""
PER_PAGE = 100
NEAR_PAGES = 10
"""Pages before and after each one that it has links to."""

_STYLE = """body{font:15px/1.4 system-ui,sans-serif;margin:1.5em auto;max-width:1240px;padding:0 1em}
body{color:#222;background:#fff}
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
    overview = Overview(source.header, PREVIEW_SIDE_PX)
    for box in source.parts():
        overview.add(box, source.read(box), hole[box.slices])
    jpeg, png = preview_files(output, name)
    _write(jpeg, overview.picture())
    _write(png, overview.marks())


def write_review(output: Path, previews: Sequence[Preview], again: str) -> Path:
    """Write `review.html`, and `review-2.html` and so on where there are more than 100 images; returns the first.

    `again` is the command that makes them anew once masks were edited.
    """
    num_pages = max(1, -(-len(previews) // PER_PAGE))
    names = [f"{REVIEW}.html" if number == 0 else f"{REVIEW}-{number + 1}.html" for number in range(num_pages)]
    for number, name in enumerate(names):
        page = _page(output, previews[number * PER_PAGE : (number + 1) * PER_PAGE], names, number, again)
        _write(output / name, page.encode())
    for number in range(num_pages + 1, 1 << 30):  # of an earlier call that found more
        stale = output / f"{REVIEW}-{number}.html"
        if not stale.exists():
            break
        stale.unlink()
    return output / names[0]


def _page(output: Path, previews: Sequence[Preview], names: Sequence[str], number: int, again: str) -> str:
    links = f"<nav>{_numbers(names, number)}</nav>" if len(names) > 1 else ""
    figures = "\n".join(_figure(output, each) for each in previews) or "<p>Nothing was found.</p>"
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Masks to review, page {number + 1}</title><style>{_STYLE}</style>
<h1>Masks to review</h1>
<p>Marks vanish under the pointer. Where one is wrong, paint it black in the mask, or delete the mask file; then call,
from the same folder as before: <code>{escape(again)}</code></p>
{links}
{figures}
{links}
</html>
"""


def _numbers(names: Sequence[str], number: int) -> str:
    """Links to the first and last page and to those around page `number`, from 0; all would fill thousands of pages."""
    near = range(max(0, number - NEAR_PAGES), min(len(names), number + NEAR_PAGES + 1))
    told, last = "", -1
    for at in sorted({0, *near, len(names) - 1}):
        told += "… " if at > last + 1 else ""
        told += f"<b>{at + 1}</b> " if at == number else f'<a href="{names[at]}">{at + 1}</a>'
        last = at
    return told


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
