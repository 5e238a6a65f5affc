"""The trainer: exact resume, data that depends on the step alone, survival of bad input, and that it learns."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_networks import SMALLEST
from small_training import CONFIG, check_resuming

from inpaint_batch.errors import ConfigError, EngineError, StorageError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.storage import atomic
from inpaint_batch.training import trainer
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig, load_train_config
from inpaint_batch.training.data import Batch, Crops
from inpaint_batch.training.muon import orthogonalise
from inpaint_batch.training.photographs import Photograph, list_photographs, searched_folders, split_photographs
from inpaint_batch.training.settings import settings_of_run
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.trainer import BEST, EXPORT, LAST, train
from inpaint_batch.training.validation import ValidationSet, mean_hole_psnr


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_resumed_run_equals_an_unbroken_one(photographs: Path, tmp_path: Path, optimizer: str) -> None:
    check_resuming(replace(CONFIG, optimizer=optimizer), photographs, tmp_path, 5)  # type: ignore[arg-type]


def test_the_best_is_measured_again_where_validation_has_become_harder(photographs: Path, tmp_path: Path) -> None:
    easy = replace(CONFIG, steps=4, hole_shares=(1.0,), stroke_area=(0.03, 0.04))
    hard = replace(CONFIG, steps=8, hole_shares=(0.0, 1.0), box_area=(0.24, 0.25))
    best_of_easy = train(easy, photographs, tmp_path)
    best_of_hard = train(hard, photographs, tmp_path, resume=True)
    assert best_of_hard < best_of_easy
    validation = ValidationSet(split_photographs(photographs, hard)[1], hard, None)
    assert best_of_hard == mean_hole_psnr(load_generator(tmp_path / EXPORT), validation)


def test_a_kill_while_the_best_is_kept_loses_it_not(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    harmful = replace(CONFIG, steps=4, validate_every=2, checkpoint_every=1, learning_rate=1.0, warmup_steps=3)
    best = train(harmful, photographs, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.shutil, "copyfile", killed)
        with pytest.raises(KilledError):
            train(harmful, photographs, tmp_path / "killed")
    cut_short = tmp_path / "killed" / f".{BEST}.inpaint-batch-{os.getpid()}-{atomic._HOST}01234567.tmp"
    cut_short.touch()
    assert train(harmful, photographs, tmp_path / "killed", resume=True) == best
    assert not cut_short.exists()
    exported, expected = (load_generator(tmp_path / name / EXPORT).state_dict() for name in ("killed", "whole"))
    assert all(torch.equal(exported[name], value) for name, value in expected.items())


def test_a_run_with_damage_does_not_go_on_without(photographs: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=2), photographs, tmp_path, damage=photographs)
    with pytest.raises(ConfigError, match="is a run with --damage: name its folder again"):
        train(CONFIG, photographs, tmp_path, resume=True)
    train(replace(CONFIG, steps=4), photographs, tmp_path, resume=True, damage=photographs)
    train(replace(CONFIG, steps=6, hole_shares=(0.5, 0.5)), photographs, tmp_path, resume=True)


def test_a_batch_depends_on_its_step_alone(photographs: Path) -> None:
    crops = Crops(list_photographs(photographs), CONFIG, None)
    ahead = list(crops.prefetch(3, 6, num_threads=3))
    assert [b.step for b in ahead] == [3, 4, 5]
    again = crops.batch(4)
    assert np.array_equal(ahead[1].image, again.image)
    assert np.array_equal(ahead[1].hole, again.hole)
    assert not np.array_equal(
        ahead[0].image[0], again.image[0][..., : ahead[0].image.shape[2], : ahead[0].image.shape[3]]
    )
    for batch in ahead:
        assert batch.image.dtype == np.float32
        assert batch.image.min() >= 0
        assert batch.image.max() <= 1
        assert 0 < batch.hole.mean() < 1


def test_as_many_batches_are_prepared_at_once_as_there_are_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    all_at_once = threading.Barrier(12)

    def batch(_: Crops, step: int) -> int:
        all_at_once.wait(timeout=20)  # nobody goes on before twelve are here
        return step

    monkeypatch.setattr(Crops, "batch", batch)
    crops = Crops([Photograph(Path("none.png"))], CONFIG, None)
    assert list(crops.prefetch(0, 24, num_threads=12)) == list(range(24))


def test_broken_photographs_are_replaced(photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.jpg").write_text("not a picture")
    broken = Photograph(tmp_path / "broken.jpg")
    with caplog.at_level(logging.WARNING):
        for step in range(8):
            Crops([*list_photographs(photographs)[:3], broken], CONFIG, None).batch(step)
    assert "broken.jpg" in caplog.text
    with pytest.raises(ConfigError, match="in a row could not be decoded"):
        Crops([broken], CONFIG, None).batch(0)


def test_a_few_photographs_among_many_that_cannot_be_decoded_are_enough(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("not a picture")
    broken = [Photograph(tmp_path / "broken.jpg")] * 19
    crops = Crops([list_photographs(photographs)[0], *broken], CONFIG, None)
    assert all(crops.batch(step).image.any() for step in range(20))


def test_a_step_that_is_not_finite_is_left_out(photographs: Path) -> None:
    state = TrainingState(CONFIG)
    batch = Crops(list_photographs(photographs), CONFIG, None).batch(0)
    before = {name: value.clone() for name, value in state.generator.state_dict().items()}
    batch.image[0, 0, 0, 0] = np.nan
    assert math.isnan(state.learn(batch)["loss"])
    assert all(torch.equal(before[n], v) for n, v in state.generator.state_dict().items())
    assert state.step == 1
    assert state.num_bad_steps == 1


@pytest.mark.parametrize(("ema_decay", "second"), [(0.998, 2 / 11), (0.15, 0.15)])
def test_the_average_follows_fast_at_first(photographs: Path, ema_decay: float, second: float) -> None:
    """A tenth of what it was after the first step, then 2/11, and never more than the settings say."""
    state = TrainingState(replace(CONFIG, ema_decay=ema_decay))
    crops = Crops(list_photographs(photographs), CONFIG, None)
    name, weights = "head.weight", []
    for step in range(3):
        weights.append(state.generator.state_dict()[name].clone())
        if step < 2:
            state.learn(crops.batch(step))
    first = 0.1 * weights[0] + 0.9 * weights[1]
    assert not torch.equal(weights[1], weights[2])
    torch.testing.assert_close(state.average[name], second * first + (1 - second) * weights[2])


def test_a_large_gradient_is_cut(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    state = TrainingState(replace(CONFIG, gradient_clip=1e-3))

    def finish(_: bool) -> None:
        norms.append(
            float(torch.nn.utils.get_total_norm([p.grad for p in state.generator.parameters() if p.grad is not None]))
        )

    monkeypatch.setattr(state, "_finish", finish)
    state.learn(Crops(list_photographs(photographs), CONFIG, None).batch(0))
    assert norms == [pytest.approx(1e-3, rel=1e-2)]


def test_the_psnr_of_validation_by_hand() -> None:
    """Sixteen crops wrong by 0.1 at their missing pixels, 20 dB, and one wrong by 0.01, 40 dB."""

    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image: torch.Tensor, hole: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            missing = hole.sum(dim=(1, 2, 3), keepdim=True)
            return image + hole * (0.5 + torch.where(missing == 1, 0.01, 0.1))

    holes = torch.zeros(17, 1, 8, 8)
    holes[:, 0, 2:5, 3:7] = 1
    holes[16] = 0
    holes[16, 0, 1, 1] = 1
    validation = SimpleNamespace(images=torch.full((17, 3, 8, 8), 0.5), holes=holes)
    assert mean_hole_psnr(Shifted(), validation) == pytest.approx((16 * 20 + 40) / 17, abs=1e-3)  # type: ignore[arg-type]


def test_a_coarse_pixel_is_known_where_half_of_it_is() -> None:
    """Of each cell of 2×2 the mean of its known pixels: of 4, 2 and 1 of them, and none. One alone is not enough."""
    given = []

    def network(image: torch.Tensor, hole: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        given.append((image, hole))
        return image + 0.25 * hole

    state = TrainingState(CONFIG)
    state.network = network
    image = torch.tensor([[0.1, 0.3, 0.2, 0.6], [0.5, 0.7, 0.9, 0.9], [0.8, 0.9, 0.9, 0.9], [0.9, 0.9, 0.9, 0.9]])
    hole = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).float()
    prior, weight = state._prior(image.expand(1, 3, 4, 4), hole.expand(1, 1, 4, 4))
    ((coarse, coarse_hole),) = given
    torch.testing.assert_close(coarse[0, 0], torch.tensor([[0.4, 0.4], [0.0, 0.0]]))
    assert coarse_hole[0, 0].tolist() == [[0, 0], [1, 1]]
    assert prior.shape == (1, 3, 4, 4)
    assert prior[0, :, 0, 0].tolist() == pytest.approx([0.4] * 3)
    assert prior[0, :, 3, 3].tolist() == pytest.approx([0.25] * 3)
    assert weight.tolist() == [[[[1.0]]]]


def test_learning_rate_rises_and_falls() -> None:
    state = TrainingState(replace(CONFIG, steps=102, warmup_steps=2, learning_rate=1.0))
    rates = []
    for state.step in (0, 1, 2, 52, 101):
        rates.append(state.learning_rate())
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[3] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(0, abs=1e-3)


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    for shape in ((16, 72), (72, 16), (8, 8)):
        torch.manual_seed(0)
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_learning_one_batch_by_heart_halves_its_loss(photographs: Path) -> None:
    """A wrong sign, a detached graph or a dead layer anywhere between input and loss makes this fail."""
    model = replace(SMALLEST, width=16, bottleneck_hidden=32, decoder_blocks=(1, 1, 0), stage_widths=(32, 24, 16))
    config = replace(CONFIG, model=model, steps=1000, learning_rate=2e-3, warmup_steps=1)
    config = replace(config, sides_px=(64,), side_shares=(1.0,), prior_share=0.0)
    state = TrainingState(config)
    batch = Crops(list_photographs(photographs), config, None).batch(0)
    losses = [state.learn(batch)["loss"] for _ in range(80)]
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_a_coarse_fill_learns_from_the_finer_one_that_starts_from_it() -> None:
    """A fresh network adds its last bias, b, to its start. Deep in a hole the coarse fill is push-pull + b, and the
    finer one that + b: its derivative by b is 2, once for each level."""
    state = TrainingState(replace(CONFIG, sides_px=(64, 128)))
    image, hole = torch.full((1, 3, 128, 128), 0.5), torch.zeros(1, 1, 128, 128)
    hole[..., 32:96, 32:96] = 1
    filled = state.generator(image * (1 - hole), hole, *state._prior(image, hole))
    filled[0, 0, 60:68, 60:68].mean().backward()
    bias = state.generator.head.bias.grad
    assert bias is not None
    # Four biases, one for each place in a cell of 2×2; the red ones share the sum.
    torch.testing.assert_close(bias.reshape(3, 4).sum(dim=1), torch.tensor([2.0, 0.0, 0.0]))


def test_a_run_leaves_its_best_weights_and_a_log(photographs: Path, tmp_path: Path) -> None:
    best = train(CONFIG, photographs, tmp_path)
    validation = ValidationSet(list_photographs(photographs)[-4:], CONFIG, None)
    assert mean_hole_psnr(load_generator(tmp_path / EXPORT), validation) == pytest.approx(best)
    assert load_checkpoint(tmp_path / BEST).best_psnr == pytest.approx(best)
    assert mean_hole_psnr(load_generator(tmp_path / BEST), validation) == pytest.approx(best)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    measured = {line["step"]: line["validation_psnr_db"] for line in lines if "validation_psnr_db" in line}
    assert list(measured) == [4, 8]
    assert [line["step"] for line in lines if "loss" in line][-1] == 8  # a short run tells what it has learned, too
    assert max(measured.values()) == pytest.approx(best, rel=1e-4)


def test_a_second_run_does_not_overwrite_the_first(photographs: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=1), photographs, tmp_path)
    with pytest.raises(ConfigError, match="--resume"):
        train(CONFIG, photographs, tmp_path)
    with pytest.raises(ConfigError, match=r"there is no run in .*elsewhere to go on with"):
        train(CONFIG, photographs, tmp_path / "elsewhere", resume=True)
    with pytest.raises(ConfigError, match=r"there is no run in .*elsewhere to go on with"):
        settings_of_run(tmp_path / "elsewhere", resume=True)
    other = replace(CONFIG, model=replace(SMALLEST, width=16))
    with pytest.raises(ConfigError, match="other sizes"):
        train(other, photographs, tmp_path, resume=True)


def test_a_run_with_no_steps_left_says_so(photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(replace(CONFIG, steps=2), photographs, tmp_path)
    train(replace(CONFIG, steps=1), photographs, tmp_path, resume=True)
    assert "the run has done 2 of 1 steps: nothing is left" in caplog.text


def test_a_model_that_was_moved_away_is_there_again(photographs: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=2)
    train(config, photographs, tmp_path / "run")
    moved = (tmp_path / "run" / EXPORT).rename(tmp_path / "mine.safetensors")
    train(config, photographs, tmp_path / "run", resume=True)
    again = load_generator(tmp_path / "run" / EXPORT).state_dict()
    assert all(torch.equal(again[name], value) for name, value in load_generator(moved).state_dict().items())


def test_the_best_that_found_no_room_at_the_end_is_written_by_the_next_call(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    config = replace(CONFIG, steps=2)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_generator", full)
        with pytest.raises(StorageError, match=r"the best weights, of step 2, could not be written .*--resume"):
            train(config, photographs, tmp_path)
    best = train(config, photographs, tmp_path, resume=True)
    assert load_checkpoint(tmp_path / BEST).best_psnr == load_checkpoint(tmp_path / LAST).best_psnr == best
    assert (tmp_path / EXPORT).exists()


def test_the_model_of_another_run_is_not_overwritten(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / EXPORT).write_bytes(b"all that was kept of a run")
    with pytest.raises(ConfigError, match=r"holds model\.safetensors of another training run"):
        train(CONFIG, photographs, tmp_path)
    assert (tmp_path / EXPORT).read_bytes() == b"all that was kept of a run"


def test_ruined_weights_take_the_place_of_no_checkpoint(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = TrainingState.learn

    def ruined(state: TrainingState, batch: Batch) -> dict[str, float]:
        if state.step >= 4:
            batch.image[0, 0, 0, 0] = np.nan
        return learn(state, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "learn", ruined)
        with pytest.raises(ConfigError, match="20 steps in a row"):
            train(replace(CONFIG, steps=40), photographs, tmp_path)
    assert load_checkpoint(tmp_path / LAST).step == 4


def test_a_run_without_a_finite_validation_has_no_best(photographs: Path, tmp_path: Path) -> None:
    ruinous = replace(CONFIG, steps=6, weight_decay=1e30, optimizer="adamw")
    with pytest.raises(ConfigError, match="no weights were exported"):
        train(ruinous, photographs, tmp_path)
    assert not (tmp_path / EXPORT).exists()


def test_a_run_beside_train_and_val_lies_in_neither(tmp_path: Path) -> None:
    assert searched_folders(tmp_path) == [tmp_path]
    assert searched_folders(tmp_path / "list.csv") == []
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    assert searched_folders(tmp_path) == [tmp_path / "train", tmp_path / "val"]


def test_weights_can_be_read_by_all_whom_the_umask_lets(photographs: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        train(replace(CONFIG, steps=1), photographs, tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.safetensors")}
    assert modes == dict.fromkeys((LAST, BEST, EXPORT), 0o640)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(EngineError, match="cannot read weights"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_settings_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "train.toml"
    file.write_text("steps = 12\nlearning_rate = 1e-4\n[model]\nwidth = 16\n")
    config = load_train_config(file)
    assert (config.steps, config.learning_rate, config.model.width) == (12, 1e-4, 16)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    file.write_text("learning_rat = 1e-4\n")
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        load_train_config(file)


def test_an_unknown_setting_is_told_with_its_file_and_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    for text, told in (
        ("dialate = 3", r"settings\.toml: the file has an unknown key 'dialate'; known are model, losses, "),
        ("steps = 0", r"settings\.toml: steps must be at least 1"),
        ("[model]\nsteps = 1", r"model has an unknown key 'steps'; it belongs above all tables"),
        ("boundary = 1", r"the file has an unknown key 'boundary'; it belongs in the table \[losses\]"),
        ("[losses]\nboundery = 1", r"settings\.toml: losses has an unknown key 'boundery'; did you mean boundary\?"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=told):
            load_train_config(file)
    file.write_bytes(b"\xef\xbb\xbfsteps = 7")  # a byte order mark
    assert load_train_config(file).steps == 7


def test_what_cannot_begin_leaves_no_folder(photographs: Path, tmp_path: Path) -> None:
    run, empty = tmp_path / "run", tmp_path / "empty"
    empty.mkdir()
    for data, damage, device in (
        (tmp_path / "none", None, "cpu"),
        (photographs, empty, "cpu"),
        (photographs, None, "x"),
    ):
        with pytest.raises(ConfigError):
            train(CONFIG, data, run, damage=damage, device=device)
    assert not run.exists()


def test_sigterm_saves_and_exits_75(photographs: Path, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    sizes = "width = 8\nbottleneck_hidden = 8\nstage_widths = [8, 8, 8]\nvalue_channels = [8, 4, 4]\n"
    settings = "steps = 100000\nbatch_size = 1\nnum_validation = 2\ncheckpoint_every = 1\nsides_px = [64]\n"
    config.write_text(f"{settings}side_shares = [1.0]\n[model]\n{sizes}")
    command = [sys.executable, "-m", "inpaint_batch", "train", str(photographs), "--output"]
    command += [str(tmp_path / "run"), "--config", str(config), "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"})
    last = tmp_path / "run" / LAST
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    told = time.monotonic()
    while process.poll() is None and time.monotonic() < told + 60:  # a scheduler may say it again to the very end
        process.send_signal(signal.SIGTERM)
        time.sleep(0.005)
    _, stderr = process.communicate(timeout=1)
    assert process.returncode == 75, stderr
    assert load_checkpoint(last).step > 0
    assert "--resume" in stderr
