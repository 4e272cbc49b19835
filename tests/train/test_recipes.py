"""What recipes promise: the paper's settings, the batch of a step whatever the number of processes, and sizes."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

import builders
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.augment import AugmentConfig
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.runs.train import train_scenes, whole_patches
from reliev3r.synthetic.room_stream import StreamConfig
from reliev3r.training.batches import SceneBatchConfig, dealt_out
from reliev3r.training.captures import CapturesConfig
from reliev3r.training.recipes import KEPT, RECIPES, tiny_cpu_regressed, with_preset

TOTALS = {"paper": 64, "paper-plus": 64, "pi3-dagger": 64, "paper-synthetic": 128, "paper-semi": 64}


def tiny(**changes):
    """Rooms for a network that costs nothing, two views a scene."""
    network = dataclasses.replace(builders.SMALLEST, patch_size=8, match_dim=8)
    settings = {
        "steps": 2, "network": network, "stream": StreamConfig(height=24, width=32), "heldout_scenes": 1,
        "batch": SceneBatchConfig(views=(2, 2), images=4), **changes,
    }  # fmt: skip
    return dataclasses.replace(tiny_cpu_regressed(), **settings)


def test_paper_is_the_papers_method_and_nothing_else() -> None:
    recipe = RECIPES["paper"]()
    objective, prepare = recipe.objective, recipe.captures.prepare
    assert (recipe.steps, recipe.lr, recipe.scenes, recipe.batch.views) == (60_000, 1e-4, 64, (8, 8))
    assert recipe.network == PRESETS["base"]
    assert (objective.depth.alpha, objective.depth_weight, objective.tracks_weight) == (1.0, 1.0, 0.5)
    added = (objective.gauge_weight, objective.teacher_weight, objective.correspondence_weight, objective.fov_weight)
    assert added == (0, 0, 0, 0)
    assert (prepare.solve, prepare.register) == (False, False)
    assert recipe.batch.augment == AugmentConfig.none()
    assert (recipe.stream_weight, recipe.captures.heldout) == (0, 0.02)


def test_the_papers_siblings_differ_in_what_they_say() -> None:
    paper, dagger = RECIPES["paper"](), RECIPES["pi3-dagger"]()
    assert dataclasses.replace(dagger, supervision="weak", steps=60_000) == paper
    synthetic, semi = RECIPES["paper-synthetic"](), RECIPES["paper-semi"]()
    for stage in (synthetic, semi):
        assert stage.steps == 20_000
        assert stage.batch.hide_intrinsics
        assert stage.network == dataclasses.replace(PRESETS["base"], fov="shared")
    assert (synthetic.supervision, semi.supervision) == ("full", "weak")
    assert (synthetic.supervised.fov_weight, semi.objective.fov_weight) == (1, 1)


@pytest.mark.parametrize(("name", "total"), TOTALS.items())
@pytest.mark.parametrize("processes", [1, 2, 8, 64])
def test_a_step_sees_the_same_number_of_scenes_whatever_the_processes(name, total, processes) -> None:
    recipe = RECIPES[name]()
    at_once, batches = dealt_out(recipe.scenes, processes, recipe.batch)
    assert at_once * batches * processes == total
    assert at_once * recipe.batch.views[1] <= recipe.batch.images


def test_memory_and_accumulation_decide_how_many_at_once() -> None:
    batch = SceneBatchConfig(views=(8, 8), images=64)
    assert dealt_out(64, 8, batch) == (8, 1)
    assert dealt_out(64, 1, batch) == (8, 8)
    assert dealt_out(64, 8, batch, accumulate=4) == (2, 4)
    assert dealt_out(12, 1, SceneBatchConfig(views=(2, 2), images=10)) == (4, 3)  # 5 would fit, and 12 is no multiple
    assert dealt_out(6, 3, SceneBatchConfig(views=(8, 8), images=4)) == (1, 2)  # one scene at least
    with pytest.raises(UserError, match="dealt out equally to 6 processes"):
        dealt_out(64, 6, batch)
    with pytest.raises(UserError, match="each process has 8"):
        dealt_out(64, 8, batch, accumulate=16)


def test_a_total_trains_as_the_same_scenes_accumulated(tmp_path) -> None:
    train_scenes(tmp_path / "total", tiny(scenes=4))
    train_scenes(tmp_path / "accumulated", tiny(accumulate=2))
    one, other = (load_file(tmp_path / run / "checkpoint" / "model.safetensors") for run in ("total", "accumulated"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_processes_that_cannot_share_a_step_are_told_before_anything_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="scenes=4, the batch of a step"):
        train_scenes(tmp_path / "run", tiny(scenes=4))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_changes_the_size_and_nothing_else(name, preset) -> None:
    recipe = RECIPES[name]()
    changed = with_preset(recipe, preset)
    assert changed.network.dim == PRESETS[preset].dim
    assert all(getattr(changed.network, field) == getattr(recipe.network, field) for field in KEPT)
    assert dataclasses.replace(changed, network=recipe.network) == recipe
    with torch.device("meta"):
        network = Reliev3R(changed.network)
    assert network.predicts_intrinsics == recipe.batch.hide_intrinsics
    rooms = whole_patches(changed.stream, network.patch_size)
    assert rooms.height % network.patch_size == rooms.width % network.patch_size == 0


def test_the_verb_takes_a_preset(tmp_path, capsys) -> None:
    run = ["train", "tiny-cpu-regressed", "--out", str(tmp_path / "run"), "--preset", "tiny", "--steps", "1"]
    small = ["network.dim=32", "network.heads=2", "heldout_scenes=1", "batch.images=4", "stream.rooms=8"]
    assert main([*run, *small]) == 0  # 64 x 48 pixels become 60 x 48: patches of 12
    assert main([*run, *small, "--model", "somewhere"]) == 2
    assert "--model somewhere brings its own size" in capsys.readouterr().err


def test_what_is_missing_is_told_by_its_flag(tmp_path, capsys) -> None:
    for name, flag in (("paper", "--data IMAGES=STORE"), ("pi3-dagger", "--annotated FORMAT:PATH")):
        network = ["--preset", "tiny", "network.dim=32", "network.heads=2", "network.head_dim=32"]
        assert main(["train", name, "--out", str(tmp_path / name), *network]) == 2
        assert f"add {flag}" in capsys.readouterr().err


def test_solved_cameras_without_the_solve_of_the_labels_are_refused() -> None:
    recipe = RECIPES["paper-plus"]()
    prepare = dataclasses.replace(recipe.captures.prepare, solve=False)
    with pytest.raises(ValueError, match=r"prepare\.solve=true"):
        dataclasses.replace(recipe, captures=CapturesConfig(data=("images=store",), prepare=prepare))


def test_a_second_stage_without_the_first_is_told(tmp_path, caplog) -> None:
    config = tiny()
    train_scenes(tmp_path / "first", config)
    assert "second stage" not in caplog.text
    network = dataclasses.replace(config.network, fov="shared")
    hidden = dataclasses.replace(config, network=network, batch=dataclasses.replace(config.batch, hide_intrinsics=True))
    train_scenes(tmp_path / "second", hidden)
    assert "give the checkpoint of the first with --model" in caplog.text
