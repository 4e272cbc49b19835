"""Runs that come back: the same command line after any kind of death, and what is passed over on the way."""

import dataclasses
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_loop import batches, network, weak, weights
from torch.utils.flop_counter import FlopCounterMode

from reliev3r.cli.terminal import _resume_alone
from reliev3r.core.errors import TrainingStopped, UserError
from reliev3r.core.files import write_json
from reliev3r.core.types import Loss
from reliev3r.runs.run_folder import RunFolder
from reliev3r.training.checkpoint import (
    StateWriter,
    TrainingState,
    best_record,
    load_newest_state,
    owned_network,
    recover,
    save_best,
    save_state,
)
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.meter import StepFlops
from reliev3r.training.monitor import read_metrics

CONFIG = TrainConfig(steps=8, precision="fp32", log_every=1)


# One run, one folder -------------------------------------------------------------------------------------------------


def run_in(path: Path) -> RunFolder:
    return RunFolder(path=path, verb="train", inputs={})


def begin(path: Path) -> bool:
    """What every verb does first; whether the run went on."""
    run = run_in(path)
    with run.held():
        goes_on = run.goes_on("auto")
        settings = run.settings(CONFIG, TrainConfig(), resume=goes_on)
        run.begin(settings)
        return goes_on


def hold(path: Path) -> None:
    """Begin a run and stay at it."""
    with run_in(path).held():
        run_in(path).begin(CONFIG)
        time.sleep(60)


def forked(function: Callable[..., None], *arguments: Any) -> int:
    """A process that does this, and nothing else of what this one would do."""
    process = os.fork()
    if process == 0:
        try:
            function(*arguments)
        finally:
            os._exit(0)
    return process


def test_auto_starts_a_run_and_goes_on_with_it(tmp_path) -> None:
    assert [begin(tmp_path / "run") for _ in range(3)] == [False, True, True]
    other = dataclasses.replace(CONFIG, lr=0.5)
    with pytest.raises(UserError, match="the run has lr"):
        run_in(tmp_path / "run").settings(other, TrainConfig(), resume=run_in(tmp_path / "run").goes_on("auto"))


def test_what_a_killed_start_left_is_no_obstacle(tmp_path) -> None:
    (tmp_path / ".config.abcdefgh.json").write_text("{")
    assert begin(tmp_path) is False
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}


def test_a_folder_of_something_else_is_refused_and_left_as_it_was(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="no run to resume"), run_in(tmp_path / "new").held():
        run_in(tmp_path / "new").settings(CONFIG, CONFIG, resume=True)
    assert not (tmp_path / "new").exists()


def test_a_second_run_is_told_who_is_first_until_that_is_killed(tmp_path) -> None:
    first = forked(hold, tmp_path / "run")
    while not (tmp_path / "run" / "config.json").exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match=rf"process {first} on .* is at work in it"):
        begin(tmp_path / "run")
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert begin(tmp_path / "run") is True


def test_resume_alone_means_yes() -> None:
    assert _resume_alone(["a", "--resume", "b"]) == ["a", "--resume", "yes", "b"]
    assert _resume_alone(["a", "--resume"]) == ["a", "--resume", "yes"]
    assert _resume_alone(["--resume", "auto", "x=1"]) == ["--resume", "auto", "x=1"]


# Signals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_step_saves_after_it(tmp_path, number) -> None:
    def stop(step, micro):
        if step == 4:
            os.kill(os.getpid(), number)
        return batches()(step, micro)

    before = signal.getsignal(number)
    result = train(network(), weak, stop, CONFIG, folder=tmp_path / "parts")
    assert (result.finished, result.steps) == (False, 5)
    assert signal.getsignal(number) is before
    parts, whole = network(), network()
    train(parts, weak, batches(), CONFIG, folder=tmp_path / "parts", resume=True)
    train(whole, weak, batches(), CONFIG, folder=tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(parts), weights(whole), strict=True))


