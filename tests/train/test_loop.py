import dataclasses
import json
import math
import multiprocessing
import signal
import time
from pathlib import Path

import pytest
import torch

from builders import network
from reliev3r.core.device import CPU_BF16, resolve_precision
from reliev3r.core.errors import TrainingStopped, UserError
from reliev3r.core.types import DepthLabels, Loss, PseudoLabels, Tracks, Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.training.batches import BatchConfig, CaptureBatches
from reliev3r.training.checkpoint import load_newest_state
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.monitor import read_metrics


def capture(views: int = 4, tracks: int = 40) -> tuple[Views, PseudoLabels]:
    g = torch.Generator().manual_seed(0)
    depth = 1 + torch.rand(views, 8, 12, generator=g)
    uv = torch.rand(views, tracks, 2, generator=g) * torch.tensor([12, 8])
    seen = (torch.rand(views, tracks, generator=g) > 0.4).float()
    labels = PseudoLabels(
        depth=DepthLabels(depth=depth, valid=torch.ones_like(depth, dtype=torch.bool)),
        tracks=Tracks(uv=uv, weight=seen),
    )
    return Views(image=torch.rand(views, 3, 8, 12, generator=g), K=K_from_fov(1.0, 8, 12).expand(views, 3, 3)), labels


def batches() -> CaptureBatches:
    return CaptureBatches(*capture(), BatchConfig(views=3, tracks=16))


def weak(prediction, labels, progress) -> Loss:
    return objective(prediction, labels, ObjectiveConfig(), teacher=1 - progress)


def weights(model) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, ema) -> None:
    config = TrainConfig(steps=12, seed=3, precision="fp32", ema=ema)
    whole = network()
    train(whole, weak, batches(), config, folder=tmp_path / "whole")

    def interrupted(step, micro):
        if step == 7:
            raise KeyboardInterrupt
        return batches()(step, micro)

    first = network()
    result = train(first, weak, interrupted, config, folder=tmp_path / "parts")
    assert (result.finished, result.steps) == (False, 7)
    second = network()
    result = train(second, weak, batches(), config, folder=tmp_path / "parts", resume=True)
    assert (result.finished, result.steps) == (True, 12)
    for a, b in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(a, b)


def test_loss_falls_and_metrics_are_kept(tmp_path) -> None:
    config = TrainConfig(steps=60, lr=3e-3, precision="fp32", log_every=1, evaluate_every=0.25)
    seen = []
    train(
        network(), weak, batches(), config, folder=tmp_path, evaluate=lambda model: {"heldout_deg": 1.5},
        progress=lambda done, total, what: seen.append((done, total)),
    )  # fmt: skip
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 61))
    losses = [row["loss"] for row in rows]
    assert sum(losses[-5:]) < sum(losses[:5]) - 1
    assert sum("heldout_deg" in row for row in read_metrics(tmp_path / "metrics.jsonl")) in (4, 5)
    assert seen[-1] == (60, 60)
    rates = [row["lr"] for row in rows]
    assert max(rates) == pytest.approx(3e-3, rel=0.01)
    assert rates[-1] < 0.05 * max(rates)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_metrics_after_the_checkpoint_are_not_kept_twice(tmp_path) -> None:
    config = TrainConfig(steps=6, log_every=1, precision="fp32")
    train(network(), weak, batches(), dataclasses.replace(config, steps=4), folder=tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')  # a kill in the middle of a line
    train(network(), weak, batches(), config, folder=tmp_path, resume=True)
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_losses_that_are_not_finite_stop_a_run_before_the_step(tmp_path) -> None:
    model = network()
    before = {}

    def spoiled(prediction, labels, progress) -> Loss:
        loss = weak(prediction, labels, progress)
        if progress > 0.4:
            before["weights"] = weights(model)
            return dataclasses.replace(loss, total=loss.total * math.nan)
        return loss

    with pytest.raises(TrainingStopped, match=r"not finite at step 5 .*lower lr"):
        train(model, spoiled, batches(), TrainConfig(steps=10, precision="fp32", bad_steps=0), folder=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before["weights"], strict=True))


