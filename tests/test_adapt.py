"""Adapting a tiny network to a rendered capture: labels, training, hand-over by verdict, resume, memory, bad input."""

import copy
import dataclasses
import json
import math
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import builders
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash
from reliev3r.core.progress import silent
from reliev3r.core.types import Loss, Prediction, Tracks, Views
from reliev3r.data.capture import load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.model.load import load_network, weights_hash
from reliev3r.model.lora import LoraConfig
from reliev3r.model.network import PRESETS, NetworkConfig, Reliev3R
from reliev3r.model.weights.pi3 import export_pi3
from reliev3r.runs.adapt import run
from reliev3r.runs.adapt import run as judging
from reliev3r.runs.adapt.footage import prepared
from reliev3r.runs.adapt.network import in_unit
from reliev3r.runs.adapt.run import adapt
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.view.adaptation import AFTER, ASIDE, BEFORE
from reliev3r.runs.view.scene import open_shown
from reliev3r.training.batches import SceneBatchConfig
from reliev3r.training.captures import labelled_capture
from reliev3r.training.config import TrainConfig
from reliev3r.training.forecast import estimate_training
from reliev3r.training.loop import TrainResult, train
from reliev3r.verdict.rule import Verdict


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    return builders.capture(tmp_path_factory.mktemp("data") / "capture", views=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    Reliev3R(dataclasses.replace(PRESETS["tiny"], fov="shared")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labels(footage, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("labels") / "store"
    assert main(["label", str(footage), "--out", str(out), "--depth", "simulated", "--no-judge"]) == 0
    return str(out)


def config(labels: str, **changes) -> AdaptConfig:
    values = {
        "labels": labels, "depth": "simulated", "steps": 6, "precision": "fp32",
        "prepare": PrepareConfig(image_size=48),
        "heldout_every": 4, "batch": SceneBatchConfig(views=(3, 4), images=4), "lora": LoraConfig(rank=2), **changes,
    }  # fmt: skip
    return AdaptConfig(**values)


def always(monkeypatch, verdict: str) -> None:
    monkeypatch.setattr(judging, "judge", lambda *args: Verdict(verdict=verdict, reasons=("by the test",)))
    monkeypatch.setattr(judging, "evidence", lambda *args, **kwargs: [])
    monkeypatch.setattr(judging, "write_verdict_page", lambda *args: None)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_fresh_network_becomes_better_and_says_what_it_needed(footage, base, tmp_path, capsys, caplog) -> None:
    before = file_hash(base / "model.safetensors")
    arguments = [
        "adapt", "--model", str(base), str(footage), "--out", str(tmp_path / "run"), "--depth", "simulated",
        "--train", "all", "--lr", "2e-3", "--steps", "40", "--precision", "fp32", "--image-size", "48",
        "--heldout-every", "4", "batch.views=4,6", "batch.images=6",
    ]  # fmt: skip
    with caplog.at_level("INFO", logger="reliev3r"):
        assert main(arguments) == 0
    assert "trains 3," in caplog.text
    assert "better:" in capsys.readouterr().out
    assert file_hash(base / "model.safetensors") == before
    assert load_network(tmp_path / "run" / "checkpoint").image_size == 48  # not the size of the network it came from
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert "`reliev3r adapt`, from frames alone" in card
    assert "better: " in card
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert not (tmp_path / "run" / "rejected").exists()
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["verdict"] == "better"
    angle = next(figure for figure in verdict["figures"] if figure["name"] == "angle")
    assert angle["after"] < 0.7 * angle["before"]
    assert (tmp_path / "run" / "labels" / "manifest.json").is_file()


@pytest.mark.parametrize(("verdict", "code"), [("worse", 4), ("no change", 0), ("better", 0)])
def test_what_is_not_better_is_kept_aside(footage, base, labels, tmp_path, monkeypatch, capsys, verdict, code) -> None:
    always(monkeypatch, verdict)
    before = file_hash(base / "model.safetensors")
    out = tmp_path / "run"
    arguments = [
        "adapt", "--model", str(base), str(footage), "--out", str(out), "--labels", labels, "--steps", "2",
        "--depth", "simulated", "--precision", "fp32", "--image-size", "48", "--heldout-every", "4", "batch.views=3,4",
    ]  # fmt: skip
    assert main(arguments) == code
    assert ("kept aside" in capsys.readouterr().out) == (verdict != "better")
    place = out if verdict == "better" else out / "rejected"
    load_network(place / "checkpoint")
    assert (place / "adapter" / "adapter_model.safetensors").is_file()
    assert (out / "checkpoint").exists() == (verdict == "better")
    assert file_hash(base / "model.safetensors") == before
    seen = open_shown(out)
    assert list(seen.versions) == [BEFORE, AFTER if verdict == "better" else ASIDE]
    first, second = (each.prediction for each in seen.versions.values())
    centres = [each.world_from_cam[:, :3, 3] for each in (first, second)]
    assert (centres[0] - centres[1]).norm(dim=-1).mean() < 0.1 * first.depth.mean()  # in one frame and unit
    with pytest.raises(UserError, match="did not adapt to it; --capture takes one of"):
        open_shown(out, tmp_path)


def test_weights_of_pi3_come_back_in_its_layout(footage, labels, tmp_path, monkeypatch) -> None:
    """A file in pi^3's layout (small, random) -> LoRA -> merged -> a file in that layout: attention alone differs."""
    always(monkeypatch, "better")
    torch.manual_seed(0)
    small = NetworkConfig(
        dim=32, heads=2, encoder_depth=1, decoder_depth=4, patch_size=8, encoder_grid=4, head_dim=64, head_heads=4,
        head_depth=2, camera_dim=16, shape="point",
    )  # fmt: skip
    export_pi3(Reliev3R(small), tmp_path / "pi3.safetensors")
    before = file_hash(tmp_path / "pi3.safetensors")
    model, out = f"pi3:{tmp_path / 'pi3.safetensors'}", tmp_path / "run"
    result = adapt(model, footage, out, config(labels, lr=1e-3))
    assert result is not None
    assert result.verdict.verdict == "better"
    assert file_hash(tmp_path / "pi3.safetensors") == before
    back = tmp_path / "back.safetensors"
    assert (
        main(["export-weights", "--model", str(out / "checkpoint"), "--out", str(back), "--confidence-of", model[4:]])
        == 0
    )
    old, new = load_file(tmp_path / "pi3.safetensors"), load_file(back)
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.split(".")[-2] for name in changed} == {"qkv", "proj"}
    assert {name.split(".")[0] for name in changed} >= {"encoder", "decoder", "point_decoder", "camera_decoder"}
    with torch.no_grad():
        seen = Views(image=torch.rand(1, 2, 3, 48, 64))
        moved = load_network(out / "checkpoint")(seen).depth - load_network(model)(seen).depth
    assert moved.abs().max() > 1e-5


def test_ctrl_c_then_resume_equals_the_uninterrupted_run(footage, base, labels, tmp_path, monkeypatch) -> None:
    always(monkeypatch, "better")
    settings = config(labels, ema=0.5)
    adapt(str(base), footage, tmp_path / "whole", settings)

    def interrupt(stage: str, done: float, total: float, what: str) -> None:
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    assert adapt(str(base), footage, tmp_path / "parts", settings, report=interrupt) is None
    saved = load_file(next((tmp_path / "parts" / "training").glob("0*")) / "model.safetensors")
    assert not any("base_layer" in name for name in saved)  # frozen weights are in the base's file
    resumed = adapt(str(base), footage, tmp_path / "parts", settings, resume=True)
    assert resumed is not None
    assert resumed.training.steps == 6
    a, b = weights(tmp_path / "whole" / "checkpoint"), weights(tmp_path / "parts" / "checkpoint")
    assert all(torch.equal(a[name], b[name]) for name in a)
    original = weights(base)
    assert {name.split(".")[-2] for name in a if not torch.equal(a[name], original[name])} == {"qkv", "proj"}
    with pytest.raises(UserError, match="this run has footage"):
        adapt(str(base), footage.parent, tmp_path / "parts", settings, resume=True)


def test_a_signal_ends_the_command_with_130_and_the_line_that_goes_on(
    footage, base, labels, tmp_path, monkeypatch, capsys, request
) -> None:
    always(monkeypatch, "worse")
    before = file_hash(base / "model.safetensors")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are born deaf to it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))

    def interrupted(*args: Any, **kwargs: Any) -> TrainResult:
        monkeypatch.setattr(run, "train", train)
        progress = kwargs.pop("progress")

        def ctrl_c(done: float, total: float, what: str) -> None:
            progress(done, total, what)
            signal.raise_signal(signal.SIGINT)

        return train(*args, **kwargs, progress=ctrl_c)

    monkeypatch.setattr(run, "train", interrupted)
    arguments = [
        "adapt", "--model", str(base), str(footage), "--out", str(tmp_path / "run"), "--labels", labels,
        "--depth", "simulated", "--steps", "2", "--precision", "fp32", "--image-size", "48", "--heldout-every", "4",
        "batch.views=3,4",
    ]  # fmt: skip
    assert main(arguments) == 130
    assert f"go on with: reliev3r {shlex.join(arguments)} --resume" in capsys.readouterr().err.replace("\n", "")
    assert not (tmp_path / "run" / "verdict.json").exists()
    assert main([*arguments, "--resume"]) == 4
    assert json.loads((tmp_path / "run" / "verdict.json").read_text())["base_sha256"] == weights_hash(str(base))
    assert file_hash(base / "model.safetensors") == before


