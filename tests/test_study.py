"""The studies at the size of the tests: every variant runs, nothing is run twice."""

import dataclasses
import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.synthetic.capture import SynthConfig, write_capture

STUDIES = Path(__file__).parents[1] / "studies"
sys.path.insert(0, str(STUDIES))  # as when one is called: its parts lie beside it
one_capture, paradigm, study, variants = (
    importlib.import_module(name) for name in ("one_capture", "paradigm", "study", "variants")
)


def test_the_study_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capfd) -> None:
    arguments = ["--size", "ci", "--out", str(tmp_path), "--only", "weak", "pi3-dagger-rooms", "depth only"]
    # two processes at a time, one of which fails: it knows no such variant; the other is finished first
    with monkeypatch.context() as patch:
        patch.setitem(paradigm.variants("ci"), "nobody's", lambda c: c)
        with pytest.raises(SystemExit, match=r"^failed: nobody's$"):
            paradigm.main([*arguments[:4], "--only", "nobody's", "weak", "--jobs", "2"])
    assert 'invalid choice: "nobody\'s"' in capfd.readouterr().err
    assert (tmp_path / "runs" / "weak-0" / "result.json").is_file()
    paradigm.main(arguments)
    table = (tmp_path / "study.md").read_text()
    assert "simulated expert" in table
    for name in ("constant guess", "untrained network", "weak", "pi3-dagger-rooms", "depth only"):
        assert f"| {name} |" in table
    assert (tmp_path / "study.png").stat().st_size > 1000
    trained = []
    monkeypatch.setattr(paradigm, "train_scenes", lambda *a, **k: trained.append(a))
    paradigm.main(arguments)
    assert not trained
    monkeypatch.undo()
    paradigm.main([*arguments[:4], "--only", "pi3-dagger-rooms + weak on the other domain, a quarter as long"])
    results = json.loads((tmp_path / "study.json").read_text())
    row = results["pi3-dagger-rooms + weak on the other domain, a quarter as long"]["0"]
    assert row["steps"] == 2
    assert all(math.isfinite(value) for value in row["judged"]["other domain"].values())


def test_real_captures_are_judged_by_sets_of_four_frames(tmp_path) -> None:
    write_capture(tmp_path / "room", SynthConfig(views=11, width=64, height=48, supersample=1))
    (tmp_path / "nothing").mkdir()
    assert paradigm.with_cameras(tmp_path) == [tmp_path / "room"]
    sets = paradigm.frame_sets(tmp_path / "room", paradigm.settings("ci", 0))
    assert [tuple(each.views.image.shape) for each in sets] == [(4, 3, 48, 64)]
    last = load_capture(tmp_path / "room").names[9:10]
    truth = load_truth(tmp_path / "room", last, regions=torch.tensor([[0.0, 0.0, 64.0, 48.0]]), size=(48, 64))
    assert torch.equal(sets[0].truth.depth[3], truth.depth[0])
    assert torch.equal(sets[0].truth.world_from_cam[3, :3, :3], truth.world_from_cam[0, :3, :3])


def test_several_runs_at_a_time_and_one_that_fails(tmp_path, capfd) -> None:
    waiting = [("weak", 0), ("depth only", 0)]
    with pytest.raises(SystemExit, match=r"failed: (depth only, weak|weak, depth only)"):
        study.side_by_side(waiting, 2, [str(STUDIES / "paradigm.py"), "--size", "none", "--out", str(tmp_path)])
    assert "invalid choice: 'none'" in capfd.readouterr().err


def test_variants_change_what_they_say() -> None:
    start = paradigm.settings("ci", 0)
    made = {name: change(start) for name, change in paradigm.variants("ci").items()}
    all_differ(start, made.pop("weak"), made)
    assert made["pi3-dagger-rooms"].supervision == "full"


def test_the_study_of_solved_cameras_changes_what_it_says_and_sweeps_depth() -> None:
    start = paradigm.settings("solved", 0)
    made = {name: change(start) for name, change in paradigm.variants("solved").items()}
    assert made.pop("hybrid") == start  # another network with the same settings
    all_differ(start, made.pop("weak"), made)
    assert made["regressed cameras"].network.cameras == "regressed"
    assert made["images half as large"].stream.width == start.stream.width // 2
    small = dataclasses.replace(start.network, dim=32, heads=2, head_dim=32, head_heads=2, feature_dim=8)
    scene = paradigm.held_out(dataclasses.replace(start, heldout_scenes=1))[0]
    network = paradigm.Reliev3R(small).eval()
    assert math.isfinite(paradigm.swept_rel(network, [scene]))
    assert set(paradigm.confidence(network, [scene])) == {"depth_rel_half", "conf_at_bound", "conf_auroc"}


def test_the_study_of_alpha_changes_the_depth_loss_alone() -> None:
    start = paradigm.settings("alpha", 0)
    made = {name: change(start) for name, change in paradigm.variants("alpha").items()}
    assert made["alpha 1"] == start
    assert [each.objective.depth.alpha for each in made.values()] == [0.2, 0.5, 1.0, 2.0, 1.0]
    assert len({repr(dataclasses.replace(each, objective=start.objective)) for each in made.values()}) == 1


