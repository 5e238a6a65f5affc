"""One thread: these networks are so small that handing work to a second one costs more than it saves."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
