"""The study at the size of the tests: every variant runs, nothing is run twice."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.synthetic.capture import SynthConfig, write_capture

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))  # as when it is called: its parts lie beside it
SPEC = importlib.util.spec_from_file_location("paradigm", Path(__file__).parents[1] / "studies" / "paradigm.py")
paradigm = importlib.util.module_from_spec(SPEC)
sys.modules["paradigm"] = paradigm  # dataclasses look their module up
SPEC.loader.exec_module(paradigm)


def test_the_study_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capfd) -> None:
    arguments = ["--size", "ci", "--out", str(tmp_path), "--only", "weak", "pi3-dagger", "depth only"]
    # two processes at a time, one of which fails: it knows no such variant; the other is finished first
    with monkeypatch.context() as patch:
        patch.setitem(paradigm.VARIANTS, "nobody's", lambda c: c)
        with pytest.raises(SystemExit, match=r"^failed: nobody's$"):
            paradigm.main([*arguments[:4], "--only", "nobody's", "weak", "--jobs", "2"])
    assert 'invalid choice: "nobody\'s"' in capfd.readouterr().err
    assert (tmp_path / "runs" / "weak-0" / "result.json").is_file()
    paradigm.main(arguments)
    table = (tmp_path / "study.md").read_text()
    assert "simulated expert" in table
    for name in ("constant guess", "untrained network", "weak", "pi3-dagger", "depth only"):
        assert f"| {name} |" in table
    assert (tmp_path / "study.png").stat().st_size > 1000
    trained = []
    monkeypatch.setattr(paradigm, "train_scenes", lambda *a, **k: trained.append(a))
    paradigm.main(arguments)
    assert not trained
    monkeypatch.undo()
    paradigm.main([*arguments[:4], "--only", "pi3-dagger + weak on the other domain, a quarter as long"])
    results = json.loads((tmp_path / "study.json").read_text())
    row = results["pi3-dagger + weak on the other domain, a quarter as long"]["0"]
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
    assert torch.equal(sets[0].truth.world_from_cam[3], truth.world_from_cam[0])


def test_variants_change_what_they_say() -> None:
    start = paradigm.settings("ci", 0)
    made = {name: change(start) for name, change in paradigm.VARIANTS.items()}
    assert made.pop("weak") == start
    assert all(config != start for config in made.values())
    assert len({repr(config) for config in made.values()}) == len(made)
    assert {config.steps for config in made.values()} == {start.steps}
    assert made["pi3-dagger"].supervision == "full"


def test_knowing_nothing_scores_next_to_nothing() -> None:
    config = paradigm.settings("ci", 0)
    assert paradigm.constant_guess(paradigm.held_out(config))["auc30"] < 35
