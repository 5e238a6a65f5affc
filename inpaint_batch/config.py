"""Settings of a run: frozen dataclasses with a docstring under every field.

Precedence: defaults < TOML file (`--config`) < environment (`INPAINT_BATCH_*`) < flags < per-row manifest columns (for
the fields of `RowConfig` only). Training keeps its own settings in `inpaint_batch/training/config.py`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from inpaint_batch.errors import ConfigError
from inpaint_batch.words import either

MaskPolarity = Literal["white", "black"]
JpegMode = Literal["patch", "lossless"]
EmptyMask = Literal["fail", "copy"]
OnConflict = Literal["error", "skip", "overwrite", "suffix"]
LogFormat = Literal["text", "json"]
ExecutorName = Literal["auto", "local", "process", "ray"]
PrecisionName = Literal["auto", "fp32", "fp16", "int8"]

MASK_IN_IMAGE = re.compile(r"alpha|#[0-9a-fA-F]{6}")
"""What stands in the column `mask` where the hole is drawn in the image itself."""
MASK_ENTRY = re.compile(r"(.+\.(?:geo)?json)#(.+)", re.IGNORECASE | re.DOTALL)
"""What stands there where the mask is one of many in a COCO file: the file, and the image that is meant."""
DEFAULT_MAX_IMAGE_BYTES = 1 << 30
PROCESS_BYTES = 300 << 20
"""Memory of a process with the embedded engine, beside its rows."""
LEAST_MEMORY_BYTES = 384 << 20
"""The smallest `max_memory`."""
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
BUCKETS_PX = (64, 128, 256)
"""Sides of the square tiles that the engines run. One graph serves all of them."""


class SettingError(ConfigError):
    """A setting that is out of range; `name` is the one that a settings file knows."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingError(name, f"must be {either(choices)}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowConfig:
    """What may differ from row to row: a manifest column of the same name overrides the run's value."""

    mask_polarity: MaskPolarity = "white"
    """Which colour of the mask marks the hole."""
    mask_threshold: int = 127
    """0..254, of 255: mask values above this are white."""
    dilate_px: int = 0
    """Grow the hole by this many pixels before filling (manifest column and flag: `dilate`)."""
    feather_px: int = 0
    """Width in pixels of a further rim around the hole in which fill and source are mixed (column and flag: `feather`).
    The rim counts as part of the hole; samples outside it stay untouched."""
    jpeg: JpegMode = "patch"
    """`patch`: write a JPEG again with new coefficients under the hole only. `lossless`: write a PNG of the decoded
    samples instead (the output name then ends in `.png`)."""
    mask_from: str = "file"
    """Where the hole is drawn: `file` (the mask), or in the image itself: `alpha` (what is transparent) or a colour
    such as `#ff00ff`. A manifest says it in the column `mask`."""
    mask_image: str = field(default="", metadata={"verbatim": True})
    """Which image of a COCO file the mask is for, by id or file name; empty: the one with this image's own name. A
    manifest says it in the column `mask`, behind a `#`."""
    grain: bool = False
    """Give the fill the noise that its surroundings have and it lacks."""
    xmp: bool = False
    """Say in the XMP of the result that a trained model has filled holes in it."""
    empty_mask: EmptyMask = "fail"
    """What becomes of an image whose mask marks nothing, all of it one value: `fail`, or `copy`: the result is a copy
    of the image. Not part of the identity of a result: where there is one, it is the same either way."""
    page: int = 0
    """Which page of a TIFF of several to restore, counted from 1; the other pages stay byte for byte. 0: the file has
    only one. A manifest column, not a flag: it belongs to a file."""

    def __post_init__(self) -> None:
        if not 0 <= self.page <= 1_000_000:
            raise SettingError("page", f"must count from 1, or be 0 for the only one, not {self.page}")
        if not re.fullmatch(MASK_IN_IMAGE.pattern + "|file", self.mask_from):
            raise SettingError("mask_from", f"must be file, alpha or a colour such as #ff00ff, not {self.mask_from!r}")
        if self.mask_image and self.mask_from != "file":
            raise ConfigError(f"mask_image names one of many masks in a file, but the mask is drawn: {self.mask_from}")
        _check_choice("mask_polarity", self.mask_polarity, get_args(MaskPolarity))
        if not 0 <= self.mask_threshold <= 254:
            raise SettingError("mask_threshold", f"must lie in 0..254, not {self.mask_threshold}")
        if not 0 <= self.dilate_px <= 256:
            raise SettingError("dilate", f"must lie in 0..256 px, not {self.dilate_px}")
        if not 0 <= self.feather_px <= 256:
            raise SettingError("feather", f"must lie in 0..256 px, not {self.feather_px}")
        _check_choice("jpeg", self.jpeg, get_args(JpegMode))
        _check_choice("empty_mask", self.empty_mask, get_args(EmptyMask))


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingConfig:
    """Geometry of the plan. Part of the identity of a result: another value gives other pixels."""

    buckets_px: tuple[int, ...] = BUCKETS_PX
    """Tile sides to choose from, ascending, each a multiple of 32."""
    margin_px: int = 24
    """Known context wanted around a hole inside its tile, at the tile's own resolution, where the image has it."""
    bridge_depth_px: float = 24.0
    """Deepest hole (distance to the nearest known pixel) that is filled at full resolution at once; deeper ones start
    at the first halving where this holds."""
    second_start_px: float = 10.0
    """A hole that is deeper than this where it starts, at the resolution of that level, starts one halving coarser as
    well, and half of the passes of `--passes` go on from there: two estimates that err differently. 0: none does."""

    def __post_init__(self) -> None:
        if not self.buckets_px or list(self.buckets_px) != sorted(set(self.buckets_px)):
            raise SettingError("tiling.buckets_px", f"must be ascending and distinct, not {self.buckets_px}")
        if any(side <= 0 or side % 32 for side in self.buckets_px):
            raise SettingError("tiling.buckets_px", f"must be positive multiples of 32, not {self.buckets_px}")
        if not 0 <= 2 * self.margin_px < self.buckets_px[-1]:
            raise SettingError(
                "tiling.margin_px", f"must lie in 0..{self.buckets_px[-1] // 2 - 1}, not {self.margin_px}"
            )
        if self.bridge_depth_px < 1:
            raise SettingError("tiling.bridge_depth_px", f"must be at least 1, not {self.bridge_depth_px}")
        if not self.second_start_px >= 0:
            raise SettingError("tiling.second_start_px", f"must not be negative, not {self.second_start_px}")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a manifest; which part a row belongs to depends on its id alone."""

    index: int
    """1..count."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From `2/3`. Raises ConfigError where that is not a part of a whole."""
        match = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise SettingError("shard", f"must be i/n with i from 1 to n, such as 2/3, not {text!r}")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """As it stands in the names of files: `2-of-3`."""
        return f"{self.index}-of-{self.count}"

    def has(self, row_id: str) -> bool:
        """Whether the row belongs to this part."""
        return self.index_of(row_id, self.count) == self.index

    @staticmethod
    def index_of(row_id: str, count: int) -> int:
        """Which of `count` parts, from 1, the row belongs to; the same on every machine."""
        digest = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything `inpaint-batch run` can be told."""

    output: Path
    """Folder that receives the restored tree; state goes to `.inpaint-batch/` inside it."""
    store: str = ""
    """URI of an object store that receives the tree and the state instead, such as `s3://bucket/prefix`; `output` is
    then a folder of this machine for what is on its way there, given when the run begins."""
    row: RowConfig = field(default_factory=RowConfig)
    """Defaults for every row."""
    tiling: TilingConfig = field(default_factory=TilingConfig)
    """Geometry of the plan."""
    model: str = "default"
    """`default` (the model in the package) or the path of an `.onnx` file; for torch of a `.safetensors` file."""
    engine: str = "auto"
    """`auto`, `onnxruntime`, `onnxruntime-cuda`, `tensorrt` (a plan made by `inpaint-batch compile --target tensorrt`),
    `torch`, `torch-compile`, or `identity` (leaves holes black; for tests and rehearsals). What runs on a GPU has not
    been run on one yet."""
    precision: PrecisionName = "auto"
    """`auto`, `fp32`, `fp16` (on a GPU) or `int8`."""
    passes: int = 2
    """1, 2 or 4: how often every tile is filled, mirrored differently each time, and averaged."""
    workers: int = 0
    """Decode and encode threads; 0 means one per core, 4 at most."""
    on_conflict: OnConflict = "error"
    """What to do where an output exists that this run's ledger does not know."""
    max_failures: int = -1
    """End the run (exit 9) once more rows than this have failed; -1 means never."""
    retry_failed: bool = False
    """Do rows again that the ledger lists as failed."""
    content_hash: bool = False
    """Tell whether an image or a mask has changed by its bytes, not by size and time of modification."""
    fresh: bool = False
    """Forget the ledger and do every row again."""
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    """Refuse an image of which more than this must be decoded at once: all samples, of a TIFF one strip or tile."""
    max_memory: str = ""
    """What one process may take, such as `6G` or `800M`; empty: a quarter of the machine's memory, or of the
    container's, and at least 1 GiB where there is so much."""
    executor: ExecutorName = "auto"
    """`local`: in threads of this process. `process`: in processes of this machine that may die. `ray`: in the actors
    of a Ray cluster. `auto`: Ray where RAY_ADDRESS is set or several GPUs are there; else processes where `actors` or
    `row_timeout_s` is given; else local."""
    actors: int = 0
    """Worker processes, or Ray actors. 0 means one per GPU where there are any, else one process, or with Ray one actor
    per node."""
    row_timeout_s: int = 0
    """A row that takes longer fails (`timeout`); 0 means never. Not with `local`."""
    grace_s: int = 25
    """How long rows in flight may go on once the run was asked to stop; then they are dropped. 0 means to their end."""
    shard: str = ""
    """`i/n`: do only the i-th of n parts of the manifest; empty or `1/1`: do all of it."""
    log_format: LogFormat = "text"
    """`text`: progress bar on a terminal, plain lines elsewhere. `json`: one JSON object a line."""
    sidecar: bool = False
    """Write `NAME.inpaint-batch.json` beside each result: checksums, model, options, where the holes are."""
    premis: bool = False
    """Write `NAME.premis.xml` beside each result: the restoration as a PREMIS 3 event."""
    metrics: Path | None = None
    """File for Prometheus' textfile collector, written every ten seconds and at the end; None: none."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise SettingError("workers", f"must be 0 (automatic) or more, not {self.workers}")
        if self.max_failures < -1:
            raise SettingError("max_failures", f"must be -1 (never) or more, not {self.max_failures}")
        if self.passes not in (1, 2, 4):
            raise SettingError("passes", f"must be 1, 2 or 4, not {self.passes}")
        _check_choice("on_conflict", self.on_conflict, get_args(OnConflict))
        _check_choice("precision", self.precision, get_args(PrecisionName))
        _check_choice("log_format", self.log_format, get_args(LogFormat))
        if self.max_image_bytes < 1:
            raise SettingError("max_image_megabytes", f"must be at least 1, not {self.max_image_bytes >> 20}")
        if self.max_memory and self.max_memory_bytes < LEAST_MEMORY_BYTES:
            raise SettingError("max_memory", f"must be at least {LEAST_MEMORY_BYTES >> 20}M, not {self.max_memory!r}")
        _check_choice("executor", self.executor, get_args(ExecutorName))
        if not 0 <= self.actors <= 10_000:
            raise SettingError("actors", f"must lie in 0..10000, not {self.actors}")
        if self.row_timeout_s < 0:
            raise SettingError("row_timeout", f"must be 0 (never) or more seconds, not {self.row_timeout_s}")
        if self.grace_s < 0:
            raise SettingError("grace", f"must be 0 (as long as it takes) or more seconds, not {self.grace_s}")
        if self.shard:
            Shard.parse(self.shard)

    @property
    def max_memory_bytes(self) -> int:
        """`max_memory` as a number; 0 where none is set. Units are powers of 1024."""
        if not self.max_memory:
            return 0
        match = _SIZE.fullmatch(self.max_memory.strip())
        if match is None:
            raise SettingError("max_memory", f"must be a size such as 6G or 800M, not {self.max_memory!r}")
        return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))

    @property
    def place(self) -> str:
        """Where the results go, for people."""
        return self.store or str(self.output)

    @property
    def planning(self) -> TilingConfig:
        """How images are planned: a second start takes a second pass."""
        return self.tiling if self.passes > 1 else replace(self.tiling, second_start_px=0.0)

    @property
    def part(self) -> Shard | None:
        """The shard, or None where the whole manifest is to be done."""
        shard = Shard.parse(self.shard) if self.shard else None
        return shard if shard is not None and shard.count > 1 else None
