"""What is done with a finished fit: its network at its own size, a later refinement, its labels once more."""

import dataclasses
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import to_plain
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.model.load import load_model
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.runs.fit import FitConfig, finished_run, fit
from reliev3r.synthetic.capture import SynthConfig, write_capture

CONFIG = FitConfig(depth="simulated", steps=8, precision="fp32", prepare=PrepareConfig(image_size=60))


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "capture"
    write_capture(folder, SynthConfig(seed=3, views=4, width=240, height=180, span=30.0, supersample=1))
    return folder


@pytest.fixture(scope="module")
def run(capture, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    mask = os.umask(0o027)
    try:
        fit(capture, out, CONFIG)
    finally:
        os.umask(mask)
    return out


def test_a_checkpoint_is_read_back_at_the_size_it_was_trained_at(run, capture, tmp_path, caplog) -> None:
    checkpoint = run / "checkpoint"
    assert json.loads((checkpoint / "config.json").read_text())["image_size"] == 60
    arguments = ["reconstruct", str(capture), "--model", str(checkpoint), "--out"]
    assert main([*arguments, str(tmp_path / "scene.npz")]) == 0
    with np.load(tmp_path / "scene.npz") as arrays:
        own = Reconstruction.load(run / "prediction").prediction.depth.numpy()
        np.testing.assert_allclose(arrays["depth"], own, rtol=1e-4)
    assert "as you asked" not in caplog.text
    assert main([*arguments, str(tmp_path / "other.npz"), "--image-size", "96"]) == 0
    assert "was trained with images of 60 pixels; it is shown 96, as you asked" in " ".join(caplog.text.split())


def test_the_best_weights_of_a_run_know_their_size_too(run) -> None:
    assert load_model(run / "training" / "best").image_size == 60


def test_a_network_that_does_not_say_its_size_is_not_guessed(capture, tmp_path, capsys) -> None:
    Reliev3R(dataclasses.replace(PRESETS["tiny"], fov="shared")).save_pretrained(tmp_path / "old")
    arguments = ["reconstruct", str(capture), "--model", str(tmp_path / "old"), "--out", str(tmp_path / "x.ply")]
    assert main(arguments) == 2
    assert "does not say which image size it was trained with; give --image-size" in capsys.readouterr().err
    assert main([*arguments, "--image-size", "48"]) == 0


def test_the_card_says_what_the_network_is(run) -> None:
    card = (run / "checkpoint" / "README.md").read_text()
    for words in ("license: apache-2.0", "60 pixels on the long side", "one capture, capture (4 images)",
                  "depth by simulated expert (degraded ground truth), tracks by sift", "from:** random weights",
                  "median", "must be static"):  # fmt: skip
        assert words in card
    assert "More Information Needed" not in card


def test_a_checkpoint_is_not_taken_for_a_run_that_failed(run, capture) -> None:
    """It has a config.json too, which a run in its folder would replace."""
    before = (run / "checkpoint" / "config.json").read_bytes()
    with pytest.raises(UserError, match="not an empty folder"):
        fit(capture, run / "checkpoint", CONFIG)
    assert (run / "checkpoint" / "config.json").read_bytes() == before


def test_a_whole_network_and_a_part_are_not_both_taken(run, capture, tmp_path) -> None:
    both = dataclasses.replace(CONFIG, model=str(run / "checkpoint"), init_from="dinov2:x.pth")
    with pytest.raises(UserError, match="brings all weights; drop one of the two"):
        fit(capture, tmp_path / "out", both)


def test_given_labels_and_weights_are_on_the_card_as_they_are(run, capture, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(run)
    config = dataclasses.replace(
        CONFIG, depth=FitConfig().depth, labels="labels", model=str(run / "checkpoint"), steps=1
    )  # fmt: skip
    fit(capture, tmp_path / "out", config)
    card = (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    for words in ("depth by simulated expert", "license: other", "that of the weights which it began with"):
        assert words in card
    assert "depth-anything" not in card
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert stored["settings"]["labels"] == str((run / "labels").resolve())


def test_a_card_of_one_s_own_is_kept(tmp_path) -> None:
    network = Reliev3R(PRESETS["tiny"])
    (tmp_path / "README.md").write_text("mine\n")
    network.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_files_follow_the_umask(run) -> None:
    files = [path for path in run.rglob("*") if path.is_file() and path.parent.name not in ("tensorboard", "images")]
    assert any(path.name == "model.safetensors" for path in files)
    wrong = {
        str(path): oct(stat.S_IMODE(path.stat().st_mode)) for path in files if path.stat().st_mode & 0o777 != 0o640
    }
    assert not wrong


def test_a_finished_run_is_refined_later(run, tmp_path, capsys) -> None:
    again = tmp_path / "run"
    shutil.copytree(run, again)
    assert not (again / "refined").exists()
    assert main(["refine", str(again)]) == 0
    printed = capsys.readouterr().out
    quality = json.loads((again / "quality.json").read_text())
    assert quality["refined"]["reason"] in printed
    assert quality["network"] == json.loads((run / "quality.json").read_text())["network"]
    kept = quality["refined"]["kept"]
    assert (again / "refined" / "prediction.npz").is_file() == kept
    before, after = ((folder / "cameras.json").read_text() for folder in (run, again))
    assert (before != after) == kept  # the best there is lies on top
    last = " ".join(printed.splitlines()[-1].split())
    assert ("with refined cameras" in last) == kept
    assert last.endswith(str(again))
    assert main(["refine", str(again)]) == 0  # once more changes nothing
    assert json.loads((again / "quality.json").read_text()) == quality


def test_only_a_finished_fit_is_refined(run, tmp_path, capsys) -> None:
    assert main(["refine", str(tmp_path)]) == 2
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(run / "config.json", half)
    assert main(["refine", str(half)]) == 2
    assert "is not finished; go on with" in capsys.readouterr().err


def test_labels_that_are_there_are_used(run, capture, tmp_path) -> None:
    labels = tmp_path / "labels"
    assert main(["label", str(capture), "--out", str(labels), "--depth", "simulated"]) == 0
    before = {path: path.stat().st_mtime_ns for path in labels.rglob("*") if path.is_file()}
    result = fit(capture, tmp_path / "run", dataclasses.replace(CONFIG, depth=FitConfig().depth, labels=str(labels)))
    own = Reconstruction.load(run / "prediction").prediction
    torch.testing.assert_close(result.reconstruction.prediction.depth, own.depth, rtol=0, atol=0)
    assert not (tmp_path / "run" / "labels").exists()
    assert before == {path: path.stat().st_mtime_ns for path in labels.rglob("*") if path.is_file()}
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "all")]) == 0  # finds the labels there


