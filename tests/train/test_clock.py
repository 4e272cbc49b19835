"""A run whose budget is time is brought to its end: the schedule is gone through quickly, also over an interruption."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_loop import batches, weak, weights

from builders import network
from reliev3r.training import clock
from reliev3r.training.checkpoint import _is_ending, load_newest_state
from reliev3r.training.clock import Clock, Ending
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.monitor import read_metrics
from reliev3r.training.schedule import learning_rate


@pytest.fixture
def seconds(monkeypatch) -> SimpleNamespace:
    """A clock that goes as the test says."""
    now = SimpleNamespace(now=0.0)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now.now))
    return now


def test_the_rest_of_the_schedule_takes_a_third_of_the_time_so_far(seconds) -> None:
    run = Clock(TrainConfig(minutes=1))
    run.elapsed = 30.0
    assert run.may_end
    assert run.progress == 0.5
    run.end()
    assert (run.progress, run.position, run.may_end) == (0.5, (30.0, 40.0), False)
    run.elapsed = 35.0
    assert run.progress == pytest.approx(0.75)
    run.elapsed = 40.1
    assert run.progress == 1.0


def test_no_end_where_the_budget_is_nearer_or_is_steps(seconds) -> None:
    run = Clock(TrainConfig(minutes=1))
    run.elapsed = 46.0
    assert not run.may_end
    run = Clock(TrainConfig(steps=100, minutes=1))
    run.done, run.elapsed = 50, 10.0
    assert not run.may_end
    assert run.progress == 0.5


def second_steps(seconds, stop_at: int = -1):
    """Every step takes a second."""
    made = batches()

    def timed(step, micro):
        if step == stop_at:
            raise KeyboardInterrupt
        seconds.now += 1.0
        return made(step, micro)

    return timed


def test_a_run_that_is_brought_to_its_end_and_interrupted_ends_as_if_it_had_not_been(seconds, tmp_path) -> None:
    config = TrainConfig(minutes=1, precision="fp32", log_every=1)
    told = {"evaluate": lambda network: {"heldout_deg": 1.0}, "enough": lambda rows: rows[-1]["seconds"] >= 12}
    whole = network()
    result = train(whole, weak, second_steps(seconds), config, folder=tmp_path / "whole", **told)
    assert result.ending == Ending(seconds=12.0, progress=0.2)
    assert (result.steps, result.finished) == (16, True)
    rates = [row["lr"] for row in read_metrics(tmp_path / "whole" / "metrics.jsonl") if "lr" in row]
    assert rates[11] == pytest.approx(learning_rate(11 / 60, config))
    assert rates[-1] == pytest.approx(learning_rate(0.8, config))  # cooled down

    seconds.now = 0.0
    train(network(), weak, second_steps(seconds, stop_at=14), config, folder=tmp_path / "parts", **told)
    state = load_newest_state(tmp_path / "parts" / "training")
    assert state is not None
    assert state.ending == {"seconds": 12.0, "progress": 0.2}
    seconds.now = 500.0
    resumed = network()
    again = train(resumed, weak, second_steps(seconds), config, folder=tmp_path / "parts", resume=True, **told)
    assert (again.steps, again.ending) == (16, result.ending)
    for a, b in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(a, b)


def test_one_that_is_interrupted_before_hears_of_the_evaluations_before(seconds, tmp_path) -> None:
    config = TrainConfig(minutes=0.5, precision="fp32")
    heard = []

    def enough(rows) -> bool:
        heard.append([row["seconds"] for row in rows])
        return False

    told = {"evaluate": lambda network: {"heldout_deg": 1.0}, "enough": enough}
    train(network(), weak, second_steps(seconds, stop_at=10), config, folder=tmp_path, **told)
    train(network(), weak, second_steps(seconds), config, folder=tmp_path, resume=True, **told)
    assert heard[-1] == sorted(set(heard[-1]))
    assert heard[-1][0] == 1.0
    assert len(heard[-1]) > 10  # many, so that noise can be told from a level stretch


def test_steps_are_kept_to(seconds, tmp_path) -> None:
    config = TrainConfig(steps=9, precision="fp32")
    told = {"evaluate": lambda network: {"heldout_deg": 1.0}, "enough": lambda rows: True}
    result = train(network(), weak, second_steps(seconds), config, folder=tmp_path, **told)
    assert (result.steps, result.ending) == (9, None)


@pytest.mark.parametrize(
    "ending", [{"seconds": 1.0}, {"seconds": -1.0, "progress": 0.2}, {"seconds": 1.0, "progress": math.nan}]
)
def test_an_ending_that_cannot_be_is_refused(ending) -> None:
    assert not _is_ending(ending)
    assert _is_ending({"seconds": 1.0, "progress": 0.5})
