"""Where a run computes, and in what precision."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
from torch import Tensor, nn

from inpaint_batch.errors import ConfigError
from inpaint_batch.training.config import Precision
from inpaint_batch.types import FloatArray

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
Network = TypeVar("Network", bound=nn.Module)


class Device:
    """A processor or a GPU, with the precision of forward passes."""

    def __init__(self, name: str = "auto", precision: Precision = "fp32") -> None:
        """`name`: `auto` (a GPU where there is one), `cpu`, `cuda`, or `cuda:N`.

        Under torchrun `auto` and `cuda` take the GPU of the process. Raises ConfigError for a device that this machine
        does not have.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N") from error
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"cannot train on {name!r}; choose auto, cpu, cuda or cuda:N")
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
                raise ConfigError(f"this machine has no device {device}; it has {torch.cuda.device_count()} CUDA GPUs")
            torch.cuda.set_device(device)
        self.torch = device
        self.precision = precision

    def place(self, network: Network) -> Network:
        """The network, moved here, its weights with channels last."""
        return network.to(self.torch).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def tensor(self, array: FloatArray) -> Tensor:
        """The array as a tensor here."""
        return torch.from_numpy(array).to(self.torch)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.torch.type, dtype or torch.bfloat16, enabled=dtype is not None)
