"""The training loop, readable top to bottom."""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from inpaint_batch.errors import ConfigError, RowError, StopRequestedError, StorageError
from inpaint_batch.models.checkpoint import save_generator
from inpaint_batch.signals import told_of_signals
from inpaint_batch.storage.atomic import atomic_write, remove_stale_temporaries
from inpaint_batch.training.activity import Activity
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.device import Device
from inpaint_batch.training.monitor import Monitor
from inpaint_batch.training.photographs import split_photographs
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.team import Team
from inpaint_batch.training.validation import ValidationSet, mean_hole_psnr

LAST = "last.safetensors"
BEST = "best.safetensors"
EXPORT = "model.safetensors"
LOG_EVERY_STEPS = 25
WARN_ABOVE = 0.5
"""Part of the channels behind a ReLU that may be dead before somebody should hear of it."""

log = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    data: Path,
    run: Path,
    *,
    damage: Path | None = None,
    resume: bool = False,
    init: Path | None = None,
    device: str = "auto",
    num_loaders: int = 2,
    should_stop: Callable[[], bool] = bool,
) -> float | None:
    """Train until `config.steps`; return the best mean PSNR (dB) inside the hole on the held-out photographs. Of a team
    the first process alone knows it, the others return None.

    `run` receives `last.safetensors` (to go on from), `best.safetensors`, `model.safetensors` (weights alone, of the
    best), `log.jsonl`, `samples/` and, at the end, `plot.png`. `init` names weights to start from instead of fresh
    ones; `num_loaders` threads prepare crops, and their number changes nothing else. Under torchrun each process calls
    this; they share every batch, and the first one validates and writes.

    SIGTERM, SIGUSR1, SIGINT, and `should_stop` in any process, asked after each step, save and raise
    StopRequestedError. A checkpoint that cannot be written leaves the one before; the run goes on, and raises
    StorageError where it would have to end without. Raises ConfigError where `run` holds another run, and where no
    validation gave a finite number.
    """
    check_run(run, resume=resume)
    if resume and init:
        raise ConfigError("--resume goes on from the run's own weights; leave out --init")
    place = Device(device, config.precision)
    team = Team(place.torch)
    try:
        learned, held_out = split_photographs(data, config)
        crops = Crops(learned, config, damage, team.share)
        validation = ValidationSet(held_out, config, damage)
        state = TrainingState(config, place, team, damage=damage is not None)
        if resume:
            state.restore(run / LAST)
            state.best_psnr = _best_so_far(run, state, validation)
            if state.step >= config.steps:
                log.warning("the run has done %d of %d steps: nothing is left; name more", state.step, config.steps)
        elif init:
            state.start_from(init)
            if config.revive:
                state.revive(validation)
        run.mkdir(parents=True, exist_ok=True)  # not before all else has been found good
        if team.leads:
            remove_stale_temporaries(run)  # each is as large as a checkpoint
        team.wait()  # nobody may look for checkpoints when the first has begun to write them
        log.info(
            "%d photographs to learn from, %d held out, %d parameters, step %d of %d, %d process(es) on %s",
            len(learned),
            len(held_out),
            sum(p.numel() for p in state.generator.parameters()),
            state.step,
            config.steps,
            team.size,
            place.torch.type,
        )
        _loop(state, crops, validation, run, num_loaders, should_stop)
        if not team.leads:
            return None
        if state.best_psnr == -math.inf:
            raise ConfigError(
                "the PSNR of no validation was a finite number, and no weights were exported; begin anew with a lower "
                "learning_rate"
            )
        return state.best_psnr
    finally:
        team.leave()


def check_run(run: Path, *, resume: bool) -> None:
    """Raise ConfigError where `run` holds another run, or with `resume` none that could go on."""
    if (run / LAST).exists() and not resume:
        raise ConfigError(f"{run} already holds a training run; continue it with --resume, or choose another folder")
    left = [name for name in (EXPORT, BEST) if (run / name).exists()]
    if left and not resume:
        raise ConfigError(
            f"{run} holds {' and '.join(left)} of another training run, which this one would overwrite; choose another "
            "folder, or move them away"
        )
    if resume and not (run / LAST).exists():
        raise ConfigError(f"there is no run in {run} to go on with; leave out --resume, or name its folder")