def test_views_and_intrinsics_of_the_labels_are_those_of_training(footage, tmp_path) -> None:
    """cameras.json lists 8 frames and another focal length; what was asked for when they were labelled holds."""
    out = tmp_path / "store"
    asked = ["--depth", "simulated", "--no-judge", "--views", "5", "--intrinsics", "fov:62"]
    assert main(["label", str(footage), "--out", str(out), *asked]) == 0
    capture = labelled_capture(CaptureTask(name="store", path=footage, out=out))
    assert len(capture.names) == 5
    focal = 120 / math.tan(math.radians(31))  # 65 degrees are the truth
    assert all(frame.K is not None and abs(frame.K[0, 0] - focal) < 1e-6 for frame in capture.frames)
    views = prepared(f"{footage}={out}", config(str(out)), 12, silent).capture(0).views()
    assert views.K is not None
    assert float(views.K[0, 0, 0] / views.size[1]) == pytest.approx(focal / 240, rel=0.02)


def test_frames_of_a_video_are_those_that_were_labelled(tmp_path) -> None:
    """By default 24 would be taken, and would replace the five."""
    av = pytest.importorskip("av")
    video, out = tmp_path / "moving.mp4", tmp_path / "store"
    texture = torch.randint(256, (48, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 48, 64, "yuv420p", 20_000_000
        for index in range(30):
            picture = texture.roll(2 * index, dims=1).numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    asked = load_capture(video, views=5, cache=out)
    builders.write_manifest(out, asked, K_source=None)
    capture = labelled_capture(CaptureTask(name="store", path=video, out=out))
    assert len(asked.names) == 5
    assert capture.names == asked.names
    assert capture.ordered


def test_held_out_frames_are_in_no_sample(footage, labels) -> None:
    captures = prepared(f"{footage}={labels}", config(labels), 12, silent)
    capture = captures.capture(0)
    assert capture.heldout_views(4) == (2, 6)
    images = {image.sum().item() for image in capture.views([2, 6]).image}
    others = {image.sum().item() for image in capture.views([0, 1, 3, 4, 5, 7]).image}
    seen = set()
    for seed in range(12):
        views, _ = captures.sample(seed, group=0, views=4)
        seen |= {image.sum().item() for image in views.image}
    assert seen == others
    assert not seen & images


def test_memory_is_counted_exactly() -> None:
    network = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    network[0].requires_grad_(False)

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, views: Views) -> Prediction:
            out = self.network(views.image[..., 0, 0, :].mean((-2, -1))[:, None].expand(-1, 10)).sum()
            ones = torch.ones(1, 2, 2, 10)
            return Prediction(depth=ones * out, rays=torch.ones(1, 2, 2, 10, 3), conf=ones,
                              world_from_cam=torch.eye(4).expand(1, 2, 4, 4))  # fmt: skip

    def batches(step: int, micro: int):
        return Views(image=torch.rand(1, 2, 3, 2, 10)), Tracks(uv=torch.zeros(1, 2, 1, 2), weight=torch.zeros(1, 2, 1))

    def loss(prediction: Prediction, labels: Tracks, progress: float) -> Loss:
        return Loss(total=prediction.depth.mean(), parts={})

    model = Wrapped()
    before = copy.deepcopy(model.state_dict())
    found = estimate_training(model, loss, batches, TrainConfig(steps=7, accumulate=3, precision="fp32"))
    assert (found.parameters, found.trained) == (10 * 20 + 20 + 20 * 5 + 5, 20 * 5 + 5)
    assert (found.weights, found.gradients, found.optimizer) == (4 * found.parameters, 4 * 105, 8 * 105)
    assert found.activations >= 4 * 20  # the input of the trained layer
    assert found.activations < 4 * 500
    assert found.total == found.weights + found.gradients + found.optimizer + found.activations
    assert found.seconds == 7 * found.step_seconds
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def prediction(depth: float, shift: float) -> Prediction:
    pose = torch.eye(4).repeat(1, 2, 1, 1)
    pose[0, 1, 0, 3] = shift
    return Prediction(depth=torch.full((1, 2, 4, 4), depth), rays=torch.ones(1, 2, 4, 4, 3),
                      conf=torch.ones(1, 2, 4, 4), world_from_cam=pose)  # fmt: skip


def test_the_networks_own_unit_costs_nothing(labels) -> None:
    scaled = in_unit(prediction(6.0, 3.0), 3.0)
    assert torch.equal(scaled.depth, prediction(2.0, 1.0).depth)
    torch.testing.assert_close(scaled.world_from_cam, prediction(2.0, 1.0).world_from_cam)


def test_bad_input_is_told_before_anything_is_written(footage, base, labels, tmp_path) -> None:
    assert main(["adapt", "--model", str(tmp_path), str(footage), "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="has 0 views to train on"):
        adapt(str(base), footage, tmp_path / "run", config(labels, heldout_every=1))
    with pytest.raises(UserError, match="drop --resume"):
        adapt(str(base), footage, tmp_path / "none", config(labels), resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="--resume the run in it"):
        adapt(str(base), footage, Path(labels), config(labels))
