"""Scenes of datasets as samples of full supervision."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

import builders
from reliev3r.core.errors import UserError
from reliev3r.core.types import FullLabels
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.runs.train import _sources, train_scenes
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.experts import TrackNoise
from reliev3r.synthetic.room_stream import StreamConfig
from reliev3r.training.annotated import AnnotatedScenes
from reliev3r.training.batches import SceneBatchConfig, SceneBatches, Source
from reliev3r.training.captures import CapturesConfig, is_heldout
from reliev3r.training.recipes import RECIPES, tiny_cpu

NETWORK = dataclasses.replace(builders.SMALLEST, patch_size=8, match_dim=8, fov="shared")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Two captures, one wide and one upright."""
    root = tmp_path_factory.mktemp("annotated")
    for seed, (width, height) in enumerate([(96, 72), (72, 96)]):
        config = SynthConfig(seed=seed, views=6, width=width, height=height, span=30.0, supersample=1)
        write_capture(root / f"room{seed}", config)
    return root


def source(root, **changes) -> AnnotatedScenes:
    settings = {"long_side": 48, "patch": 8, "tracks": TrackNoise(count=64, pixel=0.0, false=0.0), **changes}
    return AnnotatedScenes([f"capture:{root}"], **settings)


def test_samples_have_the_truth_of_their_views(rooms) -> None:
    scenes = source(rooms)
    assert isinstance(scenes, Source)
    assert len(scenes) == 2
    views, labels = scenes.sample(3, group=0, views=3)
    assert isinstance(labels, FullLabels)
    assert views.image.shape == (3, 3, 40, 48) or views.image.shape == (3, 3, 32, 48)
    assert labels.truth.depth.shape == (3, *views.size)
    torch.testing.assert_close(views.K, labels.truth.K, rtol=1e-5, atol=1e-3)
    # exact tracks are where the views see one point: their rays meet
    tracks, truth = labels.tracks, labels.truth
    both = (tracks.weight[0] > 0) & (tracks.weight[1] > 0)
    assert both.sum() > 5
    rays = [
        torch.linalg.solve(truth.K[v], torch.cat([tracks.uv[v, both], torch.ones(int(both.sum()), 1)], 1).T)
        for v in (0, 1)
    ]
    directions = [truth.world_from_cam[v, :3, :3] @ rays[v] for v in (0, 1)]
    normal = torch.linalg.cross(directions[0].T, directions[1].T)
    normal = normal / normal.norm(dim=1, keepdim=True)
    gap = normal @ (truth.world_from_cam[1, :3, 3] - truth.world_from_cam[0, :3, 3])
    assert gap.abs().median() < 0.01
    again = scenes.sample(3, group=0, views=3)
    assert torch.equal(again[0].image, views.image)


def test_scenes_of_known_and_unknown_unit_share_a_batch(rooms, tmp_path) -> None:
    """As ASE's and BlendedMVS's do."""
    for name in ("a", "b"):
        shutil.copytree(rooms / "room0", tmp_path / name)
    file = tmp_path / "b" / "cameras.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metric": False}))
    scenes = source(tmp_path)
    assert [scenes.scene(index).truth.metric for index in range(2)] == [True, False]
    views, labels = SceneBatches([scenes], [1.0], SceneBatchConfig(views=(2, 2), images=12))(0)
    assert views.image.shape[0] == len(labels.truth.depth) == 6


def test_sizes_come_in_groups(rooms) -> None:
    batches = SceneBatches([source(rooms)], [1.0], SceneBatchConfig(views=(2, 2), images=4))
    shapes = {batches(step)[0].image.shape[-2:] for step in range(8)}
    assert len(shapes) == 2


def test_any_frames_of_a_scene_come_up_and_none_twice(rooms) -> None:
    scenes = source(rooms)
    samples = [scenes.sample(seed, group=0, views=3)[1].truth.world_from_cam[:, :3, :3] for seed in range(12)]
    assert all(len({tuple(turn.flatten().tolist()) for turn in sample}) == 3 for sample in samples)
    together = {tuple(turn.flatten().tolist()) for sample in samples for turn in sample}
    assert len(together) == 6  # all frames of the one scene in the group's bucket


