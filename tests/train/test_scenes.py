"""Training across scenes: samples, batches, captures of a store, recipes, and the verb."""

import dataclasses
import json
import math
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import builders
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.settings import from_plain, to_plain
from reliev3r.core.types import FullLabels, PseudoLabels
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.model.predict import predict
from reliev3r.runs.train import network_of, objective_of, train_scenes
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.room_stream import HELDOUT_SEEDS, StreamConfig, SyntheticStream
from reliev3r.training import captures as prepared
from reliev3r.training.batches import SceneBatchConfig, SceneBatches
from reliev3r.training.captures import CapturesConfig, LabelledCaptures, is_heldout
from reliev3r.training.recipes import (
    RECIPES,
    ScenesConfig,
    captures_for,
    paper,
    pi3_dagger_rooms,
    tiny_cpu,
    with_preset,
)
from reliev3r.training.validation import figures, rooms

SMALL = dataclasses.replace(builders.SMALLEST, patch_size=8, match_dim=8)
STREAM = StreamConfig(height=24, width=32)


def settings(start=tiny_cpu, **changes) -> ScenesConfig:
    batch = SceneBatchConfig(views=(2, 3), images=6)
    changes = {"steps": 4, "network": SMALL, "stream": STREAM, "batch": batch, "heldout_scenes": 2, **changes}
    return dataclasses.replace(start(), **changes)


# the stream ----------------------------------------------------------------------------------------------------------


def test_a_room_is_a_function_of_its_seed_and_heldout_rooms_are_others() -> None:
    stream = SyntheticStream(STREAM, supervision="weak")
    (a, label), (b, _) = (stream.sample(7, group=0, views=3) for _ in range(2))
    assert torch.equal(a.image, b.image)
    assert isinstance(label, PseudoLabels)
    assert a.size == stream.size(0) == (24, 32)
    other, _ = stream.render(HELDOUT_SEEDS + 7, views=3)
    assert not torch.equal(a.image, other.image)


def test_full_supervision_gets_the_truth_of_the_same_rooms() -> None:
    weak, full = (SyntheticStream(STREAM, supervision=kind) for kind in ("weak", "full"))
    (a, pseudo), (b, labels) = (each.sample(3, group=0, views=2) for each in (weak, full))
    assert torch.equal(a.image, b.image)
    assert isinstance(labels, FullLabels)
    assert torch.equal(pseudo.tracks.uv, labels.tracks.uv)
    assert not torch.equal(pseudo.depth.depth, labels.truth.depth)


def test_kept_rooms_are_those_that_are_rendered_anew() -> None:
    new, kept = (SyntheticStream(dataclasses.replace(STREAM, rooms=n), supervision="weak") for n in (None, 2))
    for seed in (0, 1, 2, 3, 1):
        (a, labels), (b, again) = (
            stream.sample(seed % 2 if stream is new else seed, group=0, views=2) for stream in (new, kept)
        )
        assert torch.equal(a.image, b.image)
        assert torch.equal(labels.depth.depth, again.depth.depth)
    assert len(kept._kept) == 2


def test_a_stream_that_cannot_keep_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="rooms"):
        dataclasses.replace(STREAM, rooms=0)


# batches -------------------------------------------------------------------------------------------------------------


def test_batches_are_functions_of_step_and_micro_batch_with_equal_views_everywhere() -> None:
    stream = SyntheticStream(STREAM, supervision="weak")
    batches = SceneBatches([stream], [1.0], SceneBatchConfig(views=(2, 4), images=8))
    seen = [[batches(step, micro)[0].image for micro in range(2)] for step in range(6)]
    assert torch.equal(seen[3][1], batches(3, 1)[0].image)
    for first, second in seen:
        assert first.shape == second.shape
        assert not torch.equal(first, second)
        assert first.shape[0] * first.shape[1] <= 8
    assert len({images[0].shape[1] for images in seen}) > 1


def test_hidden_intrinsics_become_pseudo_intrinsics() -> None:
    stream = SyntheticStream(STREAM, supervision="weak")
    config = SceneBatchConfig(views=(2, 2), images=2, hide_intrinsics=True)
    views, labels = SceneBatches([stream], [1.0], config)(0)
    assert views.K is None
    assert labels.K.shape == (1, 2, 3, 3)


# captures of a store -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("many")
    for seed, (width, height) in enumerate([(160, 120), (160, 120), (120, 160)]):
        config = SynthConfig(seed=seed, views=4, width=width, height=height, span=25.0, supersample=1)
        write_capture(root / "images" / f"room{seed}", config)
    arguments = ["label", str(root / "images"), "--out", str(root / "store"), "--depth", "simulated", "--workers", "1"]
    assert main(arguments) == 0
    return f"{root / 'images'}={root / 'store'}"


