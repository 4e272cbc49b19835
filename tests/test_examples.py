"""The scripts of examples/ run, on a small rendered capture with small settings."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from reliev3r.core.files import read_json
from reliev3r.synthetic.capture import SynthConfig, write_capture

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run_script(name: str, *arguments: object) -> dict:
    """Run it as a user does; its names."""
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "capture"
    return write_capture(folder, SynthConfig(seed=3, views=8, width=240, height=180, span=35.0, supersample=1))


@pytest.fixture(scope="module")
def maps(capture, tmp_path_factory) -> Path:
    """Depth maps of one's own: here the true ones, each times a factor that nobody is told."""
    folder = tmp_path_factory.mktemp("maps")
    for index, file in enumerate(sorted((capture / "depth").glob("*.png"))):
        np.save(folder / f"{file.stem}.npy", cv2.imread(str(file), cv2.IMREAD_UNCHANGED) * (0.001 + 0.0002 * index))
    return folder


@pytest.fixture(scope="module")
def run(capture, maps, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run_script("fit_with_own_depth.py", capture, maps, out, 20, "prepare.image_size=48")
    return out


def test_scripts_are_short_and_all_of_them_are_tested() -> None:
    assert SCRIPTS == [
        "adapt_pretrained.py", "evaluate_two_systems.py", "fit_with_own_depth.py", "new_loss.py",
        "reconstruct_and_export.py",
    ]  # fmt: skip
    assert {name: count for name in SCRIPTS if (count := len((EXAMPLES / name).read_text().splitlines())) > 25} == {}


def test_fit_with_own_depth(run, maps) -> None:
    assert (run / "report.html").is_file()
    assert read_json(run / "config.json")["settings"]["depth"] == f"folder:{maps}"
    assert read_json(run / "labels" / "manifest.json")["experts"]["depth"]["name"] == "folder"


def test_reconstruct_and_export(run, capture, tmp_path) -> None:
    scene = run_script("reconstruct_and_export.py", capture, run / "checkpoint", tmp_path / "results")["scene"]
    assert scene.prediction.depth.shape == (8, 36, 48)  # the checkpoint knew its size
    assert (tmp_path / "results" / "sparse" / "0").is_dir()
    assert (tmp_path / "results" / "scene.glb").stat().st_size > 1000


def test_a_new_loss_is_descended_and_logged(capture, tmp_path) -> None:
    model = run_script("new_loss.py", capture, tmp_path, 12, "simulated")["model"]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"depth", "tracks", "jumps"} <= set(rows[0])
    first, last = rows[0], rows[-1]
    assert (first["step"], last["step"]) == (1, 10)
    assert last["loss"] < first["loss"]
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e6


def test_adapt_pretrained(run, capture, maps, tmp_path) -> None:
    settings = ["steps=3", "prepare.image_size=48", "heldout_every=4", "batch.views=3,4", "batch.images=4"]
    checkpoint = run / "checkpoint"
    done = run_script("adapt_pretrained.py", checkpoint, capture, tmp_path / "out", f"depth=folder:{maps}", *settings)
    verdict = done["run"].verdict.verdict
    assert read_json(tmp_path / "out" / "verdict.json")["verdict"] == verdict
    assert done["run"].checkpoint.parent.name == ("out" if verdict == "better" else "rejected")
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, done["run"].checkpoint))
    assert before.keys() == after.keys()  # low-rank adapters are merged into a network of the same kind
    assert done["network"].image_size == 48


def test_evaluate_two_systems(run, capture, tmp_path) -> None:
    systems = [f"fit:{run}", f"ours:{run / 'checkpoint'}"]
    table = run_script("evaluate_two_systems.py", capture, tmp_path / "scores", *systems)["table"]
    assert [row.system for row in table.rows] == systems
    fitted, again = (row.scores for row in table.rows)
    assert fitted.auc30 is not None
    assert again.depth_rel == pytest.approx(fitted.depth_rel, rel=1e-3)  # a forward pass repeats the run
    assert (tmp_path / "scores" / "comparison.html").is_file()
