"""`mask`: look for damage in every image of a folder or list, and write masks and a manifest for review."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Protocol

import cv2
import numpy as np

from inpaint_batch.config import DEFAULT_MAX_IMAGE_BYTES, RowConfig, TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.trial_fill import TrialFill
from inpaint_batch.holes.detect import DetectConfig, detect_in
from inpaint_batch.holes.prepare import hole_map
from inpaint_batch.imaging.colour import known_rgb, samples_to_rgb
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.mask_pictures import open_picture
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.pipeline.detect_items import Item, items_of, strays, told_apart
from inpaint_batch.pipeline.detect_lists import MANIFEST, write_lists
from inpaint_batch.pipeline.detect_masks import digest_of, is_as_found, write_mask
from inpaint_batch.pipeline.detect_state import (
    UNSEEN,
    Seen,
    StateFile,
    read_state,
    version_of,
)
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.report.review import Preview, preview_files, write_preview, write_review
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.storage.atomic import remove_stale_temporaries
from inpaint_batch.storage.nearby import on_this_machine
from inpaint_batch.storage.paths import check_output_root, safe_join
from inpaint_batch.threads import in_turn
from inpaint_batch.types import BoolArray, Box, FloatArray

_PASSES = 2
"""Fills of each tile that are compared."""


class Report(Protocol):
    """Who hears what became of each image, in the order of the list."""

    def begins(self, num_images: int) -> None:
        """So many images were named, those of earlier calls included."""

    def known(self) -> None:
        """An earlier call looked at the image."""

    def kept(self, image: str) -> None:
        """Where all was to be found anew: the mask is a person's, and stays."""

    def found(self, image: str, coverage: float, shares: Mapping[str, float]) -> None:
        """Damage was found: the share of the image that the mask covers, and of each kind before growing, 0..1."""

    def clean(self, image: str, coverage: float) -> None:
        """Nothing was found, or more than may be: the part of the image that looks like damage, 0..1."""

    def failed(self, image: str, error: RowError) -> None:
        """The image could not be looked at."""

    def edited(self, name: str) -> None:
        """The manifest was edited by a person; it is called so from now, and there is a new one in its place."""

    def strays(self, masks: Sequence[str]) -> None:
        """Pictures among the masks, which none of the images has as its own."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What came of all images."""

    num_found: int
    num_clean: int
    num_failed: int
    num_before: int
    """Of those found or clean, how many an earlier call had looked at; where all was to be found anew, how many masks
    are a person's and stay."""
    mean_coverage: float
    """Of the images in which something was found, 0..1; 0 where that is not known."""