def smallest_solved(size: str, seed: int):
    start = variants.settings("solved-small", seed)
    network = dataclasses.replace(
        start.network, dim=32, heads=2, encoder_depth=1, decoder_depth=2, head_dim=32, head_heads=2, feature_dim=8,
        camera_dim=16,
    )  # fmt: skip
    stream = dataclasses.replace(start.stream, height=24, width=32, rooms=8)
    return dataclasses.replace(start, steps=4, heldout_scenes=1, network=network, stream=stream)


@pytest.mark.slow
def test_the_study_of_solved_cameras_has_a_hybrid_and_a_section_b(tmp_path, monkeypatch, capfd) -> None:
    write_capture(tmp_path / "captures/room", SynthConfig(views=11, width=96, height=72, supersample=1))
    monkeypatch.setattr(paradigm, "settings", smallest_solved)
    after = [name for name in variants.afterwards("solved") if not name.startswith("weak")]
    arguments = ["--size", "solved", "--out", str(tmp_path / "out"), "--real", str(tmp_path / "captures")]
    arguments += ["--real-depth", "folder:{capture}/depth", "--only"]
    with pytest.raises(SystemExit):
        paradigm.main([*arguments, "pi3-dagger-rooms"])
    assert "--size solved has no variant pi3-dagger-rooms" in capfd.readouterr().err
    paradigm.main([*arguments, "hybrid", "pi3-dagger", *after])
    results = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [results[name]["0"]["steps"] for name in ("hybrid", *after)] == [4, 4, 1, 1]
    for name in ("hybrid", *after):
        assert all(math.isfinite(value) for value in results[name]["0"]["judged"]["real: room"].values())


def test_the_hybrid_says_the_same_of_views_in_another_order() -> None:
    torch.manual_seed(0)
    config = smallest_solved("solved", 0)
    network = variants.NETWORKS["hybrid"](config.network).eval()
    views = paradigm.held_out(config)[0].views
    order = [2, 0, 3, 1]
    with torch.no_grad():
        cameras, turned = network(views).world_from_cam, network(views.select_views(order)).world_from_cam
        elsewhere = network(dataclasses.replace(views, K=views.K * torch.tensor([2.0, 2.0, 1.0])[:, None]))
    assert torch.allclose(cameras[order], turned, atol=1e-5)
    assert not torch.allclose(cameras, elsewhere.world_from_cam, atol=1e-4)  # it sees rays, not pixels
    assert not torch.allclose(cameras[0], cameras[1], atol=1e-4)


def test_variants_of_a_fit_change_what_they_say() -> None:
    start = one_capture.CaptureConfig(steps=3)
    made = {name: change(start) for name, change in one_capture.ON_ONE_CAPTURE.items()}
    all_differ(start, made.pop("default"), made)
    alone = [config for name, config in made.items() if name.startswith("no teacher")]
    assert {config.objective.teacher_weight for config in alone} == {0.0}
    assert sorted(config.objective.reprojection.form for config in alone) == [
        "angle", "angle", "cosine", "pixel", "point",
    ]  # fmt: skip
    assert not made["no teacher, no camera contrast"].network.camera_contrast


def all_differ(start, usual, others) -> None:
    assert usual == start
    assert all(config != start for config in others.values())
    assert len({repr(config) for config in others.values()}) == len(others)
    assert {config.steps for config in others.values()} == {start.steps}


def test_variants_of_a_fit_run_on_one_capture_and_go_on_where_they_stopped(tmp_path, monkeypatch) -> None:
    write_capture(tmp_path / "room", SynthConfig(seed=3, views=4, width=160, height=120, span=20.0, supersample=1))
    arguments = ["--out", str(tmp_path / "out"), "--steps", "2", "--capture", str(tmp_path / "room")]
    arguments += ["--only", "default", "no teacher, no camera contrast"]
    one_capture.main(arguments[:-1])
    one_capture.main(arguments)
    table = (tmp_path / "out" / "study.md").read_text()
    assert "| default | 1 |" in table
    assert "| no teacher, no camera contrast | 1 |" in table
    assert "simulated expert" in table
    results = json.loads((tmp_path / "out" / "study.json").read_text())
    for seeds in results.values():
        assert seeds["0"]["steps"] == 2
        assert all(math.isfinite(value) for value in seeds["0"]["judged"]["the capture"].values())
    monkeypatch.setattr(one_capture, "train_prepared", lambda *a, **k: pytest.fail("run again"))
    one_capture.main(arguments)
    with pytest.raises(pytest.fail.Exception, match="run again"):  # another number of steps is another run
        one_capture.main([*arguments[:3], "3", *arguments[4:]])


def test_knowing_nothing_scores_next_to_nothing() -> None:
    config = paradigm.settings("ci", 0)
    assert paradigm.constant_guess(paradigm.held_out(config))["auc30"] < 35