def test_labels_bring_their_own_experts(run, capture, tmp_path) -> None:
    with pytest.raises(UserError, match=r"--depth: the labels in .* are made already"):
        fit(capture, tmp_path / "run", dataclasses.replace(CONFIG, labels=str(run / "labels")))
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_named_before_anything_is_made(capture, tmp_path, capsys) -> None:
    arguments = ["fit", str(capture), "--out", str(tmp_path / "run"), "--depth", "none", "--device", "tpu"]
    assert main(arguments) == 2
    assert "--device tpu: not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_setting_of_before_says_so_in_one_line(tmp_path) -> None:
    settings = to_plain(FitConfig())
    settings["objective"]["depth"]["normalisation"] = "auto"
    (tmp_path / "config.json").write_text(json.dumps({"capture": str(tmp_path / "room"), "settings": settings}))
    with pytest.raises(UserError, match=r"config.json: .*unknown setting 'normalisation'; .* another version"):
        finished_run(tmp_path)


@pytest.mark.parametrize("what", ["added", "gone", "replaced"])
def test_a_run_does_not_go_on_with_other_images(run, capture, tmp_path, capsys, what) -> None:
    photos, again = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(capture / "images", photos)
    shutil.copytree(run, again)
    stored = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps({**stored, "capture": str(photos.resolve())}))
    first = sorted(photos.iterdir())[0]
    if what == "added":
        shutil.copy(first, photos / "later.png")
    elif what == "gone":
        first.unlink()
    else:
        shutil.copy(sorted(photos.iterdir())[1], first)
    before = sorted((again / "labels").rglob("*"))
    assert main(["fit", str(photos), "--out", str(again), "--resume"]) == 2
    told = capsys.readouterr().err
    name = "later" if what == "added" else first.stem
    assert f"its images changed since the run began ({what}: {name})" in " ".join(told.split())
    assert sorted((again / "labels").rglob("*")) == before