def test_an_interruption_in_the_middle_of_an_update_saves_no_half_of_it(tmp_path, monkeypatch) -> None:
    config = dataclasses.replace(CONFIG, save_every=0.0)
    move, calls = torch.optim.AdamW.step, []

    def interrupted(self, *args, **kwargs):
        move(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt  # a second Ctrl-C

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    assert not train(network(), weak, batches(), config, folder=tmp_path).finished
    assert load_newest_state(tmp_path / "training").step == 3


# Steps that are not finite -------------------------------------------------------------------------------------------


def spoiled_at(*steps: int):
    """The weak objective, NaN at some steps of eight."""

    def spoiled(prediction, labels, progress) -> Loss:
        loss = weak(prediction, labels, progress)
        bad = round(8 * progress) in steps
        return dataclasses.replace(loss, total=loss.total * (math.nan if bad else 1.0))

    return spoiled


def test_a_bad_step_changes_nothing_and_the_next_one_is_as_ever(tmp_path, caplog) -> None:
    model = network()
    config = dataclasses.replace(CONFIG, bad_steps=2, ema=0.5)
    result = train(model, spoiled_at(2, 3, 6), batches(), config, folder=tmp_path)
    assert (result.finished, result.steps) == (True, 8)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert caplog.text.count("passed over") == 3
    moved = load_newest_state(tmp_path / "training").optimizer["state"][0]["step"]
    assert float(moved) == 5  # of the eight
    norms = [row["grad_norm"] for row in read_metrics(tmp_path / "metrics.jsonl") if "grad_norm" in row]
    assert [math.isfinite(norm) for norm in norms] == [step not in (2, 3, 6) for step in range(8)]


def test_too_many_in_a_row_are_an_error(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, bad_steps=2)
    with pytest.raises(TrainingStopped, match=r"not finite at step 5 .* for the 3. time in a row"):
        train(network(), spoiled_at(1, 3, 4, 5), batches(), config, folder=tmp_path)


# Checkpoints ---------------------------------------------------------------------------------------------------------


def state(step: int) -> TrainingState:
    weight = torch.full((3, 5), float(step))
    optimizer = {"state": {0: {"exp_avg": weight}}, "param_groups": []}
    return TrainingState(step=step, elapsed=1.0, model={"weight": weight}, optimizer=optimizer)


def write_until(folder: Path, count: int) -> None:
    """Checkpoints of steps 3 and 4 and better weights, dead at the rename or removal number ``count``."""
    calls = iter(range(1000))

    def dying(function):
        def called(*args, **kwargs):
            if next(calls) == count:
                os._exit(9)
            return function(*args, **kwargs)

        return called

    os.replace, os.unlink, os.rmdir = dying(os.replace), dying(os.unlink), dying(os.rmdir)
    save_state(folder, state(3))
    (folder / "00000003" / "state.pt").write_bytes(b"damaged")
    save_state(folder, state(3))
    save_best(folder, torch.nn.Linear(2, 2), {"step": 3.0})
    save_state(folder, state(4))


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path) -> None:
    died, count = True, 0
    while died:
        folder = tmp_path / str(count)
        save_state(folder, state(1))
        save_state(folder, state(2))
        save_best(folder, torch.nn.Linear(2, 2), {"step": 1.0})
        died = os.waitstatus_to_exitcode(os.waitpid(forked(write_until, folder, count), 0)[1]) == 9
        recover(folder)
        found = load_newest_state(folder)
        assert found.step >= 2
        assert torch.equal(found.model["weight"], state(found.step).model["weight"])
        assert best_record(folder)["step"] in (1.0, 3.0)
        assert not list(folder.glob(".*"))
        count += 1
    assert found.step == 4
    assert best_record(folder)["step"] == 3.0
    assert count > 8


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path) -> None:
    writer, asked = StateWriter(tmp_path), state(7)
    writer.write(asked)
    asked.model["weight"].zero_()
    asked.optimizer["state"][0]["exp_avg"].zero_()
    writer.wait()
    found = load_newest_state(tmp_path)
    assert (found.model["weight"] == 7).all()
    assert (found.optimizer["state"][0]["exp_avg"] == 7).all()


def test_the_best_weights_are_of_the_moment_they_were_best(tmp_path) -> None:
    writer, best = StateWriter(tmp_path), torch.nn.BatchNorm1d(2)
    best.weight.data.fill_(7)
    best.running_mean.fill_(7)
    best.weight.requires_grad_(False)
    writer.write_best(best, {"step": 3.0})
    writer.write(state(4))  # in the order they came: a checkpoint that knows of an evaluation follows what it found
    with torch.no_grad():
        best.weight.zero_()
        best.running_mean.zero_()
    writer.wait()
    assert best_record(tmp_path) == {"step": 3.0}
    found = load_file(tmp_path / "best" / "model.safetensors")
    assert (found["weight"] == 7).all()
    assert (found["running_mean"] == 7).all()
    assert not owned_network(best).weight.requires_grad


def test_tied_weights_stay_one_in_a_copy() -> None:
    tied = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    own = owned_network(tied)
    assert own[1].weight is own[0].weight
    assert own[0].weight.data_ptr() != tied[0].weight.data_ptr()


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path) -> None:
    write_json(tmp_path / "file", {})
    writer = StateWriter(tmp_path / "file")
    for begin in (lambda: writer.write(state(1)), lambda: writer.write_best(torch.nn.Linear(2, 2), {"step": 1.0})):
        begin()
        with pytest.raises(UserError, match="cannot be written"):
            writer.wait()


# The meter -----------------------------------------------------------------------------------------------------------


def test_the_log_says_how_fast_and_how_large(tmp_path) -> None:
    train(network(), weak, batches(), dataclasses.replace(CONFIG, steps=2), folder=tmp_path)
    row = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert row["images_per_s"] > 0
    assert 0 <= row["waiting_for_data"] < 1
    assert 0.05 < row["memory_gb"] < 100
    assert row["grad_norm"] > 0
    assert "mfu" not in row  # the peak of a CPU is not known


def test_the_work_of_a_step_is_counted_without_doing_it() -> None:
    model = network().train()
    views, _ = batches()(0)
    with FlopCounterMode(display=False) as counter:
        prediction = model(views)
        (prediction.depth.sum() + prediction.conf.sum() + prediction.world_from_cam.sum()).backward()
    counted = StepFlops(model).of(views)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert counted > 1e6
