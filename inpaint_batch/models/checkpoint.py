"""Weights on disk: safetensors, with the sizes of the network in the file. Nothing in it can execute code."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from inpaint_batch.errors import EngineError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.masked_autoencoder import without_guess
from inpaint_batch.models.spec import DcfSpec
from inpaint_batch.storage.atomic import atomic_write

FORMAT = "inpaint-batch/1"
AVERAGE = "average/"
"""Prefix of the averaged weights in the checkpoint of a training run."""


def save_generator(path: Path, generator: DcfGenerator, weights: dict[str, Tensor]) -> None:
    """Write weights and sizes alone: what is compiled and shipped."""
    metadata = {"format": FORMAT, "kind": "generator", "spec": json.dumps(generator.spec.to_dict())}
    tensors = {name: value.detach().contiguous() for name, value in without_guess(weights).items()}
    write_tensors(path, tensors, metadata)


def load_generator(path: Path) -> DcfGenerator:
    """The generator in evaluation mode, from a shipped file or (its moving average) from a training checkpoint."""
    metadata, tensors = read_tensors(path)
    if metadata.get("kind") == "training":
        spec = DcfSpec.from_dict(json.loads(metadata["progress"])["config"]["model"])
        weights = without_guess({n.removeprefix(AVERAGE): v for n, v in tensors.items() if n.startswith(AVERAGE)})
    else:
        spec, weights = DcfSpec.from_dict(json.loads(metadata["spec"])), tensors
    generator = DcfGenerator(spec)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise EngineError(f"the weights in {path} do not fit their sizes: {error}") from error
    return generator.eval()


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file of ours; EngineError where it is damaged or somebody else's."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError) as error:
        kind = "" if isinstance(error, FileNotFoundError) else "it is damaged, or no safetensors file: "
        raise EngineError(
            f"cannot read weights from {path} ({kind}{error}); name a file such as RUN/model.safetensors"
        ) from error
    if metadata.get("format") != FORMAT:
        raise EngineError(f"{path} was not written by this program (format {metadata.get('format')!r})")
    return metadata, tensors


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write it whole or not at all: a kill leaves the file that was there before. Raises what `atomic_write` raises."""
    with atomic_write(path) as temporary:  # the library's own writer lets nobody but the owner read
        temporary.write_bytes(save(tensors, metadata=metadata))
