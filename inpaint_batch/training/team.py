"""Several processes that train one network: each learns from its share of a batch, gradients are summed.

The sum is taken once a step over one flat buffer, after backward. For a network of a few million weights this costs
next to nothing, and it asks nothing of the network: shares may differ in size or be empty, and pieces of a batch may
be added up before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from inpaint_batch.errors import ConfigError


class Team:
    """This process among those that train together; alone, every method is a matter of course."""

    def __init__(self, device: torch.device) -> None:
        """Join the group that torchrun (or whoever called `init_process_group`) has made; stay alone without one."""
        self.owns_group = False
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            except (RuntimeError, ValueError) as error:
                raise ConfigError(f"WORLD_SIZE asks for several processes, but they cannot meet: {error}") from error
            self.owns_group = True
        self.device = device
        self.together = dist.is_initialized() and dist.get_world_size() > 1
        self.rank = dist.get_rank() if self.together else 0
        self.size = dist.get_world_size() if self.together else 1

    @property
    def leads(self) -> bool:
        """Whether this process validates, logs and writes."""
        return self.rank == 0

    def share(self, num: int) -> range:
        """The samples of a batch of `num` that this process learns from; all shares together are the batch."""
        return range(self.rank, num, self.size)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Add up the gradients of all processes, in place; one without a gradient counts as zero."""
        if not self.together:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, values: Tensor) -> None:
        """Add up the values of all processes, in place."""
        if self.together:
            dist.all_reduce(values)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if not self.together:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())

    def take_from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite the tensors with those of the first process."""
        if self.together:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.together:
            dist.barrier()

    def leave(self) -> None:
        """End the group if this object made it."""
        if self.owns_group and dist.is_initialized():
            dist.destroy_process_group()