def find_damage(
    images: Path | str,
    output: Path,
    config: DetectConfig,
    report: Report,
    *,
    fresh: bool = False,
    relist: bool = False,
    review: bool = False,
    num_workers: int = 1,
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
    stop: Stop,
) -> Totals:
    """Write a mask below `output` for every image of `images` in which something is found, and `manifest.csv` there.

    `images` is a folder, a manifest that needs no column but `image`, or one image; list and images may lie in a
    store. The mask of `a/b.jpg` is `a/b.jpg.png`: white is hole, in the stored layout and with the orientation tag of
    the image. Images without damage stand in `clean.txt`. A call with the settings of the one before looks only at
    images that are new or changed, and leaves masks that a person edited, added or deleted. With `fresh` everything is
    looked for anew, but no mask that a person edited or added is replaced then either; with `relist` nothing is, and
    the two lists are written anew from the masks that are there.
    `review` adds pages for looking at the result.

    Raises ManifestError where `images` cannot be read; StorageError where `output` cannot be used, or holds masks that
    were found with other settings and neither flag was given; what `stop` ends with where that is asked for.
    """
    items = items_of(images)
    check_output_root(output, [images])
    output.mkdir(parents=True, exist_ok=True)
    remove_stale_temporaries(output)
    has_lists = (output / MANIFEST).exists()
    known = {} if fresh else read_state(output, None if relist else config, has_lists=has_lists)
    kept: list[tuple[Item, Seen]] = []
    clean: list[Item] = []
    num_failed = num_before = 0
    report.begins(len(items))
    with ExitStack() as stack:
        state = None if relist else stack.enter_context(closing(StateFile(output, config, anew=not known)))
        items = told_apart(items, output)
        trial = None if relist else stack.enter_context(_trial_fill(config))
        look = _Look(output, config, review, max_image_bytes, known, relist, state, trial, stop)
        for item, seen, is_new in _in_order(items, look, num_workers):
            if stop():
                break
            if isinstance(seen, RowError):
                num_failed += 1
                report.failed(item.image, seen)
                continue
            if not is_new:
                num_before += 1
                if fresh:
                    report.kept(item.image)
                else:
                    report.known()
            if seen.mask:
                kept.append((item, seen))
                if is_new:
                    report.found(item.image, seen.coverage, seen.shares)
            else:
                clean.append(item)
                if is_new:
                    report.clean(item.image, seen.coverage)
    if stop():
        raise stop.error("what was done is kept")
    if edited := write_lists(output, [item for item, _ in kept], clean):
        report.edited(edited)
    if review:
        again = shlex.join(["inpaint-batch", "mask", str(images), "--output", str(output), "--relist", "--review"])
        previews = [Preview(item.image, item.output, seen.coverage, seen.shares) for item, seen in kept]
        write_review(output, previews, again)
    if left_over := strays(items, output):
        report.strays(left_over)
    coverages = [seen.coverage for _, seen in kept if seen.coverage]
    return Totals(len(kept), len(clean), num_failed, num_before, float(np.mean(coverages)) if coverages else 0.0)


def grey_of(source: ImageSource, box: Box) -> FloatArray:
    """Luma (h, w), float32 0..1, of the samples of `box`."""
    rgb = samples_to_rgb(source.read(box), source.header)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


@contextmanager
def _trial_fill(config: DetectConfig) -> Iterator[TrialFill | None]:
    """What judges the marks, with the model in the package; None where all are to be taken."""
    if not config.max_doubt:
        yield None
        return
    with closing(select_engine("onnxruntime", passes=_PASSES)) as engine:
        yield TrialFill(engine, TilingConfig(), config.max_doubt)