def _loop(
    state: TrainingState,
    crops: Crops,
    validation: ValidationSet,
    run: Path,
    num_loaders: int,
    should_stop: Callable[[], bool],
) -> None:
    """Step by step to the end, with everything that is due in between."""
    config, team = state.config, state.team
    with _stop_on_signal() as stop, Monitor(run, state.step, config.steps, silent=not team.leads) as monitor:
        nothing_left = state.step >= config.steps  # but the last validation, where that or its weights were cut short
        if team.leads and (nothing_left or (config.validate_start and state.step == 0)):
            _validate(state, validation, run, monitor, must=nothing_left)
        is_due = False
        for batch in crops.prefetch(state.step, config.steps, num_loaders):
            losses = state.learn(batch)
            monitor.num_images += batch.num_images
            stopping, done = team.any(bool(stop) or should_stop()), state.step == config.steps
            if state.step % LOG_EVERY_STEPS == 0 or done or monitor.is_quiet:
                monitor.line(state.step, **losses, **monitor.pace(state.step), learning_rate=state.learning_rate())
            if team.leads and done:  # first what took hours, then what can be measured again
                _keep(state, run, must=True)
                _validate(state, validation, run, monitor, must=True)
            elif team.leads:
                if state.step % config.validate_every == 0:
                    _validate(state, validation, run, monitor)
                is_due |= state.step % config.checkpoint_every == 0
                # Weights that may be ruined must not take the place of ones from which a run can go on.
                if stopping or (is_due and not state.num_bad_steps):
                    _keep(state, run, must=stopping)
                    is_due = False
            if stopping and not done:
                team.wait()  # the first process is still writing
                raise StopRequestedError(f"stopped at step {state.step}; go on with --resume")
        monitor.plot()
        team.wait()


def _validate(state: TrainingState, validation: ValidationSet, run: Path, monitor: Monitor, must: bool = False) -> None:
    """Measure the averaged weights, show what they do, and keep them if they are the best so far.

    Where they cannot be written the run goes on without, or raises StorageError where that `must` not be.
    """
    generator = state.averaged()
    with Activity(generator) as activity:
        psnr = mean_hole_psnr(generator, validation)
    monitor.line(state.step, validation_psnr_db=psnr, dead_share=activity.dead_share())
    for place, (dead, channels) in activity.dead().items():
        if dead > WARN_ABOVE * channels:
            log.warning(
                "%d of %d channels behind %s are zero on every held-out photograph and learn nothing any more; a lower "
                "learning_rate keeps more of them alive, and `revive`, in a run with --init, lets those of residual "
                "blocks begin anew",
                *(dead, channels, place),
            )
    monitor.samples(state.step, generator, validation)
    if psnr > state.best_psnr:
        before, state.best_psnr = state.best_psnr, psnr
        with _survive_full_disk(f"the best weights, of step {state.step},", must) as failed:
            save_generator(run / EXPORT, state.generator, state.average)
            state.save(run / BEST)
            # Last: a run that is killed before it goes on from an earlier step, and comes by here again.
            with atomic_write(run / LAST) as temporary:
                shutil.copyfile(run / BEST, temporary)
        if failed:
            state.best_psnr = before


def _best_so_far(run: Path, state: TrainingState, validation: ValidationSet) -> float:
    """What the best weights are worth by this sitting's validation, which other settings or photographs make another.

    The value in the checkpoint would let no later weights win after a change to harder holes. Their model is
    written again where it has been moved away: this sitting may find no better one, and ends by naming it.
    """
    if not (run / BEST).exists():
        return -math.inf
    best = load_checkpoint(run / BEST).average
    if state.team.leads and not (run / EXPORT).exists():
        with _survive_full_disk("the best weights so far"):
            save_generator(run / EXPORT, state.generator, best)
    return mean_hole_psnr(state.with_weights(best), validation)


def _keep(state: TrainingState, run: Path, must: bool) -> None:
    """Write the checkpoint; where that fails the one before stays."""
    with _survive_full_disk(f"the checkpoint of step {state.step}", must):
        state.save(run / LAST)


@contextmanager
def _survive_full_disk(what: str, must: bool = False) -> Iterator[list[Exception]]:
    """Log a failed write and go on, or raise StorageError where it `must` not fail. Yields a list of the failure."""
    failed: list[Exception] = []
    try:
        yield failed
    except (OSError, SafetensorError, StorageError, RowError) as error:
        failed.append(error)
        advice = f"{what} could not be written ({error}); what was saved before is still there. Free some space"
        if must:
            raise StorageError(f"{advice} and go on with --resume") from error
        log.error("%s; training goes on", advice)


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM, SIGUSR1 or SIGINT arrives; for ever, outside of the main thread."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    with told_of_signals(stop.append):
        yield stop
