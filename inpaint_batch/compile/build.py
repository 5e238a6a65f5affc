"""All steps of a CPU build: load, export, quantise, judge, write down what was measured."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

import inpaint_batch
from inpaint_batch.compile.export import PARITY_TOLERANCE, export_onnx, parity
from inpaint_batch.compile.gate import judge, measure, table
from inpaint_batch.compile.quantise import quantise
from inpaint_batch.compile.tiles import RealTile, collect_tiles
from inpaint_batch.errors import EngineError, InpaintBatchError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.runtime.adapter import find_adapter
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.storage.atomic import atomic_write, storage_error

log = logging.getLogger(__name__)


def build_onnx(
    weights: Path, output: Path, *, name: str, calibrate: Path | None, max_tiles: int, accept_loss: bool
) -> str:
    """Write NAME.fp32.onnx, with `calibrate` also NAME.int8.onnx, and NAME.gate.json; return a summary for a person.

    Raises EngineError where the weights cannot be read, the export disagrees with torch, or the gate refuses INT8 and
    `accept_loss` is false; what an earlier build of the same weights left stays then. Raises StorageError where nothing
    can be written.
    """
    try:
        return _build_onnx(weights, output, name, calibrate, max_tiles, accept_loss)
    except Exception as error:  # exporter and quantiser write by themselves, and say it in classes of their own
        if isinstance(error, InpaintBatchError) or (known := storage_error(error, output)) is None:
            raise
        raise known from error


def _build_onnx(
    weights: Path, output: Path, name: str, calibrate: Path | None, max_tiles: int, accept_loss: bool
) -> str:
    output.mkdir(parents=True, exist_ok=True)
    log.info("exporting %s", weights)
    fp32, int8, card = (output / f"{name}.{ending}" for ending in ("fp32.onnx", "int8.onnx", "gate.json"))
    before = sha256(fp32) if fp32.is_file() else ""
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
    if record["fp32_sha256"] != before:
        for stale in (each for each in (int8, card) if each.exists()):
            log.info("removing %s, which was made of other weights", stale)
            stale.unlink()
    report = f"{fp32}: {fp32.stat().st_size / 1e6:.1f} MB, largest difference to torch {record['fp32_parity']:.1e}"
    if calibrate is not None:
        reference = OnnxEngine(fp32, precision="fp32")
        log.info("cutting up to %d tiles from the rows of %s", max_tiles, calibrate)
        learned, judged = split(collect_tiles(calibrate, reference, max_tiles))
        log.info("calibrating INT8 on %d tiles, judging it by %d", len(learned), len(judged))
        candidate = int8.with_name(f".{int8.name}.{os.getpid()}.tmp")  # one that passed before stays until this does
        try:
            record["quantised_convolutions"] = quantise(fp32, candidate, [tile.feed() for tile in learned])
            rows = measure(reference, OnnxEngine(candidate, precision="int8"), judged)
            if not accept_loss:
                judge(rows)
            candidate.replace(int8)
        finally:
            candidate.unlink(missing_ok=True)
        record |= {
            "calibration_sha256": sha256(calibrate),
            "calibration_tiles": len(learned),
            "int8_sha256": sha256(int8),
            "gate": [row.to_dict() for row in rows],
            "loss_accepted": accept_loss,
        }
        report += f"\n{int8}: {int8.stat().st_size / 1e6:.1f} MB\n{table(rows)}"
    if calibrate is not None or not int8.exists():  # else what stands there is of the INT8 file, and still so
        with atomic_write(card) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return report


def build_plan_of(
    model: Path,
    output: Path | None,
    *,
    name: str,
    precision: str,
    through_torch: bool = False,
    calibrate: Path | None,
    max_tiles: int,
    accept_loss: bool,
) -> str:
    """Put the TensorRT plan of `model` into the cache; return a summary for a person.

    `model`: an FP32 ONNX file of this package, or weights, which are exported to `output` first: a plan belongs to an
    FP32 file. `through_torch`: torch-tensorrt builds it, from the weights. `calibrate` judges every precision and
    calibrates INT8. Raises what `build_onnx` and `build_tensorrt` raise.
    """
    from inpaint_batch.compile.tensorrt_build import build_tensorrt
    from inpaint_batch.compile.torch_tensorrt_build import import_torch_tensorrt
    from inpaint_batch.runtime.tensorrt_api import import_tensorrt

    import_tensorrt()  # before minutes are spent on tiles
    if through_torch:
        import_torch_tensorrt()
    report = ""
    if model.suffix == ".onnx":
        fp32 = model
        if not fp32.is_file():
            raise EngineError(f"there is no model {fp32}: check the path")
        if find_adapter(fp32) is not None:
            raise EngineError(
                f"the .toml beside {fp32} says how it is asked, and such a network runs on the CPU only: give it to "
                "run --model as it is"
            )
    else:
        assert output is not None
        fp32 = output / f"{name}.fp32.onnx"
        if not _is_export_of(fp32, model):
            report = build_onnx(model, output, name=name, calibrate=None, max_tiles=max_tiles, accept_loss=False) + "\n"
    reference = OnnxEngine(fp32, precision="fp32")  # whatever is to be built: it says if the file is not one of ours
    tiles = collect_tiles(calibrate, reference, max_tiles) if calibrate else []
    learned, judged = split(tiles)
    card = {"calibration_sha256": sha256(calibrate)} if calibrate else {}
    _, built = build_tensorrt(
        fp32,
        sha256(fp32),
        precision=precision,
        learned=learned,
        judged=judged,
        accept_loss=accept_loss,
        card=card,
        generator=load_generator(model) if through_torch else None,
    )
    return report + built


def _is_export_of(fp32: Path, weights: Path) -> bool:
    """Whether `fp32` is there and computes what the weights do: another export would have other bytes, and a plan of
    it would not be found for this one."""
    try:
        return fp32.is_file() and parity(load_generator(weights), fp32) <= PARITY_TOLERANCE
    except Exception:  # not a graph of ours: onnxruntime raises a dozen classes of its own
        return False


def split(tiles: list[RealTile]) -> tuple[list[RealTile], list[RealTile]]:
    """Two thirds of the rows that gave tiles to calibrate with, every third one, or of two the last, to judge by; no
    row is in both, unless there is only one."""
    rows = sorted({tile.row for tile in tiles})
    held_out = rows[2::3] or rows[1:]
    learned = [tile for tile in tiles if tile.row not in held_out]
    judged = [tile for tile in tiles if tile.row in held_out]
    return learned, judged or learned


def sha256(path: Path) -> str:
    """Of the file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
