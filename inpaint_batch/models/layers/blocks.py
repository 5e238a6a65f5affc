"""Convolution blocks without normalisation: nothing to fold, nothing that depends on the batch, quantises well."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), then relu. The second convolution starts at zero, so a fresh block is the identity.

    That start stands in for normalisation (Zhang et al., "Fixup Initialization", ICLR 2019): depth does not blow up the
    signal at step 0. The closing relu lets the sum be stored unsigned, as 8-bit engines like it.
    """

    def __init__(self, channels: int, hidden: int | None = None, dilation: int = 1) -> None:
        super().__init__()
        hidden = hidden or channels
        self.conv_in = nn.Conv2d(channels, hidden, 3, padding=dilation, dilation=dilation)
        self.conv_out = nn.Conv2d(hidden, channels, 3, padding=1)
        self.relu = nn.ReLU()
        nn.init.kaiming_normal_(self.conv_in.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv_in.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> same shape."""
        out: Tensor = self.relu(x + self.conv_out(self.relu(self.conv_in(x))))
        return out


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (up to `stride`), initialised for a relu after it."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
