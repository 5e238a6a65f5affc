"""What TensorRT finds out and would otherwise find out again, kept in files beside the plans.

TensorRT times kernels while it builds: its *timing cache* makes the next build on the same GPU a matter of seconds.
TensorRT for RTX times nothing; it compiles kernels when a plan is first run, and its *runtime cache* keeps those. Both
are hints: a file that is missing, damaged or of another machine costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inpaint_batch.runtime.plans import PlanKey, StoredPlan, locked, write_file
from inpaint_batch.runtime.tensorrt_api import RTX

log = logging.getLogger(__name__)


def timing_file(folder: Path, key: PlanKey) -> Path:
    """Where builds for the GPU, driver and TensorRT of `key` keep their timings: all models share one file."""
    return folder / f"timing-{_short(key.tensorrt, key.gpu, key.driver)}.cache"


def runtime_file(plan: StoredPlan, key: PlanKey) -> Path:
    """Where the kernels that run `plan` on the GPU of `key` are kept; a portable plan has one file for each GPU."""
    return plan.path.with_name(f"{plan.path.stem}-{_short(key.gpu, key.driver)}.kernels")


@contextlib.contextmanager
def timing_cache(trt: Any, config: Any, folder: Path, key: PlanKey) -> Iterator[None]:
    """Let a build inside this context use the timings of earlier ones, and keep its own.

    The file is read and written under a lock, which is not held while the build goes on: what another build has added
    in the meantime is kept. Nothing is done with TensorRT for RTX, which times nothing. Raises StorageError where the
    folder cannot be written.
    """
    if trt.__name__ == RTX:
        yield
        return
    path = timing_file(folder, key)
    with locked(path.with_suffix(".lock")):
        known = _read(path)
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        log.warning("%s does not fit this GPU and TensorRT; kernels are timed anew", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    yield
    learned = config.get_timing_cache() or cache
    with locked(path.with_suffix(".lock")):
        added = _read(path)
        theirs = config.create_timing_cache(added) if added != known else None
        if theirs is not None:
            learned.combine(theirs, False)
        write_file(path, bytes(learned.serialize()))


class KernelCache:
    """The runtime cache of one plan on one GPU; does nothing where TensorRT has no such thing."""

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        """`engine`: the opened plan. `path`: see `runtime_file`."""
        self._path = path
        self._saved = b""
        self._cache: Any = None
        self._config: Any = None
        if not hasattr(engine, "create_runtime_config"):
            return
        config = engine.create_runtime_config()
        if not hasattr(config, "create_runtime_cache"):
            return
        # Not LAZY, the default: that runs a slower kernel until a better one is compiled, so bytes would change midway.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._config, self._cache = config, config.create_runtime_cache()
        self._saved = _read(path)
        if self._saved and not self._cache.deserialize(self._saved):
            log.warning("%s does not fit this machine; kernels are compiled anew", path)
        config.set_runtime_cache(self._cache)

    def context(self, engine: Any) -> Any:
        """An execution context of `engine` that uses this cache."""
        return engine.create_execution_context(self._config) if self._config else engine.create_execution_context()

    def save(self) -> None:
        """Write what was compiled since the last time. A folder that cannot be written is logged, not an error."""
        if self._cache is None:
            return
        serialised = self._cache.serialize()  # None where TensorRT cannot tell which GPU it is for
        content = bytes(serialised) if serialised is not None else b""
        if not content or content == self._saved:
            return
        try:
            write_file(self._path, content)
            self._saved = content
        except OSError as error:
            log.warning("cannot keep compiled kernels in %s (%s)", self._path, error.strerror)


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _short(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