def captures(store: str, **changes) -> CapturesConfig:
    return CapturesConfig(data=(store,), prepare=PrepareConfig(image_size=48), tracks=64, heldout=0.0, **changes)


def test_captures_of_mixed_aspect_come_in_batches_of_one_size(store) -> None:
    source = LabelledCaptures(captures(store), patch=8)
    assert len(source) == 3
    batches = SceneBatches([source], [1.0], SceneBatchConfig(views=(2, 2), images=6))
    shapes = set()
    for step in range(8):
        views, labels = batches(step)
        assert views.image.shape[:3] == (3, 2, 3)
        assert views.size == labels.depth.depth.shape[-2:]
        assert all(side % 8 == 0 for side in views.size)
        assert labels.tracks.uv.shape == (3, 2, 64, 2)
        assert labels.cameras is not None
        shapes.add(views.size)
    assert len(shapes) == 2  # landscape and portrait


def test_captures_are_prepared_once_and_the_same_afterwards(store, monkeypatch) -> None:
    first = LabelledCaptures(captures(store), patch=8).sample(5, group=0, views=3)
    monkeypatch.setattr(prepared, "_prepare", None)
    again = LabelledCaptures(captures(store), patch=8).sample(5, group=0, views=3)
    assert torch.equal(first[0].image, again[0].image)
    assert torch.equal(first[1].tracks.uv, again[1].tracks.uv)


def test_swept_captures_are_prepared_beside_the_others(store, monkeypatch) -> None:
    config = captures(store)
    plain = LabelledCaptures(config, patch=8)
    config = dataclasses.replace(config, prepare=dataclasses.replace(config.prepare, sweep=True))
    swept = LabelledCaptures(config, patch=8)
    assert not {each.path for each in plain.captures} & {each.path for each in swept.captures}
    monkeypatch.setattr(prepared, "_prepare", None)
    source = LabelledCaptures(config, patch=8)
    _, labels = SceneBatches([source], [1.0], SceneBatchConfig(views=(2, 2), images=6))(0)
    weight = labels.depth.weight
    assert weight.shape == labels.depth.depth.shape
    assert 0 <= float(weight.min()) < float(weight.max()) <= 1
    assert plain.capture(0).sample()[1].depth.weight is None


def prepare_verb(store: str, *more: str) -> list[str]:
    small = ("network.dim=32", "network.heads=2", "network.encoder_depth=1", "network.decoder_depth=2")
    return ["prepare", "tiny-cpu", "--data", store, "--image-size", "64", *small, *more]


def test_captures_are_prepared_before_the_training_by_workers(store, monkeypatch, capsys) -> None:
    assert main(prepare_verb(store, "--workers", "1")) == 0
    assert "3 of 3 captures prepared" in capsys.readouterr().out
    monkeypatch.setattr(prepared, "_prepare", None)
    assert main(prepare_verb(store)) == 0  # nothing is left to do
    config = captures_for(
        dataclasses.replace(tiny_cpu(), captures=CapturesConfig(data=(store,), prepare=PrepareConfig(image_size=64))),
        tiny_cpu().network,
    )
    config = dataclasses.replace(config, heldout=0.0)
    assert len(LabelledCaptures(config, patch=tiny_cpu().network.patch_size)) == 3


def test_a_preset_is_prepared_for_as_it_is_trained(store, monkeypatch) -> None:
    assert main(["prepare", "paper", "--data", store, "--image-size", "64", "--preset", "tiny", "--workers", "1"]) == 0
    monkeypatch.setattr(prepared, "_prepare", None)
    small = with_preset(paper(), "tiny")
    wanted = dataclasses.replace(small.captures, data=(store,), heldout=0.0)
    wanted = dataclasses.replace(wanted, prepare=dataclasses.replace(wanted.prepare, image_size=64))
    config = captures_for(dataclasses.replace(small, captures=wanted), small.network)
    assert small.network.patch_size != paper().network.patch_size
    assert len(LabelledCaptures(config, patch=small.network.patch_size)) == 3


def test_a_capture_that_cannot_be_prepared_does_not_stop_the_others(store, tmp_path, capsys) -> None:
    images, labels = (Path(shutil.copytree(path, tmp_path / Path(path).name)) for path in store.split("="))
    shutil.rmtree(labels / ".prepared", ignore_errors=True)
    next((images / "room1" / "images").iterdir()).unlink()
    assert main(prepare_verb(f"{images}={labels}", "--workers", "1")) == 3
    out = capsys.readouterr().out.replace("\n", " ")
    assert "failed: room1: " in out
    assert "2 of 3 captures prepared" in out
    assert (labels / "room1" / "manifest.json").exists()  # the labels are as good as they were