@dataclass(frozen=True, slots=True)
class _Look:
    """How to look at an image; may be called from several threads."""

    output: Path
    config: DetectConfig
    review: bool
    max_image_bytes: int
    known: Mapping[str, Seen]
    relist: bool
    state: StateFile | None
    trial: TrialFill | None
    stop: Stop
    left: Event = field(default_factory=Event)
    """Set where nobody waits for the images any longer."""

    def _is_given_up(self) -> bool:
        """Asked now and then while an image is looked at, since a large one takes minutes."""
        return self.stop() or self.left.is_set()

    def __call__(self, item: Item) -> tuple[Seen | RowError, bool]:
        """What is seen in the image, or why nothing can be, and whether that is new; writes or removes its mask."""
        if item.error is not None:
            return item.error, True
        try:
            seen, is_new = self._looked(item)
        except RowError as error:
            return error, True
        if self.state is not None and seen != self.known.get(item.output):
            self.state.add(item.output, seen)
        return seen, is_new

    def _looked(self, item: Item) -> tuple[Seen, bool]:
        old = self.known.get(item.output, UNSEEN)
        if self.relist:
            return self._listed(item, old), False
        version = version_of(item.image)
        path = safe_join(self.output, item.mask)
        mask = digest_of(path)
        is_theirs = bool(mask) and not is_as_found(path, item.mask)
        if not is_theirs and (old is UNSEEN or old.version != version):
            with ExitStack() as stack:
                seen = self._masked(item, self._opened(item, stack), version, mask)
            if seen is not None:
                return seen, True
        return self._listed(item, replace(old, version=version), is_other_image=old.version != version), False

    def _listed(self, item: Item, seen: Seen, *, is_other_image: bool = False) -> Seen:
        """`seen`, and what a person made of the mask since; `is_other_image` where the image has changed, too."""
        mask = safe_join(self.output, item.mask)
        digest = digest_of(mask)
        if not digest:
            return replace(seen, mask="")
        is_edited = digest != seen.mask
        if is_edited:
            seen = replace(seen, mask=digest if _marks_anything(mask, self.max_image_bytes) else "", coverage=0.0)
        if is_edited or is_other_image:
            self._forget_preview(item)
        if self.review and seen.mask and not preview_files(self.output, item.output)[1].exists():
            with ExitStack() as stack:
                source = self._opened(item, stack)
                picture = open_picture(mask, max_bytes=self.max_image_bytes)
                marked = hole_map(picture, picture.orientation, source.header, RowConfig(), dense_px=1 << 62).marked
                assert isinstance(marked, np.ndarray)
                write_preview(source, marked, self.output, item.output)
        return seen

    def _forget_preview(self, item: Item) -> None:
        """Where an earlier call with `review` made one: one without must not leave it to a later one, as if it still
        were what is to be reviewed.
        """
        if self.state is not None or self.review:  # else nothing is noted, and the next call does all of this again
            for path in reversed(preview_files(self.output, item.output)):  # the last written tells that both are there
                path.unlink(missing_ok=True)

    def _opened(self, item: Item, stack: ExitStack) -> ImageSource:
        path = stack.enter_context(on_this_machine(item.image, "image"))
        source = open_image(path, max_bytes=self.max_image_bytes, page=item.page)
        stack.callback(source.close)
        return source

    def _masked(self, item: Item, source: ImageSource, version: str, before: str) -> Seen | None:
        """What is found, its mask written; `before` is the digest of the mask that was there. None where a person has
        changed that meanwhile, since a large image takes minutes.
        """
        mask, header = safe_join(self.output, item.mask), source.header

        def read(box: Box) -> FloatArray:
            if self._is_given_up():
                raise InterruptedError
            return grey_of(source, box)

        judge = None if self.trial is None else partial(self._taken, self.trial, source)
        with reading(source.path):
            found = detect_in(read, header.height_px, header.width_px, self.config, judge)
        if self._is_given_up():
            raise RowError(FailureCode.READ, f"the search for damage in {item.image} was interrupted", retryable=True)
        if digest_of(mask) != before:
            return None
        self._forget_preview(item)
        if not found.hole.any():
            mask.unlink(missing_ok=True)
            return Seen(version, found.coverage, {}, "")
        write_mask(mask, item.mask, found.hole, header.orientation)
        if self.review:
            write_preview(source, found.hole, self.output, item.output)
        shares = {kind: count / found.hole.size for kind, count in found.num_px.items() if count}
        return Seen(version, found.coverage, shares, digest_of(mask))

    def _taken(self, trial: TrialFill, source: ImageSource, tile: Box, marks: BoolArray) -> BoolArray:
        """What of the marks found in a tile is to be filled."""

        def read_rgb(box: Box) -> FloatArray:
            if self._is_given_up():
                raise InterruptedError
            return known_rgb(source.read(box.shift(tile.top, tile.left)), source.header)

        return trial.credible(read_rgb, marks)


def _in_order(items: Sequence[Item], look: _Look, num_workers: int) -> Iterator[tuple[Item, Seen | RowError, bool]]:
    """What became of each item, in the order of the list, some of them ahead in other threads."""
    with ThreadPoolExecutor(num_workers, thread_name_prefix="mask") as pool:
        try:
            yield from in_turn(pool, lambda item: (item, *look(item)), items, 2 * num_workers + 1)
        finally:
            look.left.set()


def _marks_anything(mask: Path, max_image_bytes: int) -> bool:
    """Whether a mask is not all black, as one is whose marks were all painted over. Raises RowError (read).

    Dark paint on a transparent layer counts as well: a run then says how such a mask is to be read.
    """
    threshold = RowConfig().mask_threshold
    picture = open_picture(mask, max_bytes=max_image_bytes)
    if any(int(grey.max()) > threshold for _, grey in picture.pieces()):
        return True
    reach = [(int(alpha.min()), int(alpha.max())) for _, alpha in (picture.alpha() if picture.alpha else ())]
    return any(low <= threshold for low, _ in reach) and any(high > threshold for _, high in reach)
