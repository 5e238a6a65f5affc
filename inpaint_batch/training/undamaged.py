"""What a photograph of a manifest shows beside its mask."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from inpaint_batch.config import DEFAULT_MAX_IMAGE_BYTES, RowConfig
from inpaint_batch.execution.prepare import mask_of
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.holes.distance import grow
from inpaint_batch.holes.orientation import turn
from inpaint_batch.holes.prepare import hole_map
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.manifest.schema import row_config
from inpaint_batch.types import BoolArray, FloatArray, Row

DAMAGE_RIM_PX = 2
"""Pixels around a hole of a manifest that are not learned from either: damage rarely ends where its mask does."""


def undamaged(rows: Sequence[Row]) -> FloatArray:
    """(height, width, 3) float32 in [0, 1] as a viewer shows it, NaN where a mask and a little around it.

    `rows`: one or more, all of one page of one image. It and the masks are read as a run reads them, so that what a run
    would fill is never learned. Raises RowError where one of them cannot be used.
    """
    page = row_config(rows[0], RowConfig()).page
    source = open_image(Path(rows[0].image), max_bytes=DEFAULT_MAX_IMAGE_BYTES, page=page or None)
    with closing(source):
        rgb = samples_to_rgb(source.read(source.header.box), source.header)
        for row in rows:
            rgb = np.where(_damage(row, source)[..., None], np.float32(np.nan), rgb)
    return turn(rgb, source.header.orientation)


def _damage(row: Row, source: ImageSource) -> BoolArray:
    """(height, width): what the mask of the row covers of `source`, in its stored layout, and a little more."""
    config = row_config(row, RowConfig())
    files = RowFiles(RowTask(row, config, key="", output=row.output, destination=""))
    mask = mask_of(files, source, DEFAULT_MAX_IMAGE_BYTES)
    box = source.header.box
    holes = hole_map(mask.grey, mask.orientation, source.header, config, dense_px=box.area_px)
    return np.asarray(grow(holes.hole, DAMAGE_RIM_PX)[box.slices])