def test_what_a_recipe_does_not_use_is_not_solved(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("reliev3r.labels.prepare.solve_cameras", None)
    prepare = dataclasses.replace(paper().captures.prepare, solve=True)
    wanted = dataclasses.replace(paper().captures, data=(store,), heldout=0.0, prepare=prepare)
    config = dataclasses.replace(paper(), captures=wanted)
    unsolved = LabelledCaptures(captures_for(config, config.network), patch=14)
    _, labels = unsolved.sample(0, group=0, views=2)
    assert (labels.cameras.weight == 0).all()  # they have no say
    assert (labels.depth.trust == 1).all()
    for changed in (
        dataclasses.replace(config, objective=dataclasses.replace(config.objective, teacher_weight=1.0)),
        dataclasses.replace(config, captures=CapturesConfig(data=(store,))),  # registration
    ):
        assert captures_for(changed, config.network).prepare.solve
    assert captures_for(config, dataclasses.replace(config.network, cameras="solved")).prepare.solve


def test_those_who_come_at_once_share_the_preparing(store, monkeypatch) -> None:
    config = captures(store)
    config = dataclasses.replace(config, prepare=dataclasses.replace(config.prepare, image_size=40))  # not there yet
    made, prepare, together = [], prepared._prepare, threading.Barrier(2)

    def slowly(task, *rest):
        made.append((threading.get_ident(), task.name))
        time.sleep(0.3)
        prepare(task, *rest)

    def come(_):
        together.wait()
        return LabelledCaptures(config, patch=8).captures

    monkeypatch.setattr(prepared, "_prepare", slowly)
    with ThreadPoolExecutor(2) as pool:  # the lock is between open files: threads are to it what processes are
        one, other = pool.map(come, range(2))
    assert one == other
    assert sorted(name for _, name in made) == ["room0", "room1", "room2"]
    assert len({thread for thread, _ in made}) == 2
    assert not list(one[0].path.parent.glob("*.lock"))


def test_one_who_waited_in_vain_prepares_it_itself(store, monkeypatch) -> None:
    config = captures(store)
    config = dataclasses.replace(config, prepare=dataclasses.replace(config.prepare, image_size=32))
    prepare, fails = prepared._prepare, [True]

    def first_fails(*given):
        if fails:
            fails.clear()
            raise UserError("the first one is stopped")
        prepare(*given)

    monkeypatch.setattr(prepared, "_prepare", first_fails)
    with pytest.raises(UserError, match="stopped"):
        LabelledCaptures(config, patch=8)
    assert len(LabelledCaptures(config, patch=8)) == 3


def test_a_damaged_prepared_file_is_named(store) -> None:
    source = LabelledCaptures(captures(store), patch=8)
    path = source.captures[1].path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=path.name):
        source.capture(1).sample([0])
    with pytest.raises(UserError, match=path.name):
        LabelledCaptures(captures(store), patch=8)
    path.write_bytes(content)
    assert source.capture(1).views().image.shape[0] == 4


