"""What the processor can do that decides how 8-bit graphs are run."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@cache
def adds_bytes_exactly() -> bool:
    """Whether ONNX Runtime's fast products of 8-bit numbers are exact here.

    On x86-64 they are where the processor has VNNI. Without it pairs of products are added up in 16 bits, which may
    overflow. Elsewhere, and where Linux does not say what the processor has, they are taken to be exact.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), None)
    return flags is None or "avx512_vnni" in flags or "avx_vnni" in flags
