"""One HTML file to look at the results of a run: what was changed, row by row, and what failed. Needs nothing else.

Everything that comes from files is escaped, pictures are inside, and there is no script.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from inpaint_batch.report.comparison import Comparison

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:1280px;padding:0 1em}
body{color:#222;background:#fff}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em}table{border-collapse:collapse;width:100%;table-layout:fixed}
th:nth-child(1){width:28%}th:nth-child(2){width:5.5em}
td,th{text-align:left;padding:.25em .6em;border-bottom:1px solid #ddd;vertical-align:top;overflow-wrap:anywhere}
figure{margin:0 0 2.2em;border-top:1px solid #ddd;padding-top:.6em}figcaption{margin-bottom:.4em;overflow-wrap:anywhere}
.pictures{display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start}
.stack{position:relative;display:inline-block;background:#eee}.stack img{display:block;max-width:100%}
.stack img+img{position:absolute;inset:0;width:100%;height:100%}.stack:hover img+img,.stack:focus img+img{opacity:0}
.small img{max-height:300px}.note{color:#8a4b00}.muted{color:#666}code{background:#f2f2f2;padding:.1em .3em}"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A row that is done."""

    id: str
    image: str
    """Where the source is."""
    output: str
    """Name of the result relative to the output folder."""
    link: str
    """Address of the result, relative to the page; empty where there is none to give."""
    coverage: float | None
    """Part of the image that was hole, 0..1, as the run found it."""
    doubt: float | None
    """How far its passes were apart (`LedgerEntry.doubt`)."""
    warnings: tuple[str, ...]
    pictures: Comparison | str
    """A sentence where the files can no longer be compared."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that failed."""

    id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Head:
    """What the page says first."""

    output: str
    """The output folder, as its owner calls it."""
    sentence: str
    """How far the runs are."""
    made: str
    """When the page was made, and by what."""
    choice: str
    """Which rows are shown; empty where there are none."""


_TITLE = "<title>inpaint-batch: "
_HEAD_BYTES = 512
"""Within these the title begins."""


def is_page(path: Path) -> bool:
    """Whether the file is a page that `page` made. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return _TITLE.encode() in file.read(_HEAD_BYTES)


def page(head: Head, shown: Iterable[Shown], failed: Sequence[Failed], num_failed: int) -> Iterator[str]:
    """The page, piece by piece; `failed` are those to be listed, of `num_failed` in all."""
    yield f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
{_TITLE}{escape(head.output)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(head.output)}</h1>
<p>{escape(head.sentence)}</p>
<p class="muted">Made on {escape(head.made)}.</p>
"""
    yield from _failures(failed, num_failed)
    if not head.choice:
        yield "<h2>Results</h2>\n<p>No row is done yet.</p>\n</body></html>\n"
        return
    yield f"""<h2>Results</h2>
<p>{escape(head.choice)} Source and result were compared sample by sample when this page was made. On the picture of the
whole result what has changed is marked; marks vanish under the pointer. The smaller pictures show what is most in doubt
and the largest changes, pixel by pixel: the result, and under the pointer the source. In a JPEG blocks around a hole
change a little. Every hole is filled twice, mirrored; doubt is how far these fills are apart, in steps of 255.</p>
"""
    for each in shown:
        yield _figure(each)
    yield "</body></html>\n"


def _failures(failed: Sequence[Failed], num_failed: int) -> Iterator[str]:
    if not num_failed:
        return
    yield f"<h2>Failed: {num_failed}</h2>\n<table><tr><th>row</th><th>code</th><th>what to do</th></tr>\n"
    for each in failed:
        yield f"<tr><td>{escape(each.id)}</td><td>{escape(each.code)}</td><td>{escape(each.message)}</td></tr>\n"
    yield "</table>\n"
    if len(failed) < num_failed:
        yield f'<p class="muted">and {num_failed - len(failed)} more: all are in failures.csv</p>\n'


def _figure(row: Shown) -> str:
    name = f'<a href="{escape(row.link)}">{escape(row.output)}</a>' if row.link else escape(row.output)
    hole = f"hole {_part(row.coverage)}" if row.coverage is not None else ""
    if row.doubt is not None:
        hole += f", doubt {row.doubt:.1f}"
    warnings = "".join(f'<br><span class="note">{escape(text)}</span>' for text in row.warnings)
    source = f'<span class="muted">of {escape(row.image)}</span>'
    if isinstance(row.pictures, str):
        told = f'<p class="note">{escape(row.pictures)}</p>'
        return f"<figure><figcaption><b>{name}</b> {source}<br>{hole}{warnings}</figcaption>{told}</figure>\n"
    pictures = row.pictures
    changed = f"changed {_part(pictures.num_changed / pictures.num_pixels)}"
    whole = _stack(_data("jpeg", pictures.overview), _data("png", pictures.marks), "the result", "what has changed")
    close = "".join(
        f'<div class="small">{_stack(_data("jpeg", each.before), _data("jpeg", each.after), "source", "result")}</div>'
        for each in pictures.close_ups
    )
    caption = f"<b>{name}</b> {source}<br>{', '.join(filter(None, (hole, changed)))}{warnings}"
    return f'<figure><figcaption>{caption}</figcaption><div class="pictures">{whole}{close}</div></figure>\n'


def _stack(below: str, above: str, name_below: str, name_above: str) -> str:
    images = f'<img src="{below}" alt="{name_below}"><img src="{above}" alt="{name_above}">'
    return f'<div class="stack" tabindex="0">{images}</div>'


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _part(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 or not share else "under 0.01%"
