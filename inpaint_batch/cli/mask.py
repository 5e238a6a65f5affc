"""`inpaint-batch mask`: find scratches, dust and stains, and write masks and a manifest for review."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import gather, local_path, path_or_uri, run_config
from inpaint_batch.words import counted, writable

if TYPE_CHECKING:
    from inpaint_batch.errors import RowError

app = new_app()


_MAX_STRAYS = 5
"""Pictures that are told by name."""


class _Printer:
    """One line an image on stdout, with its place in the list; what failed on stderr."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._num_images = self._num_heard = 0

    def begins(self, num_images: int) -> None:
        self._num_images = num_images

    def known(self) -> None:
        self._num_heard += 1

    def kept(self, image: str) -> None:
        typer.echo(f"{self._place()} {image}: its mask was edited or added by hand, and stays")

    def found(self, image: str, coverage: float, shares: Mapping[str, float]) -> None:
        kinds = ", ".join(f"{kind} {share:.2%}" for kind, share in shares.items() if share)
        typer.echo(f"{self._place()} {image}: {coverage:.2%} ({kinds})")

    def clean(self, image: str, coverage: float) -> None:
        reason = f" ({coverage:.0%} is more than --max-area)" if coverage else ""
        typer.echo(f"{self._place()} {image}: no mask{reason}")

    def failed(self, image: str, error: RowError) -> None:
        print(f"{self._place()} {image}: {error}", file=sys.stderr, flush=True)

    def edited(self, name: str) -> None:
        told = (
            f"manifest.csv had been edited by hand: that one is {self._output / name} now, and manifest.csv is new; "
            "columns of your own stay where IMAGES is a manifest that has them"
        )
        print(f"inpaint-batch: {told}", file=sys.stderr, flush=True)

    def strays(self, masks: Sequence[str]) -> None:
        named = ", ".join(map(writable, masks[:_MAX_STRAYS])) + (", ..." if len(masks) > _MAX_STRAYS else "")
        told = (
            f"{self._output} holds {counted(len(masks), 'picture')} that manifest.csv leaves out, being by name the "
            f"mask of no image here: {named}; the mask of a/b.jpg must be called a/b.jpg.png"
        )
        print(f"inpaint-batch: {told}", file=sys.stderr, flush=True)

    def _place(self) -> str:
        self._num_heard += 1
        return f"[{self._num_heard}/{self._num_images}]"


