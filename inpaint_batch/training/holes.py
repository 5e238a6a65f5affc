"""Holes to learn from: a kind is drawn by the shares of the settings, then a hole of that kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from inpaint_batch.holes.shapes import polygon_hole, silhouette_hole, text_hole
from inpaint_batch.holes.synthesise import DamageLibrary, box_hole, stroke_hole
from inpaint_batch.models.masked_autoencoder import CELL_PX
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.types import BoolArray

STROKES, BOXES, DAMAGE, MIXTURES, POLYGONS, TEXT, SILHOUETTES = range(7)
"""In the order of `hole_shares`."""
Area = tuple[float, float]


def hidden_cells(rng: np.random.Generator, side: int, area: Area) -> BoolArray:
    """(side, side): a share of its squares of CELL_PX is true, rounded from what `area` says; neither none nor all."""
    num_across = -(-side // CELL_PX)
    cells = np.zeros(num_across**2, bool)
    cells[: min(max(1, round(rng.uniform(*area) * cells.size)), cells.size - 1)] = True
    rng.shuffle(cells)
    whole = np.kron(cells.reshape(num_across, num_across), np.ones((CELL_PX, CELL_PX), bool))
    return np.asarray(whole[:side, :side])


class HoleMaker:
    """Draws a hole of a random kind, by the shares of the settings."""

    def __init__(self, config: TrainConfig, damage: Path | None) -> None:
        self.config = config
        self.damage = DamageLibrary(damage) if damage else None
        self.shares = np.zeros(7)
        self.shares[: len(config.hole_shares)] = config.hole_shares
        if self.damage is None:  # without elements their share goes to strokes
            self.shares[STROKES] += self.shares[DAMAGE]
            self.shares[DAMAGE] = 0.0
        mixed = [STROKES, BOXES, *([DAMAGE] if self.damage else [])]
        self.mixed = mixed + [kind for kind in (POLYGONS, TEXT, SILHOUETTES) if self.shares[kind] > 0]

    def draw(self, rng: np.random.Generator, side: int, area: Area | None = None) -> BoolArray:
        """(side, side), true where missing. `area` overrules the shares of the crop that the settings name."""
        if self.config.pretrain:
            return hidden_cells(rng, side, self.config.pretrain_area)
        kind = int(rng.choice(len(self.shares), p=self.shares / self.shares.sum()))
        if kind != MIXTURES:
            return self._one(rng, side, kind, area)
        if area is not None:  # it is of the two together
            area = (area[0] / 2, area[1] / 2)
        first, second = rng.choice(self.mixed, 2)
        mixed = self._one(rng, side, int(first), area) | self._one(rng, side, int(second), area)
        return mixed if not mixed.all() else self._one(rng, side, STROKES, area)

    def _one(self, rng: np.random.Generator, side: int, kind: int, area: Area | None) -> BoolArray:
        config = self.config
        if kind == STROKES:
            return stroke_hole(rng, side, side, area or config.stroke_area)
        if kind == DAMAGE and self.damage is not None:
            return self.damage.hole(rng, side, side, area or config.damage_area)
        if kind in (BOXES, DAMAGE):
            return box_hole(rng, side, side, area or config.box_area)
        shape = {POLYGONS: polygon_hole, TEXT: text_hole, SILHOUETTES: silhouette_hole}[kind]
        return shape(rng, side, side, area or config.shape_area)
