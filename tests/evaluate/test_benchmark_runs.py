"""Cells: kept, reused, made again when something changed; a failure costs one, named, and nothing else."""

import dataclasses
import json
import math
import re
from urllib.parse import unquote

import pytest
import torch
from tiny_captures import Fake, true_reconstruction, with_prediction, write_tiny

from reliev3r.baselines.host import run_baseline
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.evaluation.benchmarks import capture_benchmark, open_benchmark
from reliev3r.evaluation.pages import curves_of, write_results
from reliev3r.evaluation.run import evaluate_benchmark
from reliev3r.evaluation.systems import System, read_settings, system_from_spec
from reliev3r.evaluation.tables import CROSS
from reliev3r.geometry.rigid import so3_exp


@pytest.fixture
def benchmark(tmp_path):
    for seed, name in enumerate(("attic", "hall")):
        write_tiny(tmp_path / "set" / name, seed=seed)
    return open_benchmark(f"captures:{tmp_path / 'set'}", cache=tmp_path)


def fails_on(place, error):
    """A change that raises on the scene whose first pixel has this colour."""

    def change(reconstruction):
        if reconstruction.image[0, 0, 0].tolist() == place:
            raise error
        return reconstruction

    return change


def worse(reconstruction):
    """The scale of all but two views is wrong by a half and the last camera is turned by 10.5 degrees."""
    depth, cameras = reconstruction.prediction.depth.clone(), reconstruction.prediction.world_from_cam.clone()
    depth[2:] *= 1.5
    cameras[-1, :3, :3] @= so3_exp(torch.tensor([0.0, 0.0, math.radians(10.5)]))
    return with_prediction(reconstruction, depth=depth, world_from_cam=cameras)


def run(benchmark, *fakes, out, **options):
    return evaluate_benchmark([fake.system for fake in fakes], benchmark, out=out, **options)


def test_means_and_rows(benchmark, tmp_path):
    steps = []
    good, bad = Fake("good"), Fake("bad", worse)
    result = run(benchmark, good, bad, out=tmp_path / "out", progress=lambda *step: steps.append(step))
    first, second = result.table().rows
    assert first.scores.auc30 == 100
    assert first.scores.depth_rel == pytest.approx(0, abs=1e-6)
    # 3 of 6 pairs are off by 10.5 degrees, which counts in the last 20 of 30 shares
    assert second.scores.auc30 == pytest.approx(50 + 50 * 20 / 30)
    assert second.scores.depth_tau == pytest.approx(0.5)
    assert (first.meta["seconds"], first.meta["peak_rss_bytes"]) == (3.0, 2e9)  # mean, peak
    assert steps[0] == (0, 4, "attic: good")
    assert steps[-1] == (4, 4, "")
    assert good.runs == ["attic", "hall"]
    assert result.failures == 0
    text = result.table().to_text()
    assert f"8 frames, list {result.frames_hash}" in text
    assert "peak GB" in text
    plain = json.loads(json.dumps(result.to_json()))
    assert plain["frames"]["hall"] == ["000", "001", "002", "003"]
    assert plain["scenes"]["attic"][1]["system"] == "bad"


def test_predictions_are_kept_under_any_protocol(benchmark, tmp_path):
    fake = Fake("good")
    run(benchmark, fake, out=tmp_path / "out")
    again = run(benchmark, fake, out=tmp_path / "out", protocol="mapanything")
    assert again.table().rows[0].scores.point_tau == 1
    assert len(fake.runs) == 2


@pytest.mark.parametrize("what", ["system", "frames", "images", "damage"])
def test_what_changed_is_predicted_again(benchmark, tmp_path, what):
    fake = Fake("good")
    run(benchmark, fake, out=tmp_path / "out")
    views = None
    if what == "system":
        fake.version = 2
    elif what == "frames":
        views = 3
    elif what == "images":
        for scene in ("attic", "hall"):
            with open(tmp_path / "set" / scene / "images" / "001.png", "ab") as file:
                file.write(b"x")
    else:
        for file in (tmp_path / "out" / "predictions").rglob("prediction.npz"):
            file.write_bytes(file.read_bytes()[:-20])
    run(benchmark, fake, out=tmp_path / "out", views=views)
    assert len(fake.runs) == 4
    run(benchmark, fake, out=tmp_path / "out", views=views)
    assert len(fake.runs) == 4


