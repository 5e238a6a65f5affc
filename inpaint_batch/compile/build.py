"""All steps of a CPU build: load, export, quantise, judge, write down what was measured."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

import inpaint_batch
from inpaint_batch.compile.export import export_onnx
from inpaint_batch.compile.gate import judge, measure, table
from inpaint_batch.compile.quantise import quantise
from inpaint_batch.compile.tiles import RealTile, collect_tiles
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.runtime.onnx_engine import OnnxEngine


def build_onnx(
    weights: Path, output: Path, *, name: str, calibrate: Path | None, max_tiles: int, accept_loss: bool
) -> str:
    """Write NAME.fp32.onnx, with `calibrate` also NAME.int8.onnx, and NAME.gate.json; return a summary for a person.

    Raises EngineError where the weights cannot be read, the export disagrees with torch, or the gate refuses INT8 and
    `accept_loss` is false; the INT8 file is removed then.
    """
    output.mkdir(parents=True, exist_ok=True)
    fp32, int8 = output / f"{name}.fp32.onnx", output / f"{name}.int8.onnx"
    record: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "inpaint-batch": inpaint_batch.__version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "weights_sha256": sha256(weights),
        "fp32_parity": export_onnx(load_generator(weights), fp32),
        "fp32_sha256": sha256(fp32),
    }
    report = f"{fp32}: {fp32.stat().st_size / 1e6:.1f} MB, largest difference to torch {record['fp32_parity']:.1e}"
    if calibrate is not None:
        reference = OnnxEngine(fp32, precision="fp32")
        tiles = collect_tiles(calibrate, reference, max_tiles)
        learned, judged = split(tiles)
        record["quantised_convolutions"] = quantise(fp32, int8, [tile.feed() for tile in learned])
        rows = measure(reference, OnnxEngine(int8, precision="int8"), judged)
        record |= {
            "calibration_sha256": sha256(calibrate),
            "calibration_tiles": len(learned),
            "int8_sha256": sha256(int8),
            "gate": [row.to_dict() for row in rows],
            "loss_accepted": accept_loss,
        }
        if not accept_loss:
            try:
                judge(rows)
            except BaseException:
                int8.unlink()
                raise
        report += f"\n{int8}: {int8.stat().st_size / 1e6:.1f} MB\n{table(rows)}"
    (output / f"{name}.gate.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report


def split(tiles: list[RealTile]) -> tuple[list[RealTile], list[RealTile]]:
    """Two thirds of the rows to calibrate with, every third row to judge by; no row is in both, unless there is
    only one."""
    learned = [tile for tile in tiles if tile.row % 3 != 2]
    judged = [tile for tile in tiles if tile.row % 3 == 2]
    return learned, judged or learned


def sha256(path: Path) -> str:
    """Of the file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
