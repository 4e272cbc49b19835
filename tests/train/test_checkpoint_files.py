"""Checkpoints on disk: damage is found and named, the best weights are kept, and a killed run loses nothing."""

import dataclasses
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from test_loop import batches, in_a_process, network, train_slowly, weak, weights

from reliev3r.core.errors import TrainingStopped, UserError
from reliev3r.model.load import load_network
from reliev3r.training.checkpoint import TrainingState, best_record, check_files, load_newest_state, save_state
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.monitor import Alarms, read_metrics, signs_of_collapse

CONFIG = TrainConfig(steps=6, precision="fp32", log_every=1)


@pytest.fixture
def two_checkpoints(tmp_path) -> Path:
    """``training/`` with checkpoints of steps 2 and 4."""
    for step in (2, 4):
        weight = torch.full((3, 5), float(step))
        optimizer = {"state": {0: {"exp_avg": weight}}, "param_groups": []}
        save_state(tmp_path, TrainingState(step=step, elapsed=1.0, model={"weight": weight}, optimizer=optimizer))
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    """One bit, in the middle: the file still opens."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_damaged_file_is_refused_by_name_and_the_checkpoint_before_it_used(
    two_checkpoints, name, damage, caplog
) -> None:
    damage(two_checkpoints / "00000004" / name)
    with pytest.raises(UserError, match=rf"00000004/{name}: (truncated or changed|missing)"):
        check_files(two_checkpoints / "00000004")
    assert load_newest_state(two_checkpoints).step == 2
    assert f"00000004/{name}" in caplog.text
    damage(two_checkpoints / "00000002" / name)
    with pytest.raises(UserError, match="no checkpoint in it can be read"):
        load_newest_state(two_checkpoints)


def test_the_best_weights_are_kept_and_not_the_last(tmp_path) -> None:
    seen: list[list[torch.Tensor]] = []
    values = iter([3.0, 1.0, float("nan"), 2.0, 4.0, 5.0])

    def evaluate(model):
        seen.append(weights(model))
        return {"heldout_deg": next(values), "loss": -1.0}

    config = dataclasses.replace(CONFIG, evaluate_every=0.16, ema=0.5)
    result = train(network(), weak, batches(), config, folder=tmp_path, evaluate=evaluate)
    assert result.best == {"step": 2.0, "heldout_deg": 1.0, "loss": -1.0} == best_record(tmp_path / "training")
    best = load_network(tmp_path / "training" / "best")
    assert all(torch.equal(a, b) for a, b in zip(weights(best), seen[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(best), seen[-1], strict=True))

    worse = dataclasses.replace(config, steps=8)  # goes on; what was best stays so
    train(network(), weak, batches(), worse, folder=tmp_path, evaluate=lambda m: {"heldout_deg": 1.5}, resume=True)
    assert best_record(tmp_path / "training")["step"] == 2
    truncate(tmp_path / "training" / "best" / "model.safetensors")
    with pytest.raises(UserError, match=r"best/model.safetensors: truncated"):
        best_record(tmp_path / "training")


def test_evaluations_and_random_numbers_go_on_where_they_were(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, steps=9, evaluate_every=0.4)

    def noisy(prediction, labels, progress):  # an objective that draws from torch's own generator
        loss = weak(prediction, labels, progress)
        return dataclasses.replace(loss, total=loss.total * (1 + torch.rand(())))

    def stopping(step, micro):
        if step == 5:
            raise KeyboardInterrupt
        return batches()(step, micro)

    def run(folder, source, resume=False):
        model = network()
        if resume:
            torch.manual_seed(99)
        train(model, noisy, source, config, folder=folder, resume=resume, evaluate=lambda m: {"heldout_deg": 1.0})
        return weights(model)

    whole = run(tmp_path / "whole", batches())
    run(tmp_path / "parts", stopping)
    parts = run(tmp_path / "parts", batches(), resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    steps = [
        [row["step"] for row in read_metrics(tmp_path / name / "metrics.jsonl") if "heldout_deg" in row]
        for name in ("whole", "parts")
    ]
    assert steps[0] == steps[1]


def test_accumulated_batches_equal_one_of_all(tmp_path) -> None:
    first, second = batches()(0, 0), batches()(0, 1)

    def together(prediction, labels, progress):
        """The mean of the samples' losses: what two batches of one sample add up to."""
        losses = [weak(prediction.map(lambda x, i=i: x[i : i + 1]), labels.map(lambda x, i=i: x[i : i + 1]), 0.5)
                  for i in range(len(prediction.depth))]  # fmt: skip
        return dataclasses.replace(losses[0], total=sum(loss.total for loss in losses) / len(losses))

    def joined(a, b):
        pairs = iter([])
        values: list[torch.Tensor] = []
        b.map(lambda x: values.append(x) or x)
        pairs = iter(values)
        return a.map(lambda x: torch.cat([x, next(pairs)]))

    both = (joined(first[0], second[0]), joined(first[1], second[1]))
    config = dataclasses.replace(CONFIG, steps=3, clip=1e9)
    one, two = network(), network()
    train(one, together, lambda step, micro: both, config, folder=tmp_path / "one")
    source = lambda step, micro: (first, second)[micro]  # noqa: E731
    train(two, together, source, dataclasses.replace(config, accumulate=2), folder=tmp_path / "two")
    for (name, a), (_, b) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        if name not in ("camera_head.fc_t.bias",) and "qkv.bias" not in name:  # no gradient but noise, see docs
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_encoder_has_its_own_learning_rate(tmp_path) -> None:
    still = network()
    before = {name: value.clone() for name, value in still.state_dict().items()}
    train(still, weak, batches(), dataclasses.replace(CONFIG, steps=2, encoder_lr=0.0), folder=tmp_path)
    moved = {name for name, value in still.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith("encoder.") for name in moved)