def test_a_failure_costs_one_cell_and_is_tried_again(benchmark, tmp_path):
    corner = load_capture(tmp_path / "set" / "hall").image(0)[0, 0].tolist()
    bad = Fake("bad", fails_on(corner, RuntimeError("CUDA out\nof memory")))
    good = Fake("good")
    result = run(benchmark, bad, good, out=tmp_path / "out")
    assert result.failures == 1
    assert [row.scores.auc30 for row in result.table().rows] == [100, 100]
    text = result.table().to_text()
    assert "bad: failed on 1 of 2 scenes, which the means leave out" in text
    assert "bad: failed on hall: RuntimeError: CUDA out of memory" in text
    assert "CAUTION" in text
    (failed,) = (tmp_path / "out" / "predictions" / "bad").rglob("failed.json")
    assert failed.parent.parent.name == "hall"
    assert json.loads(failed.read_text())["last_words"] == "RuntimeError: CUDA out of memory"
    bad.change = lambda reconstruction: reconstruction
    assert run(benchmark, bad, good, out=tmp_path / "out").failures == 0
    assert bad.runs == ["attic", "hall", "hall"]
    assert not failed.exists()
    assert len(good.runs) == 2


def test_values_that_are_not_finite_cost_the_cell(benchmark, tmp_path):
    def spoiled(reconstruction):
        depth = reconstruction.prediction.depth.clone()
        depth[0, 0, 0] = torch.nan
        return with_prediction(reconstruction, depth=depth)

    row = run(benchmark, Fake("nan", spoiled), out=tmp_path / "out").table().rows[0]
    assert "its depth or rays are not finite" in row.failure
    assert row.scores.auc30 is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('boom')", "its worker failed; its last words: ValueError: boom"),
        ("import os; os.abort()", "its worker died of SIGABRT"),
        ("import time; time.sleep(600)", "no answer within 3 s"),
        ("np.ones(2**40)", "MemoryError"),
    ],
)
def test_a_worker_that_fails_costs_one_cell(benchmark, tmp_path, body, words):
    adapter = tmp_path / "adapters" / "worker.py"
    adapter.parent.mkdir()
    adapter.write_text(f"import numpy as np\nCARD = {{}}\ndef build(repo, weights, device, sizes):\n    {body}\n")

    def worker(capture, folder):
        limit = 3 if "sleep" in body else 60  # a busy machine takes seconds to start a worker
        return run_baseline(
            "worker", capture, adapters=adapter.parent, log=folder / "worker.log", timeout_s=limit, memory_gb=4
        )

    fragile = System(name="fragile", run=worker, fingerprint=dict)
    one = capture_benchmark(tmp_path / "set" / "hall")
    result = evaluate_benchmark([fragile, Fake("good").system], one, out=tmp_path / "out")
    failed, good = result.table().rows
    assert words in failed.failure
    assert good.scores.auc30 == 100
    assert f"fragile: FAILED: {failed.failure}" in result.table().to_text()


def test_an_interrupt_is_no_failure(benchmark, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, Fake("x", _interrupt), out=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("failed.json"))


def _interrupt(reconstruction):
    raise KeyboardInterrupt


def test_a_scene_without_truth_costs_its_row_of_cells(benchmark, tmp_path):
    file = tmp_path / "set" / "hall" / "cameras.json"
    content = json.loads(file.read_text())
    for frame in content["frames"]:
        del frame["cam_to_world"]
    file.write_text(json.dumps(content))
    result = run(benchmark, Fake("good"), out=tmp_path / "out")
    assert result.failures == 1
    assert result.table().rows[0].scores.auc30 == 100
    assert "hall: " in result.table().to_text()
    with pytest.raises(UserError, match="no ground truth"):
        run(capture_benchmark(tmp_path / "set" / "hall"), Fake("good"), out=tmp_path / "out")


def test_lost_views_and_missing_quantities_are_said_aloud(benchmark, tmp_path):
    def poses_only(reconstruction):
        found = torch.tensor([True, True, True, False])
        return dataclasses.replace(reconstruction, predicts_depth=False, found=found)

    text = run(benchmark, Fake("poses", poses_only), out=tmp_path / "out").table().to_text()
    assert "poses: no camera for 2 of 8 views of all scenes: 180 degrees" in text
    assert CROSS in text
    assert " 50.00 " in text


