"""The whole way on a rendered capture of a few small views: fit, resume, reconstruct, export, evaluate, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import builders
from reliev3r.cli import main
from reliev3r.core.device import CPU_BF16
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Truth
from reliev3r.data.capture import load_capture
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.runs.fit import FitConfig, fit
from reliev3r.runs.reconstruct import reconstruct
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.training import clock
from reliev3r.training.batches import CaptureBatches
from reliev3r.training.monitor import read_metrics

SIZE = ["--image-size", "48", "--precision", "fp32"]


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    return builders.capture(tmp_path_factory.mktemp("data") / "capture")


@pytest.fixture(scope="module")
def run(capture, tmp_path_factory) -> Path:
    """Trained so briefly that bundle adjustment has something to mend on any machine."""
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["fit", str(capture), "--out", str(out), "--depth", "simulated", "--steps", "60", "--refine", *SIZE]
    assert main(arguments) == 0
    return out


def test_a_run_learns_and_leaves_everything_behind(run, capture, capsys) -> None:
    for name in (
        "config.json", "checkpoint/model.safetensors", "checkpoint/config.json", "metrics.jsonl", "cameras.json",
        "labels/manifest.json", "scene.ply", "scene.glb", "sparse/0", "transforms.json", "report.html", "quality.json",
        "prediction/prediction.npz", "depth/maps.json", "view.html",
    ):  # fmt: skip
        assert (run / name).exists(), name
    assert list((run / "tensorboard").glob("events*"))
    assert main(["evaluate", f"fit:{run}", "--capture", str(capture), "--out", str(run / "scores")]) == 0
    printed = capsys.readouterr().out
    assert "SIMULATED" in printed
    scores = json.loads((run / "scores" / "scores.json").read_text())["rows"][0]["scores"]
    assert scores["auc30"] > 60  # a constant guess has 0, one step 3
    assert scores["depth_rel"] < 0.3  # one step has 0.42
    quality = json.loads((run / "quality.json").read_text())
    assert quality["network"]["median_angle_deg"] < 1.5  # one step has 8.6


def test_refined_cameras_are_better(run, capture) -> None:
    assert json.loads((run / "quality.json").read_text())["refined"]["kept"]
    systems = [f"fit:{run}", f"fit:{run}@refined"]
    assert main(["evaluate", *systems, "--capture", str(capture), "--out", str(run / "both")]) == 0
    rows = json.loads((run / "both" / "scores.json").read_text())["rows"]
    network, refined = (row["scores"] for row in rows)
    assert refined["ate"] < network["ate"]
    assert refined["rotation_median_deg"] < network["rotation_median_deg"]
    assert refined["auc30"] > 95


def test_cameras_json_has_the_captures_own_intrinsics(run, capture) -> None:
    wanted = json.loads((capture / "cameras.json").read_text())["frames"]
    found = json.loads((run / "cameras.json").read_text())["frames"]
    assert [frame["name"] for frame in found] == [frame["name"] for frame in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a["K"], b["K"], atol=0.05)
        assert (a["width"], a["height"], a["image"]) == (b["width"], b["height"], b["image"])
    again = load_capture(run)  # self-contained: the photographs are in the run, as links
    assert again.names == tuple(frame["name"] for frame in wanted)
    assert all((run / a["image"]).samefile(capture / b["image"]) for a, b in zip(found, wanted, strict=True))


def test_reconstruct_repeats_the_run_without_training(run, capture, tmp_path) -> None:
    arguments = ["reconstruct", str(capture), "--model", str(run / "checkpoint")]
    assert main([*arguments, "--out", str(tmp_path / "scene.npz")]) == 0
    with np.load(tmp_path / "scene.npz") as arrays:
        depth = Reconstruction.load(run / "prediction").prediction.depth.numpy()
        np.testing.assert_allclose(arrays["depth"], depth, rtol=1e-4)
    for name in ("scene.glb", "scene.ply"):
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert main([*arguments, "--out", str(tmp_path / "scene.ply")]) == 2  # never silently over a user's file


@pytest.mark.parametrize(("told", "precision"), [("yes", "bf16"), ("no", "float32")])
def test_fit_and_reconstruct_predict_in_the_same_precision(
    monkeypatch, run, capture, tmp_path, told, precision
) -> None:
    monkeypatch.setenv(CPU_BF16, told)
    result = fit(capture, tmp_path / "run", labelled(run, steps=2, precision="auto"))
    (again,) = reconstruct(capture, tmp_path / "run" / "checkpoint", image_size=48)
    assert result.reconstruction.meta["precision"] == again.meta["precision"] == precision
    torch.testing.assert_close(again.prediction.depth, result.reconstruction.prediction.depth, rtol=1e-5, atol=0)
    torch.testing.assert_close(again.prediction.world_from_cam, result.reconstruction.prediction.world_from_cam)


def test_export_writes_other_formats(run, tmp_path) -> None:
    assert main(["export", str(run), "--out", str(tmp_path / "transforms.json")]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "all")]) == 0
    assert main(["export", str(run), "--network", "--out", str(tmp_path / "network")]) == 0
    assert (tmp_path / "all" / "sparse" / "0").is_dir()
    best, network, on_top = (
        [frame["cam_to_world"] for frame in json.loads((folder / "cameras.json").read_text())["frames"]]
        for folder in (tmp_path / "all", tmp_path / "network", run)
    )
    assert best == on_top != network  # refined cameras were kept, so they lie on top
    for frame in json.loads((tmp_path / "transforms.json").read_text())["frames"]:
        assert (tmp_path / frame["file_path"]).is_file()
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x.ply")]) == 2


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


def config(**changes) -> FitConfig:
    return FitConfig(
        **{"depth": "simulated", "steps": 8, "precision": "fp32", "prepare": PrepareConfig(image_size=48), **changes}
    )


def labelled(run: Path, **changes) -> FitConfig:
    """The same with the labels of another run instead of its own."""
    return config(depth=FitConfig().depth, labels=str(run / "labels"), **changes)


def test_ctrl_c_then_resume_equals_the_uninterrupted_run(run, capture, tmp_path) -> None:
    whole = fit(capture, tmp_path / "whole", labelled(run))  # labels of its own would be the same

    def interrupt(stage: str, done: float, total: float, what: str) -> None:
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    assert fit(capture, tmp_path / "parts", config(), report=interrupt) is None
    assert not (tmp_path / "parts" / "checkpoint").exists()
    resumed = fit(capture, tmp_path / "parts", config(), resume=True)
    assert resumed.training.steps == whole.training.steps == 8
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)
    # the settings are the run's own: a flag that differs is an error, not a silent nothing
    with pytest.raises(UserError, match="the run has lr"):
        fit(capture, tmp_path / "parts", config(lr=0.5), resume=True)
    with pytest.raises(UserError, match="choose another --out"):
        fit(capture, tmp_path / "parts", config())


def test_a_run_without_an_expert_learns_swept_depth(capture, tmp_path) -> None:
    settings = config(depth="none", steps=4, log_every=1, prepare=PrepareConfig(image_size=48, sweep=True))

    def interrupt(stage: str, done: float, total: float, what: str) -> None:
        if stage == "train" and done == 2:
            raise KeyboardInterrupt

    assert fit(capture, tmp_path / "run", settings, report=interrupt) is None
    result = fit(capture, tmp_path / "run", settings, resume=True)  # swept again, the same
    assert result.training.steps == 4
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    depth = [line["depth"] for line in lines if "depth" in line]
    assert len(depth) == 4
    assert all(depth)  # without the sweep the term is 0
    assert "swept under the pseudo cameras" in (tmp_path / "run" / "checkpoint" / "README.md").read_text()


@pytest.mark.slow
def test_kill_9_then_resume_equals_the_uninterrupted_run(capture, tmp_path) -> None:
    arguments = ["fit", str(capture), "--depth", "simulated", "--steps", "60", "save_every=0.5", *SIZE]
    command = [sys.executable, "-m", "reliev3r.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.Popen(
        [*command, "--out", str(tmp_path / "parts")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "parts").glob("training/0*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "parts" / "checkpoint").exists()
    for out, more in (("parts", ["--resume"]), ("whole", [])):
        subprocess.run(
            [*command, "--out", str(tmp_path / out), *more], check=True, capture_output=True, env=environment
        )
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_unknown_intrinsics_are_estimated(tmp_path) -> None:
    capture = builders.capture(tmp_path / "capture", views=3, fov=50.0)  # far from the 65 degrees of rooms
    result = fit(capture, tmp_path / "run", config(intrinsics="estimate", steps=4))
    true = json.loads((capture / "cameras.json").read_text())["frames"][0]["K"][0][0]
    focal = result.reconstruction.K_original[:, 0, 0]
    assert focal.std() < 1e-3 * focal.mean()  # one camera took them all
    assert float(focal[0]) == pytest.approx(true, rel=0.05)
    assert any("field of view" in note for note in result.notes)
    # the checkpoint predicts the focal length, so plain images are enough for it
    images = tmp_path / "images"
    shutil.copytree(capture / "images", images)
    arguments = ["reconstruct", str(images), "--model", str(tmp_path / "run" / "checkpoint")]
    assert main([*arguments, "--out", str(tmp_path / "cameras.json")]) == 0


@pytest.mark.parametrize(
    "setting",
    [
        "objective.reprojection.form=pixel",
        "objective.depth_weight=0",
        "objective.tracks_weight=0",
    ],
)
def test_ablations_are_one_setting_each(run, capture, tmp_path, setting) -> None:
    out = tmp_path / "run"
    arguments = ["fit", str(capture), "--out", str(out), "--labels", str(run / "labels"), "--steps", "2", *SIZE]
    assert main([*arguments, setting]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row}
    assert ("tracks" in names) == (setting != "objective.tracks_weight=0")
    assert ("teacher" in names) == (setting != "objective.tracks_weight=0")
    assert ("depth" in names) == (setting != "objective.depth_weight=0")


def test_init_from_a_checkpoint_starts_where_it_ended(run, capture, tmp_path) -> None:
    start = labelled(run, model=str(run / "checkpoint"), steps=1, lr=1e-9)
    fit(capture, tmp_path / "run", start)
    a, b = weights(run), weights(tmp_path / "run")
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_two_unrelated_sets_of_images_are_told_apart(tmp_path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for seed, texture in ((1, "masonry"), (2, "terrazzo")):
        part = tmp_path / texture
        write_capture(
            part, SynthConfig(seed=seed, views=3, width=240, height=180, span=20.0, supersample=1, texture=texture)
        )
        for image in sorted((part / "images").iterdir()):
            shutil.copy(image, mixed / f"{texture}_{image.name}")
    settings = config(depth="none", intrinsics="fov:65", steps=2)
    result = fit(mixed, tmp_path / "run", settings)
    assert not result.reconstruction.prediction.knows_confidence  # no depth taught it
    assert "confident" not in result.quality.summary
    text = " ".join(result.notes)
    assert "masonry" in text
    assert "terrazzo" in text
    assert "no match" in text or "no track" in text or "parts" in text


def error_of(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2(capture, tmp_path, capsys) -> None:
    out = str(tmp_path / "run")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "error:" in error_of(capsys, "fit", str(empty), "--out", out)
    assert "error:" in error_of(capsys, "fit", str(tmp_path / "nowhere"), "--out", out)
    assert "choose one of" in error_of(capsys, "fit", str(capture), "--out", out, "--depth", "magic")
    assert "checkpoint" in error_of(
        capsys, "fit", str(capture), "--out", out, "--depth", "none", "--model", str(tmp_path / "none")
    )
    (tmp_path / "file").write_text("taken")
    assert "file" in error_of(capsys, "fit", str(capture), "--out", str(tmp_path / "file"), "--depth", "none")
    assert "file" in error_of(capsys, "fit", str(capture), "--out", str(tmp_path / "file" / "x"), "--depth", "none")
    assert (tmp_path / "file").read_text() == "taken"
    used = tmp_path / "used"
    used.mkdir()
    (used / "thesis.tex").write_text("mine")
    assert "not an empty folder" in error_of(capsys, "fit", str(capture), "--out", str(used), "--depth", "none")
    assert [path.name for path in used.iterdir()] == ["thesis.tex"]
    assert "no run to resume" in error_of(capsys, "fit", str(capture), "--out", str(empty), "--resume")
    assert error_of(capsys, "no-such-verb").startswith("error: no verb 'no-such-verb'\n\nusage")


def test_images_without_texture_say_so(tmp_path, capsys) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((120, 160, 3), 128 + i, np.uint8)).save(folder / f"{i}.png")
    message = error_of(capsys, "fit", str(folder), "--out", str(tmp_path / "run"), "--depth", "none")
    assert "match" in message
    # the failed start does not block another one
    assert "not an empty folder" not in error_of(
        capsys, "fit", str(folder), "--out", str(tmp_path / "run"), "--depth", "none"
    )


def test_training_never_reads_the_truth(capture, tmp_path, monkeypatch) -> None:
    # a capture whose poses and depth are nonsense gives the same weights
    spoiled = tmp_path / "spoiled"
    shutil.copytree(capture, spoiled)
    cameras = json.loads((spoiled / "cameras.json").read_text())
    for frame in cameras["frames"]:
        frame["cam_to_world"] = np.eye(4).tolist()
        (spoiled / frame.pop("depth")).unlink()
    (spoiled / "cameras.json").write_text(json.dumps(cameras))
    monkeypatch.setattr(Truth, "__init__", lambda *a, **k: pytest.fail("Truth was made while training"))
    settings = config(depth="none", steps=2, views=3)
    fit(capture, tmp_path / "a", settings)
    fit(spoiled, tmp_path / "b", settings)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_training_that_no_longer_pays_ends_by_itself_and_says_so(run, capture, tmp_path, monkeypatch, capsys) -> None:
    """From weights that are trained already, with a learning rate that changes nothing; a step takes a second."""
    now = SimpleNamespace(seconds=0.0)

    class Timed(CaptureBatches):
        def __call__(self, step: int, micro: int = 0) -> Any:
            now.seconds += 1
            return super().__call__(step, micro)

    monkeypatch.setattr("reliev3r.runs.fit.CaptureBatches", Timed)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    start = ["fit", str(capture), "--labels", str(run / "labels"), "--model", str(run / "checkpoint"), *SIZE]
    arguments = [*start, "--minutes", "2", "lr=1e-7"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "note: training ended by itself" in printed
    assert "trained until more time no longer paid" in printed.splitlines()[-1]
    assert "training ended by itself" in (tmp_path / "run" / "report.html").read_text()
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["seconds"] < 60
    assert last["teacher_deg"] < 3