@pytest.mark.parametrize("recompute", ["cheap", "most"])
def test_recomputed_activations_change_nothing(tmp_path, recompute) -> None:
    models = {"none": network(), recompute: network()}
    for how, model in models.items():
        train(model, weak, batches(), dataclasses.replace(CONFIG, steps=2, recompute=how), folder=tmp_path / how)
    for a, b in zip(*(weights(model) for model in models.values()), strict=True):
        assert torch.equal(a, b)


def test_the_alarm_stops_a_run_that_stays_collapsed(tmp_path) -> None:
    def collapsed():
        model = network()
        for layer in (model.camera_head.fc_t, model.camera_head.fc_rot):
            torch.nn.init.zeros_(layer.weight)
        return model

    config = dataclasses.replace(CONFIG, steps=30, lr=1e-9, warmup=0.1, alarm_checks=4)
    with pytest.raises(TrainingStopped, match=r"stopped at step 7: .*(same direction|one point).*alarm_checks=0"):
        train(collapsed(), weak, batches(), config, folder=tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["tracks_deg"] > 2
    assert rows[-1]["rotation_spread_deg"] < 0.5
    off = dataclasses.replace(config, steps=8, alarm_checks=0)
    assert train(collapsed(), weak, batches(), off, folder=tmp_path / "off").finished


FINE = {
    "baseline_to_depth": 0.3,
    "rotation_spread_deg": 9.0,
    "conf_at_zero": 0.0,
    "conf_at_two": 0.2,
    "tracks_deg": 5.0,
}


@pytest.mark.parametrize(
    ("sign", "advice"),
    [
        ({"baseline_to_depth": 0.001}, "one point"),
        ({"rotation_spread_deg": 0.1}, "same direction"),
        ({"conf_at_zero": 1.0}, "raise alpha"),
        ({"conf_at_two": 1.0}, "lower alpha"),
    ],
)
def test_a_sign_must_hold_and_the_tracks_must_disagree(sign, advice) -> None:
    alarms = Alarms(3)
    heard = [alarms.advice({**FINE, **now}) for now in (sign, sign, {}, sign, sign)]
    assert heard == [None] * 5
    assert advice in alarms.advice({**FINE, **sign})
    agreeing = {**FINE, **sign, "tracks_deg": 0.4}  # a camera that slides or turns on the spot, a perfect expert
    alone = Alarms(1).advice(agreeing)
    assert (alone is None) == ("conf_at_zero" not in sign)


def test_signs_are_read_off_the_prediction() -> None:
    views, labels = batches()(0)
    with torch.no_grad():
        prediction = network()(views)
    signs = signs_of_collapse(prediction, labels.tracks)
    centres = prediction.world_from_cam[0, :, :3, 3]
    distances = torch.cdist(centres, centres)[[0, 0, 1], [1, 2, 2]]
    assert signs["baseline_to_depth"] == pytest.approx(float(distances.median() / prediction.depth.median()), rel=1e-3)
    assert set(signs) == set(FINE)
    bound = dataclasses.replace(prediction, conf=torch.full_like(prediction.conf, 0.0361))
    assert signs_of_collapse(bound, labels.tracks)["conf_at_zero"] == 1


def test_weights_and_biases_get_the_rows(tmp_path, monkeypatch) -> None:
    started, rows, ended = [], [], []

    class Fake:
        def init(self, **settings):
            started.append(settings)
            return self

        def log(self, values, step):
            rows.append((step, values))

        def finish(self):
            ended.append(True)

    monkeypatch.setitem(sys.modules, "wandb", Fake())
    for steps in (2, 3):
        config = dataclasses.replace(CONFIG, steps=steps, wandb="rooms")
        train(network(), weak, batches(), config, folder=tmp_path, resume=steps == 3)
    assert [step for step, _ in rows] == [1, 2, 3]
    assert "loss" in rows[0][1]
    assert len(ended) == 2
    assert started[0]["project"] == "rooms"
    assert started[0]["id"] == started[1]["id"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb, or drop --wandb"):
        train(network(), weak, batches(), config, folder=tmp_path / "without")


@pytest.mark.slow
def test_kill_9_at_five_random_moments_then_resume(tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    draw = random.Random(0)
    for _ in range(5):
        before = sorted((parts / "training").glob("0*"))
        process = in_a_process(train_slowly, parts, 60)
        while sorted((parts / "training").glob("0*")) == before and process.is_alive():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (parts / "final.pt").exists()
    train_slowly(parts, 60)
    train_slowly(whole, 60)
    a, b = (torch.load(folder / "final.pt", weights_only=True) for folder in (whole, parts))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