def test_a_run_is_scored_on_its_own_scene_only(benchmark, tmp_path):
    capture = load_capture(tmp_path / "set" / "hall")
    true_reconstruction(capture).save(tmp_path / "run" / "prediction")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"capture": str(tmp_path / "set" / "hall")}))
    fitted = system_from_spec(f"fit:{tmp_path / 'run'}")
    result = evaluate_benchmark([fitted], benchmark, out=tmp_path / "out")
    attic, hall = (result.scenes[name].rows[0] for name in ("attic", "hall"))
    assert "was made from" in attic.failure
    assert hall.scores.auc30 == 100


def test_files_page_and_curves(benchmark, tmp_path):
    out = tmp_path / "out"
    systems = [Fake("good").system, Fake("bad <b>", worse).system]
    results = [evaluate_benchmark(systems, benchmark, out=out, views=views) for views in (3, 4)]
    curves = curves_of(results)
    assert curves["AUC@30"]["good"] == ([3.0, 4.0], [100.0, 100.0])
    assert curves["views with a camera (%)"]["bad <b>"][1] == [100.0, 100.0]
    files = write_results(out, results, benchmark, systems)
    assert [file.name for file in files] == [
        "scores.json", "scores.md", "comparison.html", "frames-3.json", "frames-4.json",
    ]  # fmt: skip
    page = (out / "comparison.html").read_text()
    assert page.count("<svg") == 3 + 2 * 2 * 2  # curves; two systems, best and worst, two numbers of views
    assert "bad &lt;b&gt;" in page
    looks = re.findall(r'<a href="([^"]+)">look around', page)
    assert len(looks) == len(set(looks)) == 2 * 2 * 2
    assert all((out / unquote(address)).is_file() for address in looks)
    assert "<b>" not in page.replace("<b>Alarm", "")
    assert "http" not in page
    assert page.count("<details>") == 4
    assert (out / "scores.md").read_text().count("## ") == 2
    # the frames file is the same benchmark
    again = open_benchmark(str(out / "frames-3.json"), cache=tmp_path)
    repeated = evaluate_benchmark(systems, again, out=tmp_path / "other")
    assert repeated.frames_hash == results[0].frames_hash
    assert json.loads((out / "frames-3.json").read_text())["frames_hash"] == repeated.frames_hash


def test_settings_of_baselines(tmp_path):
    file = tmp_path / "systems.toml"
    file.write_text('[big]\nbaseline = "vggt"\nweights = "w.pt"\nrepo = "/src/vggt"\n[pi3]\nweights = "random"\n')
    settings = read_settings(file)
    assert settings["big"] == {"baseline": "vggt", "weights": str(tmp_path / "w.pt"), "repo": "/src/vggt"}
    with pytest.raises(UserError, match=r"w\.pt: the weights of big are not there"):
        system_from_spec("big", settings)
    (tmp_path / "w.pt").write_bytes(b"one")
    before = system_from_spec("big", settings).fingerprint()
    (tmp_path / "w.pt").write_bytes(b"two")
    assert system_from_spec("big", settings).fingerprint() != before
    (tmp_path / "w.pt").unlink()
    (tmp_path / "w.pt").mkdir()  # a folder counts with all that is in it
    empty = system_from_spec("big", settings).fingerprint()
    (tmp_path / "w.pt" / "part").write_bytes(b"two")
    assert system_from_spec("big", settings).fingerprint() != empty
    assert system_from_spec("pi3", settings).fingerprint()["weights"] == "random"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[vggt", "not readable as TOML"),
        ("vggt = 3", "must be a table"),
        ('[vggt]\nweight = "x"', "with keys among"),
        ('[mine]\nweights = "x"', "needs baseline = one of"),
        ("[vggt]\n", "needs weights"),
        ('[vggt]\nweights = "random"\ntimeout_s = "soon"', "timeout_s must be a number above 0"),
        ('[vggt]\nweights = "random"\nmemory_gb = -1', "memory_gb must be a number above 0"),
        ('[vggt]\nweights = "random"\nsizes = 3', "sizes must be a table"),
        ('[vggt]\nweights = "random"\ndevice = 0', "device must be a text"),
    ],
)
def test_bad_settings(tmp_path, text, message):
    (tmp_path / "systems.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_settings(tmp_path / "systems.toml")