def test_the_clock_ends_a_run(tmp_path) -> None:
    config = TrainConfig(minutes=0.01, precision="fp32")
    started = time.monotonic()
    result = train(network(), weak, batches(), config, folder=tmp_path)
    assert result.steps >= 1
    assert 0.5 < result.seconds <= time.monotonic() - started
    assert load_newest_state(tmp_path / "training").step == result.steps


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, caplog) -> None:
    config = TrainConfig(steps=3, precision="fp32")
    train(network(), weak, batches(), config, folder=tmp_path)
    train(network(), weak, batches(), dataclasses.replace(config, steps=5), folder=tmp_path, resume=True)
    newest = tmp_path / "training" / "00000005"
    data = (newest / "model.safetensors").read_bytes()
    (newest / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert load_newest_state(tmp_path / "training").step == 3
    assert "00000005" in caplog.text
    (tmp_path / "training" / "00000003" / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="no checkpoint in it can be read"):
        load_newest_state(tmp_path / "training")


def train_slowly(folder: Path, steps: int = 30) -> None:
    """Begin a run or go on with it, slowly enough to be killed within: the target of processes."""
    torch.set_num_threads(1)
    model = network()

    def slow(step, micro):
        time.sleep(0.05)
        return batches()(step, micro)

    config = TrainConfig(steps=steps, precision="fp32", save_every=0.1)
    train(model, weak, slow, config, folder=folder, resume=True)
    torch.save(weights(model), folder / "final.pt")


def in_a_process(target, *arguments):
    """A started process of its own; all of them share one import of torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_loop"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def test_kill_9_in_the_middle_then_resume(tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = in_a_process(train_slowly, parts)
    while process.is_alive() and not list((parts / "training").glob("0*")):
        time.sleep(0.02)
    time.sleep(0.4)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (parts / "final.pt").exists()
    process = in_a_process(train_slowly, parts)
    process.join()
    assert process.exitcode == 0
    train_slowly(whole)
    a, b = (torch.load(folder / "final.pt", weights_only=True) for folder in (whole, parts))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    rows = [json.loads(line) for line in (parts / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))


def test_batches_are_a_function_of_the_step() -> None:
    a, b = batches(), batches()
    for step in (0, 5):
        (va, la), (vb, lb) = a(step), b(step)
        assert torch.equal(va.image, vb.image)
        assert torch.equal(la.tracks.uv, lb.tracks.uv)
        assert va.image.shape == (1, 3, 3, 8, 12)
        assert la.tracks.weight.shape == (1, 3, 16)
    assert not torch.equal(a(0)[1].tracks.uv, a(1)[1].tracks.uv)


def test_rarely_tied_views_are_heard() -> None:
    # 200 tracks tie views 0 and 1, five tie 1 and 2: drawn by share, view 2 would get 5 in 205
    weight = torch.zeros(3, 205)
    weight[:2, :200] = 1
    weight[1:, 200:] = 1
    views, labels = capture(3, 205)
    labels = dataclasses.replace(labels, tracks=Tracks(uv=labels.tracks.uv, weight=weight))
    source = CaptureBatches(views, labels, BatchConfig(tracks=20))
    drawn = torch.stack([source(step)[1].tracks.weight[0, 2].sum() for step in range(50)]).mean()
    assert drawn > 2


def test_walks_follow_the_track_graph() -> None:
    # a chain of eight views: a walk of three is a stretch of the chain
    weight = torch.zeros(8, 70)
    for i in range(7):
        weight[i : i + 2, 10 * i : 10 * i + 10] = 1
    views, labels = capture(8, 70)
    labels = dataclasses.replace(labels, tracks=Tracks(uv=labels.tracks.uv, weight=weight))
    source = CaptureBatches(views, labels, BatchConfig(views=3))
    for step in range(20):
        index = sorted(source._walk(torch.Generator().manual_seed(step)).tolist())
        assert index[2] - index[0] == 2


def test_precision_is_what_the_device_is_good_at() -> None:
    assert resolve_precision("fp32", torch.device("cpu")) == "no"
    assert resolve_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("amx_tile amx_bf16 avx512_bf16", "bf16"), ("avx512f avx512_bf16", "no"), ("sse2", "no"), (None, "no")],
)
def test_a_cpu_takes_bf16_only_with_amx(monkeypatch, flags: str | None, expected: str) -> None:
    def cpuinfo(self: Path, encoding: str) -> str:
        assert str(self) == "/proc/cpuinfo"
        if flags is None:  # not Linux
            raise FileNotFoundError(self)
        return f"flags : {flags}"

    monkeypatch.delenv(CPU_BF16, raising=False)
    monkeypatch.setattr(Path, "read_text", cpuinfo)
    assert resolve_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("told", "expected"), [("yes", "bf16"), ("no", "no")])
def test_the_environment_answers_for_the_cpu(monkeypatch, told: str, expected: str) -> None:
    monkeypatch.setenv(CPU_BF16, told)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    monkeypatch.setenv(CPU_BF16, "perhaps")
    with pytest.raises(UserError, match="give yes or no"):
        resolve_precision("auto", torch.device("cpu"))


def test_bf16_runs(tmp_path) -> None:
    result = train(network(), weak, batches(), TrainConfig(steps=2, precision="bf16"), folder=tmp_path)
    assert result.finished


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        TrainConfig(steps=0)
    with pytest.raises(ValueError, match="minutes"):
        TrainConfig(minutes=0.0)