def test_heldout_captures_are_never_trained_on(store) -> None:
    shares = [
        share for share in (0.1, 0.3, 0.5, 0.7, 0.9) if 0 < sum(is_heldout(f"room{i}", share) for i in range(3)) < 3
    ]
    config = dataclasses.replace(captures(store), heldout=shares[0])
    kept, trained = (LabelledCaptures(config, patch=8, heldout=flag) for flag in (True, False))
    names = [{capture.name for capture in source.captures} for source in (kept, trained)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 3
    share = sum(is_heldout(f"capture {index}", 0.02) for index in range(5000)) / 5000
    assert share == pytest.approx(0.02, abs=0.006)


@pytest.mark.parametrize(("pair", "word"), [("somewhere", "IMAGES=STORE"), ("{images}=/nowhere", "no usable labels")])
def test_bad_data_is_told(store, pair, word) -> None:
    data = pair.format(images=store.split("=")[0])
    with pytest.raises(UserError, match=word):
        LabelledCaptures(CapturesConfig(data=(data,)), patch=8)


# recipes and runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_complete_and_survive_their_own_json(name) -> None:
    config = RECIPES[name]()
    plain = json.loads(json.dumps(to_plain(config)))
    assert from_plain(ScenesConfig, plain, source=name) == config
    with torch.device("meta"):
        model = network_of(config)
    weight = config.supervised if config.supervision == "full" else config.objective
    assert (model.match_head is not None) == (weight.correspondence_weight > 0)
    patch = config.network.patch_size
    if config.stream_weight > 0:
        assert config.stream.height % patch == config.stream.width % patch == 0


@pytest.mark.parametrize("name", ["tiny-cpu", "pi3-dagger-rooms", "synthetic-full"])
def test_a_recipe_runs_small_and_leaves_everything_behind(name, tmp_path) -> None:
    recipe = RECIPES[name]
    network = dataclasses.replace(SMALL, fov=recipe().network.fov)
    batch = dataclasses.replace(recipe().batch, views=(2, 3), images=6)
    result = train_scenes(tmp_path / "run", settings(recipe, network=network, batch=batch))
    assert result.finished
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert any("auc30" in row for row in rows)
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()
    with pytest.raises(UserError, match="choose another --out"):
        train_scenes(tmp_path / "run", settings())


def test_weak_training_takes_labelled_captures_and_tunes_a_checkpoint(store, tmp_path) -> None:
    network = dataclasses.replace(SMALL, fov="shared")
    train_scenes(tmp_path / "full", settings(RECIPES["synthetic-full"], network=network))
    config = settings(
        RECIPES["synthetic-to-real"], model=str(tmp_path / "full" / "checkpoint"), captures=captures(store),
        network=network,
        batch=SceneBatchConfig(views=(2, 2), images=4, hide_intrinsics=True),
    )  # fmt: skip
    result = train_scenes(tmp_path / "tuned", config)
    assert result.finished
    row = json.loads((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "heldout_deg" in row
    assert "auc30" not in row  # captures have no truth here
    with pytest.raises(UserError, match="no captures are given"):
        train_scenes(tmp_path / "none", dataclasses.replace(config, captures=CapturesConfig()))


def test_training_lowers_the_loss_of_both_siblings() -> None:
    for recipe in (tiny_cpu, pi3_dagger_rooms):
        config = settings(recipe, batch=SceneBatchConfig(views=(2, 2), images=8))
        model, objective = network_of(config), objective_of(config)
        stream = SyntheticStream(STREAM, supervision=config.supervision)
        views, labels = SceneBatches([stream], [1.0], config.batch)(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        losses = []
        for _ in range(25):
            loss = objective(model.train()(views), labels, 0.0).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] - 0.2 * abs(losses[0])


def test_the_choice_of_a_checkpoint_reads_tracks_alone() -> None:
    scenes = rooms(SyntheticStream(STREAM, supervision="weak"), 2, views=3)
    model = network_of(settings())
    blind = [dataclasses.replace(scene, truth=None) for scene in scenes]
    assert figures(model, blind) == {"heldout_deg": figures(model, scenes)["heldout_deg"]}
    assert predict(model, scenes[0].views).descriptors is None


def test_the_verb(tmp_path, capsys) -> None:
    assert main(["train", "--list"]) == 0
    assert "pi3-dagger-rooms" in capsys.readouterr().out
    assert main(["train", "nothing"]) == 2
    assert "tiny-cpu" in capsys.readouterr().err
    arguments = [
        "--steps", "2", "stream.height=32", "stream.width=48", "heldout_scenes=1", "batch.images=8",
        "network.dim=32", "network.heads=2", "network.decoder_depth=2", "objective.depth.alpha=0.5",
    ]  # fmt: skip
    assert main(["train", "tiny-cpu", "--out", str(tmp_path / "run"), *arguments]) == 0
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert stored["objective"]["depth"]["alpha"] == 0.5
    assert stored["network"]["cameras"] == "solved"
    assert main(["train", "tiny-cpu", "--out", str(tmp_path / "run"), "--resume", "--lr", "0.5"]) == 2
    assert "the run has lr" in capsys.readouterr().err
    assert main(["train", "tiny-cpu", "--out", str(tmp_path / "run"), "--resume"]) == 0


def test_a_run_that_solves_its_cameras_goes_on_bitwise_where_it_stopped(tmp_path) -> None:
    network = dataclasses.replace(SMALL, cameras="solved", feature_dim=8, match_dim=0)
    config = settings(network=network, steps=5, precision="fp32")
    assert config.optimizer == "muon"

    def stops(stage: str, done: float, total: float, what: str) -> None:
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    train_scenes(tmp_path / "whole", config)
    assert not train_scenes(tmp_path / "parts", config, report=stops).finished
    assert train_scenes(tmp_path / "parts", config, resume=True).finished
    whole, parts = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("whole", "parts"))
    assert any(name.startswith("match_branch") for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
