"""What a person watches: the log, pictures of what the network does, a plot, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.report.durations import clock
from inpaint_batch.sampling import evenly
from inpaint_batch.training.plot import draw_plot
from inpaint_batch.training.validation import ValidationSet, fill

LOG = "log.jsonl"
PLOT = "plot.png"
SAMPLES = "samples"
NUM_SAMPLES = 8
"""Columns of a grid."""
HOLE_GREY = 0.5
QUIET_S = 30.0
"""Steps that take long are told in between."""

log = logging.getLogger(__name__)


class Monitor:
    """Writes into the folder of a run. A full disk costs lines and pictures, never the run."""

    def __init__(self, run: Path, first_step: int, steps: int, silent: bool = False) -> None:
        """`silent`: write nothing at all, as all processes of a team but the first."""
        self.run = run
        self.silent = silent
        self.first_step, self.steps = first_step, steps
        self.started = self._last_line = time.monotonic()
        self.num_images = 0
        self.board = None if silent else _tensorboard(run)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.board is not None:
            try:
                self.board.close()
            except OSError as failure:
                _tell_of_board(failure)

    def pace(self, step: int) -> dict[str, float]:
        """Images a second and seconds left, by the steps since this process began."""
        elapsed = time.monotonic() - self.started
        left = elapsed / max(1, step - self.first_step) * (self.steps - step)
        return {"images_per_s": self.num_images / elapsed, "left_s": round(left)}

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was told for so long that somebody may wonder."""
        return time.monotonic() - self._last_line > QUIET_S

    def line(self, step: int, **values: float) -> None:
        """One line to the log on screen, to `log.jsonl` (null for what is not finite), and to TensorBoard."""
        if self.silent:
            return
        self._last_line = time.monotonic()
        rounded = {"step": step} | {k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in values.items()}
        log.info(" ".join(f"{k}={clock(v) if k == 'left_s' else v}" for k, v in rounded.items()))
        try:
            with (self.run / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: v if math.isfinite(v) else None for k, v in rounded.items()}) + "\n")
        except OSError as error:
            log.warning("the log could not be written: %s", error)
        if self.board is not None:
            try:
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)
            except OSError as error:  # its thread has ended, and it takes nothing more
                self.board = None
                _tell_of_board(error)

    def samples(self, step: int, generator: DcfGenerator, validation: ValidationSet) -> None:
        """`samples/step-NNNNNN.png`: rows input, output, truth; a column for each of a few crops, evenly chosen."""
        shown = evenly(range(len(validation.images)), NUM_SAMPLES)
        image, hole = validation.images[shown], validation.holes[shown]
        rows = [image * (1 - hole) + HOLE_GREY * hole, fill(generator, image, hole), image]
        _write_png(self.run / SAMPLES / f"step-{step:06}.png", np.concatenate([_strip(row) for row in rows]))

    def plot(self) -> None:
        """`plot.png`: losses and the watched metric over steps, from the whole log of the run."""
        if self.silent:
            return
        try:
            lines = (self.run / LOG).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            log.warning("no plot: %s", error)
            return
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue  # a line torn by a kill
        _write_png(self.run / PLOT, draw_plot(records))


def _strip(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (H, B·W, 3) uint8, RGB."""
    samples = (images.clamp(0, 1) * 255).round().byte().numpy()
    return np.ascontiguousarray(np.concatenate(list(samples.transpose(0, 2, 3, 1)), axis=1))


def _write_png(path: Path, picture: np.ndarray) -> None:
    done, encoded = cv2.imencode(".png", picture[..., ::-1])
    assert done
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        log.warning("%s could not be written: %s", path, error)


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(run / "tensorboard"))
    except OSError as error:
        _tell_of_board(error)
        return None


def _tell_of_board(error: OSError) -> None:
    log.warning("nothing more goes to TensorBoard in this run, whose files could not be written: %s", error)