@app.command()
def mask(
    images: Annotated[
        options.PathOrUri,
        typer.Argument(
            parser=path_or_uri,
            metavar="IMAGES",
            help="Folder of images, manifest that needs no column but image (paths relative to the file; page chooses "
            "one of a TIFF of several), or one image. List and images may lie in a store: s3://, gs://, az://.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", parser=local_path, metavar="DIR", help="Folder that receives masks and manifest."),
    ],
    kinds: Annotated[
        str,
        typer.Option(
            "--kinds",
            metavar="LIST",
            help="What to look for, some of scratches,dust,stains. Stains are the least certain. "
            "Default: scratches,dust.",
            show_default=False,
        ),
    ] = "scratches,dust",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="X",
            help="How many times the contrast of a mark exceeds texture and noise around it, 1-100; higher finds less. "
            "Default: 8.",
        ),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            metavar="PX",
            help="Longest side of a speck of dust in pixels, 3-60; stains are up to 4 times as long. Default: 12.",
        ),
    ] = None,
    min_length: Annotated[
        int | None,
        typer.Option("--min-length", metavar="PX", help="Shortest scratch in pixels, 8-10000. Default: 40."),
    ] = None,
    polarity: Annotated[
        str | None,
        typer.Option(
            "--polarity",
            metavar="NAME",
            help="Marks that are bright or dark against what is around them, or both. Default: both.",
        ),
    ] = None,
    dilate: Annotated[
        int | None,
        typer.Option("--dilate", metavar="PX", help="Grow what is found by so many pixels, 0-64. Default: 1."),
    ] = None,
    max_doubt: Annotated[
        float | None,
        typer.Option(
            "--max-doubt",
            metavar="X",
            help="Fill marks on trial, twice, and leave out those whose fills differ by more than X steps of 255 "
            "(standard deviation); 0: leave out none. Default: 2.5.",
        ),
    ] = None,
    max_area: Annotated[
        float | None,
        typer.Option(
            "--max-area",
            metavar="PERCENT",
            help="Write no mask where more than this part of an image would be marked, 0.01-100: that is rather what "
            "the picture shows. Default: 20.",
        ),
    ] = None,
    review: Annotated[
        bool,
        typer.Option(
            "--review",
            help="Write DIR/review.html: every image with its marks on top. Default: off.",
            show_default=False,
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            max=256,
            help="Images that are looked at at a time. Default: one per core, four at most.",
        ),
    ] = None,
    relist: Annotated[
        bool,
        typer.Option(
            "--relist",
            help="Find nothing: write manifest.csv and clean.txt anew for the masks in DIR, after some were edited, "
            "added or deleted. Default: off.",
            show_default=False,
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Find the masks of an earlier call anew, but none that was edited or added by hand. Default: off.",
            show_default=False,
        ),
    ] = False,
    max_image_megabytes: options.MaxImageMegabytes = None,
) -> None:
    """Find scratches, dust and stains in IMAGES by itself; rather too little than too much.

    Writes a mask for each image where something was found (DIR/a/b.jpg.png for a/b.jpg, white is hole),
    DIR/manifest.csv for `inpaint-batch run`, and the names of all other images to DIR/clean.txt. Called again with the
    same settings it looks only at images that are new or changed. Look at the masks before you run: thin lines of the
    picture itself, such as wires, look like scratches. SIGTERM and SIGUSR1 end it with code 75, Ctrl-C with 130.
    """
    from inpaint_batch.errors import RowsFailedError, UsageError
    from inpaint_batch.holes.detect import DetectConfig
    from inpaint_batch.pipeline.stop import stop_on_signals

    if relist and fresh:
        raise UsageError("--relist finds nothing and --fresh finds all anew; give one of the two")
    given = {
        "threshold": threshold,
        "max_size_px": max_size,
        "min_length_px": min_length,
        "polarity": polarity,
        "dilate_px": dilate,
        "max_doubt": max_doubt,
        "max_area": None if max_area is None else max_area / 100,
    }
    config = DetectConfig(
        kinds=tuple(name.strip() for name in kinds.split(",")),
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    flags = {"workers": workers, "max_image_megabytes": max_image_megabytes}
    settings = run_config(gather(flags, None, {}), output=output)
    with stop_on_signals() as stop:  # before the heavy imports, so that a signal during them is heard too
        from inpaint_batch.pipeline.detect import find_damage
        from inpaint_batch.pipeline.detect_lists import MANIFEST
        from inpaint_batch.pipeline.executors import num_workers

        totals = find_damage(
            images,
            output,
            config,
            _Printer(output),
            fresh=fresh,
            relist=relist,
            review=review,
            num_workers=num_workers(settings),
            max_image_bytes=settings.max_image_bytes,
            stop=stop,
        )
    mean = f", {totals.mean_coverage:.2%} of these on average" if totals.mean_coverage else ""
    before = ""
    if fresh and totals.num_before:
        masks = f"{counted(totals.num_before, 'mask')} edited or added by hand"
        before = f" ({masks} left as before; delete one, and it is found anew)"
    elif totals.num_before and not relist:
        before = f" ({totals.num_before} of all looked at before)"
    if totals.num_found:
        look = f"look at {output / 'review.html'}" if review else "look at the masks"
        then = f"{look}, then: inpaint-batch run {shlex.quote(str(output / MANIFEST))} --output RESTORED"
    else:
        then = "there is nothing to run; where damage was overlooked, draw masks, or lower --threshold, with --fresh"
    typer.echo(f"{counted(totals.num_found, 'image')} with a mask{mean}, {totals.num_clean} without{before}; {then}")
    if totals.num_failed:
        num_images = totals.num_found + totals.num_clean + totals.num_failed
        raise RowsFailedError(
            f"{totals.num_failed} of {counted(num_images, 'image')} could not be looked at; "
            f"{output / MANIFEST} has the others"
        )
