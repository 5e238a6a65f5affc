"""The manifest of a run, which is read more than once."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.manifest.read import count_rows, manifest_digest, read_manifest
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.pipeline.settled import Settled
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row


class ManifestRows:
    """The rows of a manifest that fall to a run."""

    def __init__(self, manifest: Path | str, masks: Path | None, config: RunConfig) -> None:
        """Counts them, where no earlier run has left that number. Raises what `read_manifest` raises."""
        self._manifest, self._masks = manifest, masks
        self.read().close()  # whether it can be read at all
        self.digest = manifest_digest(manifest)
        """See there."""
        settled = None if config.store else self.settled(config.output / STATE_FOLDER, config)
        self.num_rows = settled.num_rows if settled else count_rows(manifest, masks=masks, part=config.part)

    def are_of(self, path: str) -> bool:
        """Whether that file, or object, is the manifest."""
        if isinstance(self._manifest, str):
            return self._manifest == path
        return not is_uri(path) and Path(path).exists() and self._manifest.exists() and self._manifest.samefile(path)

    def read(self) -> Generator[Row | RowProblem]:
        """All rows of the manifest, those of other shards among them."""
        return read_manifest(self._manifest, masks=self._masks)

    def settled(self, state: Path, config: RunConfig) -> Settled | None:
        """What the last run left about them."""
        return Settled.of(state, config.part, self.digest)