def test_what_cannot_be_supervised_is_told(rooms, tmp_path) -> None:
    content = json.loads((rooms / "room0" / "cameras.json").read_text())
    for frame in content["frames"]:
        del frame["depth"]
    bare = tmp_path / "sets" / ("ab" * 32)
    (bare / "images").mkdir(parents=True)
    for file in (rooms / "room0" / "images").iterdir():
        (bare / "images" / file.name).write_bytes(file.read_bytes())
    (bare / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="dl3dv-benchmark"):
        source(tmp_path / "sets")
    (tmp_path / "list.csv").write_text("cd" * 32)
    with pytest.raises(UserError, match=r"no true depth.* --depth-truth wai:PATH"):
        source(tmp_path / "sets", benchmark=str(tmp_path / "list.csv"))
    (tmp_path / "list.csv").write_text("ab" * 32)
    with pytest.raises(UserError, match="DL3DV benchmark"):
        source(tmp_path / "sets", benchmark=str(tmp_path / "list.csv"))
    with pytest.raises(UserError, match="a sample needs 7"):
        source(rooms).sample(0, group=0, views=7)


def test_depth_from_elsewhere_for_scenes_without_any(rooms, tmp_path, caplog) -> None:
    """A scene with depth keeps it; one without takes it; one that it has none for is left out and counted."""
    for name in ("own", "taken", "none"):
        shutil.copytree(rooms / "room0", tmp_path / "sets" / name)
    for name in ("taken", "none"):
        file = tmp_path / "sets" / name / "cameras.json"
        content = json.loads(file.read_text())
        for frame in content["frames"]:
            del frame["depth"]
        file.write_text(json.dumps(content))
    dense = tmp_path / "depth" / "taken" / "dense"
    for part in ("cam", "depth"):
        (dense / part).mkdir(parents=True)
    shutil.copytree(rooms / "room0" / "images", dense / "rgb")
    for frame in json.loads((rooms / "room0" / "cameras.json").read_text())["frames"]:
        K = np.array(frame["K"]) + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        np.savez(dense / "cam" / f"{frame['name']}.npz", intrinsic=K, pose=np.array(frame["cam_to_world"]))
        np.save(dense / "depth" / f"{frame['name']}.npy", np.full((72, 96), 3.0, np.float32))
    scenes = source(tmp_path / "sets", depth_truth=f"cut3r:{tmp_path / 'depth'}/{{scene}}")
    assert [scenes.scene(index).name for index in range(len(scenes))] == ["own", "taken"]
    assert scenes.whole(0, views=2)[1].truth.depth.std() > 0
    taken = scenes.whole(1, views=2)[1].truth
    torch.testing.assert_close(taken.depth[taken.valid], torch.full_like(taken.depth[taken.valid], 3.0))
    assert "left out 1 of 3 scenes" in caplog.text
    with pytest.raises(UserError, match="has depth of none of the 1 scenes"):
        source(tmp_path / "sets" / "none", depth_truth=f"cut3r:{tmp_path / 'depth'}/{{scene}}")


def test_heldout_scenes_are_others(rooms) -> None:
    share = next(s / 100 for s in range(1, 100) if sum(is_heldout(f"room{i}", s / 100) for i in range(2)) == 1)
    trained, kept = (source(rooms, share=share, heldout=flag) for flag in (False, True))
    assert {trained.scene(0).name, kept.scene(0).name} == {"room0", "room1"}
    views, labels = kept.whole(0, views=4)
    assert len(views.image) == len(labels.truth.depth) == 4
    with pytest.raises(UserError, match="every scene is held out"):
        source(rooms, share=1.0)


def test_full_supervision_trains_on_them(rooms, tmp_path) -> None:
    share = next(s / 100 for s in range(1, 100) if sum(is_heldout(f"room{i}", s / 100) for i in range(2)) == 1)
    config = dataclasses.replace(
        RECIPES["synthetic-full"](), steps=3, network=NETWORK, annotated=(f"capture:{rooms}",),
        stream=StreamConfig(height=24, width=32), stream_weight=0.0, heldout_scenes=1,
        captures=CapturesConfig(prepare=PrepareConfig(image_size=48), heldout=share),
        batch=SceneBatchConfig(views=(2, 2), images=4, hide_intrinsics=True),
    )  # fmt: skip
    result = train_scenes(tmp_path / "run", config)
    assert result.finished
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "auc30" in rows[-1]  # of the held-out scene
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_rooms_and_scenes_come_up_equally_often(rooms) -> None:
    config = dataclasses.replace(
        RECIPES["synthetic-full"](), annotated=(f"capture:{rooms}",), captures=CapturesConfig(heldout=0.0)
    )
    sources, shares = _sources(config, 8, lambda *_: None)
    assert [type(each).__name__ for each in sources] == ["AnnotatedScenes", "SyntheticStream"]
    assert shares[0] == shares[1]


def test_weak_supervision_refuses_them() -> None:
    with pytest.raises(ValueError, match="weak supervision never sees"):
        dataclasses.replace(tiny_cpu(), annotated=("capture:somewhere",))
