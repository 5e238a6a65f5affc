"""Numbers of the run for Prometheus, in a file that node_exporter's textfile collector picks up.

A batch job ends before anyone could scrape it; a file stays. All values are gauges: they tell of the last run, and each
run begins at zero. The file is written by a thread of its own, so that it is fresh also while one row takes an hour; a
run that was killed is known by a file that says `running` and is old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from inpaint_batch import __version__
from inpaint_batch.errors import ConfigError, FailureCode, MissingDependencyError, exit_code_of
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.row_tiles import Look
from inpaint_batch.report.tally import RowReport, Tally
from inpaint_batch.types import STAGES
from inpaint_batch.words import writable

if TYPE_CHECKING:
    from prometheus_client import Metric

WRITE_EVERY_S = 10.0
"""Seconds between two versions of the file while the run goes on."""
PREFIX = "inpaint_batch_"
_LAST_SUCCESS = PREFIX + "last_success_time_seconds"


class MetricsProgress(Progress):
    """Tells another progress everything, and keeps the file."""

    def __init__(self, inner: Progress, path: Path) -> None:
        """Raises MissingDependencyError without prometheus-client, and ConfigError for a name that nobody would collect
        or a folder that is not there.
        """
        try:
            import prometheus_client
        except ImportError as error:
            raise MissingDependencyError(
                f"--metrics needs prometheus-client ({error}): pip install 'inpaint-batch[metrics]'"
            ) from error
        if path.suffix != ".prom":
            wanted = path.stem or "inpaint_batch"
            told = f"--metrics {path}: the collector reads only names that end in .prom; call it {wanted}.prom"
            raise ConfigError(told)
        if not path.parent.is_dir():
            raise ConfigError(f"--metrics {path}: there is no folder {path.parent}; create it first")
        self._write_to = prometheus_client.write_to_textfile
        self._inner = inner
        self._path = path
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(self)
        self._about: dict[str, str] = {}
        self._num_rows = 0
        self._tally = Tally()
        self._exit_code: int | None = None
        self._started_s = time.time()
        self._last_success_s = _last_success(path)
        self._failed = False
        self._queues: Callable[[], Mapping[str, int]] = dict
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="metrics", daemon=True)

    def __enter__(self) -> Progress:
        self._inner.__enter__()
        self._write()
        self._thread.start()
        return self

    def start(self, num_rows: int, about: dict[str, Any]) -> None:
        """See `Progress.start`."""
        self._num_rows = num_rows
        self._about = {name: writable(str(value)) for name, value in about.items()}
        self._inner.start(num_rows, about)
        self._write()

    def watch(self, queues: Callable[[], Mapping[str, int]], filling: Look) -> None:
        """See `Progress.watch`."""
        self._queues = queues
        self._inner.watch(queues, filling)

    def row(self, report: RowReport, tally: Tally) -> None:
        """See `Progress.row`."""
        self._inner.row(report, tally)
        self._tally = tally

    def skipped(self, tally: Tally) -> None:
        """See `Progress.skipped`."""
        self._inner.skipped(tally)
        self._tally = tally

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._inner.note(text)

    def finish(self, tally: Tally, exit_code: int) -> None:
        """See `Progress.finish`."""
        self._tally = tally
        self._end(exit_code)
        self._inner.finish(tally, exit_code)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._exit_code is None:  # it ended before it could begin, or by an error that nobody foresaw
            self._end(0 if error is None else exit_code_of(error))
        self._inner.__exit__(kind, error, trace)

    def collect(self) -> Iterable[Metric]:
        """The numbers as they stand, for the registry."""
        return self._families()

    def _families(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        def gauge(name: str, help_text: str, value: float) -> Metric:
            return GaugeMetricFamily(PREFIX + name, help_text, value=value)

        def gauges(name: str, help_text: str, label: str, values: dict[str, float]) -> Metric:
            family = GaugeMetricFamily(PREFIX + name, help_text, labels=[label])
            for key, value in sorted(values.items()):
                family.add_metric([key], value)
            return family

        tally, queues = self._tally, dict(self._queues())
        about = {**self._about, "version": __version__}
        info = GaugeMetricFamily(PREFIX + "run_info", "What the run works with; always 1.", labels=list(about))
        info.add_metric(list(about.values()), 1)
        yield info
        yield gauge("rows_expected", "Rows of the manifest that fall to this run.", self._num_rows)
        outcomes = {
            "done": tally.num_done,
            "skipped": tally.num_skipped,
            "left": tally.num_left,
            "failed": tally.num_all_failed,
        }
        yield gauges("rows", "Rows that have come to an end, by outcome.", "outcome", dict(outcomes))
        yield gauge("rows_in_flight", "Rows that were begun and have not come to an end.", queues.pop("flight", 0))
        yield gauges("queue_rows", "Rows in flight that wait for this (workers: are with them).", "queue", dict(queues))
        codes = dict.fromkeys(map(str, FailureCode), 0.0)
        yield gauges("failures", "Failed rows, by failure code.", "code", codes | dict(tally.by_code))
        yield gauge("warnings", "Sentences about rows that are done and may not be as meant.", tally.num_warnings)
        yield gauge("pixels", "Pixels of the images that are done.", tally.num_pixels)
        tiles = {str(side): count for side, count in dict(tally.num_tiles).items()}
        yield gauges("tiles", "Tiles filled, by side in pixels.", "side_px", dict(tiles))
        stages = dict.fromkeys(STAGES, 0.0) | dict(tally.seconds)
        yield gauges("stage_seconds", "Time by stage, summed over rows and threads.", "stage", stages)
        yield gauge("start_time_seconds", "When the run began, in seconds since 1970.", self._started_s)
        yield gauge("running", "1 while the run goes on, 0 once it has ended.", float(self._exit_code is None))
        if self._exit_code is not None:
            yield gauge("exit_code", "Exit code of the run.", self._exit_code)
        if self._last_success_s:
            told = "When a run that writes this file last ended with every row done, in seconds since 1970."
            yield GaugeMetricFamily(_LAST_SUCCESS, told, value=self._last_success_s)

    def _end(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._queues = dict  # nothing is in flight, and whoever counted it is gone
        if exit_code == 0:
            self._last_success_s = time.time()
        self._write()

    def _keep_up(self) -> None:
        while not self._ended.wait(WRITE_EVERY_S):
            self._write()

    def _write(self) -> None:
        with self._writing:
            try:
                self._write_to(str(self._path), self._registry)  # whole or not at all: it writes beside and renames
            except OSError as error:
                if not self._failed:
                    reason = error.strerror
                    self._inner.note(f"the metrics file {self._path} cannot be written ({reason}); the run goes on")
                self._failed = True


def _last_success(path: Path) -> float:
    """What the file of an earlier run says; 0 where there is none that says it."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            if family.name == _LAST_SUCCESS:
                return float(family.samples[0].value)
    except (OSError, ValueError):
        pass  # no such file yet, or another one's: it is written anew
    return 0.0
