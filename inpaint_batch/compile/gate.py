"""The gate: a compiled engine is accepted only if it fills held-out tiles as well as the FP32 model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inpaint_batch.compile.tiles import RealTile
from inpaint_batch.errors import EngineError
from inpaint_batch.runtime.engine import Engine, stack_tiles
from inpaint_batch.types import FloatArray

MAX_LOSS_DB = 0.2
"""More than this lost against the truth, in any bucket, and the engine is refused."""
MIN_AGREEMENT_DB = 35.0
"""Where no truth is known, the candidate must at least agree with the reference this well."""

ROUNDING = 1 / 12 / 255**2
"""Mean squared error of rounding to 8 bits. Every result that is judged by a truth carries it: what FP32 fills better
than a file can hold is nothing that another engine could lose."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """What was measured on the tiles of one side."""

    side_px: int
    num_tiles: int
    agreement_db: float
    """Mean PSNR inside the hole between candidate and reference."""
    reference_db: float | None
    """Mean PSNR inside the hole of the reference, at 8 bits, against the truth; None where no truth is known."""
    candidate_db: float | None
    """The same of the candidate."""
    loss_error_db: float | None = None
    """Standard error of the loss: with few tiles, or tiles of a few missing pixels, chance may be more than the loss
    itself. None with fewer than two tiles of known truth."""

    @property
    def loss_db(self) -> float | None:
        """What the candidate loses against the truth; negative where it happens to be better."""
        if self.reference_db is None or self.candidate_db is None:
            return None
        return self.reference_db - self.candidate_db

    @property
    def accepted(self) -> bool:
        """Whether this bucket passes."""
        loss = self.loss_db
        return self.agreement_db >= MIN_AGREEMENT_DB if loss is None else loss <= MAX_LOSS_DB

    def to_dict(self) -> dict[str, Any]:
        """For the model card: measured values, rounded to a thousandth of a dB."""
        values = {**asdict(self), "loss_db": self.loss_db}
        return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items() if v is not None}


def measure(reference: Engine, candidate: Engine, tiles: Sequence[RealTile]) -> list[GateRow]:
    """Run both engines on every tile, alone, and compare inside the holes; one row for each side, ascending."""
    rows = []
    for side in sorted({tile.input.image.shape[-1] for tile in tiles if tile.judged.any()}):
        agreement, expected, found = [], [], []
        for tile in (t for t in tiles if t.input.image.shape[-1] == side and t.judged.any()):
            batch = stack_tiles([tile.input])
            first, second = reference.fill(batch)[0], candidate.fill(batch)[0]
            agreement.append(hole_psnr(first, second, tile.judged))
            if tile.truth is not None:
                expected.append(hole_psnr(first, tile.truth, tile.judged, ROUNDING))
                found.append(hole_psnr(second, tile.truth, tile.judged, ROUNDING))
        of_reference, of_candidate = (float(np.mean(values)) if values else None for values in (expected, found))
        losses = np.subtract(expected, found)
        error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else None
        rows.append(GateRow(side, len(agreement), float(np.mean(agreement)), of_reference, of_candidate, error))
    return rows


def hole_psnr(first: FloatArray, second: FloatArray, hole: FloatArray, floor: float = 1e-10) -> float:
    """PSNR in dB of (3, s, s) against (3, s, s) where `hole` (1, s, s) is 1.

    `floor` is added to the mean squared error; by default two equal fills have 100 dB.
    """
    inside = np.broadcast_to(hole > 0.5, first.shape)
    return float(-10 * np.log10(float(np.mean((first[inside] - second[inside]) ** 2)) + floor))


def table(rows: Sequence[GateRow]) -> str:
    """The figures as Markdown."""
    lines = ["| side px | tiles | agreement dB | reference dB | candidate dB | lost dB |", "|---|---|---|---|---|---|"]
    for row in rows:
        optional = [f"{v:.3f}" if v is not None else "-" for v in (row.reference_db, row.candidate_db, row.loss_db)]
        if row.loss_error_db is not None:
            optional[-1] += f" ± {row.loss_error_db:.3f}"
        lines.append(f"| {row.side_px} | {row.num_tiles} | {row.agreement_db:.2f} | {' | '.join(optional)} |")
    return "\n".join(lines)


def judge(rows: Sequence[GateRow]) -> None:
    """Raise EngineError, with the table, where a bucket does not pass."""
    if not all(row.accepted for row in rows):
        raise EngineError(
            f"the quality gate refuses this engine (limit {MAX_LOSS_DB} dB lost; without truth at least "
            f"{MIN_AGREEMENT_DB} dB agreement):\n{table(rows)}"
        )
