"""What a photograph of a manifest shows beside its mask."""

from __future__ import annotations

from contextlib import closing

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
from inpaint_batch.manifest.schema import row_config
from inpaint_batch.types import FloatArray, Row

DAMAGE_RIM_PX = 2
"""Pixels around a hole of a manifest that are not learned from either: damage rarely ends where its mask does."""


def undamaged(row: Row) -> FloatArray:
    """(height, width, 3) float32 in [0, 1] as a viewer shows it, NaN where the mask and a little around it.

    Image and mask are read as a run reads them, so that what a run would fill is never learned. Raises RowError where
    either cannot be used.
    """
    config = row_config(row, RowConfig())
    files = RowFiles(RowTask(row, config, key="", output=row.output, destination=""))
    source = open_image(files.image, max_bytes=DEFAULT_MAX_IMAGE_BYTES, page=config.page or None)
    with closing(source):
        mask = mask_of(files, source, DEFAULT_MAX_IMAGE_BYTES)
        box = source.header.box
        holes = hole_map(mask.grey, mask.orientation, source.header, config, dense_px=box.area_px)
        hole = grow(holes.hole, DAMAGE_RIM_PX)[box.slices]
        rgb = samples_to_rgb(source.read(box), source.header)
    return turn(np.where(hole[..., None], np.float32(np.nan), rgb), source.header.orientation)
