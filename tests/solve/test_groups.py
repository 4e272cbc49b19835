"""From photographs to groups of cameras with depth, by the network that comes with the package."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import builders
import reliev3r
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.files import file_hash
from reliev3r.data.capture import load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.protocols import strict_figures
from reliev3r.labels.registry import track_expert
from reliev3r.model.load import PACKAGED, load_network
from reliev3r.solve.cameras import Candidate, solve_groups
from reliev3r.solve.capture import reconstruct_groups

WEIGHTS = "579f9ea2a7c714f0605ed043fb3fac8514e9095946517a0d0e28301da189bffd"
"""Of `reliev3r train reliev3r-tiny` and studies/package_weights.py, 2026-11-29."""
ROOM = {"views": 5, "width": 320, "height": 240, "span": 30.0, "supersample": 1}


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    return builders.capture(tmp_path_factory.mktemp("room") / "capture", seed=3, **ROOM)


@pytest.fixture(scope="module")
def two_rooms(tmp_path_factory, room) -> Path:
    """Images of two rooms in one folder, three of the other room, under one K."""
    folder = tmp_path_factory.mktemp("two") / "photos"
    folder.mkdir()
    other = builders.capture(tmp_path_factory.mktemp("other") / "capture", seed=11, **{**ROOM, "views": 4})
    for source, name, count in ((room, "a", 5), (other, "b", 4)):
        for index, file in enumerate(sorted((source / "images").iterdir())[:count]):
            shutil.copy(file, folder / f"{name}{index}{file.suffix}")
    return folder


@pytest.fixture(scope="module")
def scene(room):
    return reconstruct_groups(load_capture(room))


def test_a_room_becomes_cameras_and_depth_without_a_checkpoint(room, scene) -> None:
    (found,) = scene
    assert found.found is None
    size = tuple(found.prediction.depth.shape[-2:])
    assert max(size) == 192
    truth = load_truth(room, found.names, regions=found.regions, size=size)
    figures = strict_figures(found.prediction, truth)
    assert figures["auc30"] > 90
    assert figures["depth_rel"] < 0.25
    assert found.meta["groups"] == [list(found.names)]
    assert found.meta["left_out"] == []


def test_confidence_tells_good_depth_from_bad(room, scene) -> None:
    (found,) = scene
    truth = load_truth(room, found.names, regions=found.regions, size=tuple(found.prediction.depth.shape[-2:]))
    scale = (truth.depth / found.prediction.depth)[truth.valid].median()
    error = (found.prediction.depth * scale / truth.depth).log().abs()
    sure = found.prediction.conf > 1
    assert 0.2 < float(sure[truth.valid].float().mean()) < 0.98
    assert float(error[truth.valid & sure].mean()) < 0.6 * float(error[truth.valid & ~sure].mean())
    assert float(found.prediction.conf.min()) > 0
    assert float(found.prediction.conf.max()) < 2


@pytest.mark.parametrize("tracks", ["sift", "network"])
def test_either_tracks_alone_are_enough(room, tracks) -> None:
    (found,) = reconstruct_groups(load_capture(room), tracks=tracks)
    assert found.meta["tracks"] == tracks
    truth = load_truth(room, found.names, regions=found.regions, size=tuple(found.prediction.depth.shape[-2:]))
    assert strict_figures(found.prediction, truth)["auc30"] > 85


def test_unknown_intrinsics_are_searched_for(room, caplog) -> None:
    """One focal length for all, told in ``meta``; a precision without a say is told in a line; every stage is heard."""
    capture = load_capture(room)
    frames = tuple(dataclasses.replace(frame, K=None) for frame in capture.frames[:3])
    unknown = dataclasses.replace(capture, frames=frames, K_source=None)
    heard: dict[str, tuple[float, float]] = {}
    (found,) = reconstruct_groups(
        unknown, tracks="sift", precision="bf16",
        report=lambda stage, done, total, what: heard.update({stage: (done, total)}),
    )  # fmt: skip
    assert list(heard) == ["tracks of sift", "focal length", "cameras by sift", "depth"]
    assert all(done == total for done, total in heard.values())
    assert "precision bf16 has no effect" in caplog.text
    true = float(capture.frames[0].K[0, 0])
    K = found.K_original
    assert float(K[0, 0, 0]) == pytest.approx(true, rel=0.1)
    torch.testing.assert_close(K[:, 0, 0], K[:1, 0, 0].expand(len(K)), rtol=1e-3, atol=0.1)
    fov = math.degrees(2 * math.atan(320 / 2 / float(K[0, 0, 0])))
    assert found.meta["intrinsics"] == f"searched: {fov:.0f} degrees"
    truth = load_truth(room, found.names, regions=found.regions, size=tuple(found.prediction.depth.shape[-2:]))
    assert strict_figures(found.prediction, truth)["auc30"] > 80


def test_rooms_that_share_nothing_come_back_as_groups(two_rooms, tmp_path, capsys) -> None:
    out = tmp_path / "scene.glb"
    assert main(["reconstruct", str(two_rooms), "--out", str(out), "--intrinsics", "fov:60"]) == 0
    assert out.is_file()
    assert (tmp_path / "scene.group2.glb").is_file()
    assert (tmp_path / "scene.html").is_file()
    assert (tmp_path / "scene.group2.html").is_file()
    printed = capsys.readouterr().out
    assert "scene.group2.glb" in printed
    out.unlink()
    (tmp_path / "scene.html").unlink()
    assert main(["reconstruct", str(two_rooms), "--out", str(out), "--intrinsics", "fov:60", "--tracks", "sift"]) == 2
    assert "group2.glb: exists already" in capsys.readouterr().err
    assert not out.exists()
    captures = reconstruct_groups(load_capture(two_rooms), tracks="sift")
    groups = captures[0].meta["groups"]
    assert {frozenset(name[0] for name in group) for group in groups} == {frozenset("a"), frozenset("b")}
    assert captures[1].found.sum() == len(groups[1])


def test_groups_go_into_folders_of_their_own(two_rooms, tmp_path) -> None:
    assert main(["reconstruct", str(two_rooms), "--out", str(tmp_path / "x"), "--intrinsics", "fov:60",
                 "--tracks", "sift"]) == 0  # fmt: skip
    first = {frame["name"][0] for frame in json.loads((tmp_path / "x" / "cameras.json").read_text())["frames"]}
    second = {frame["name"][0] for frame in json.loads((tmp_path / "x/group2/cameras.json").read_text())["frames"]}
    assert first == {"a"}
    assert second == {"b"}


def test_images_that_share_nothing_are_refused(tmp_path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    import cv2
    import numpy as np

    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(noise, (320, 240)))
    with pytest.raises(UserError, match="no two images share enough"):
        reconstruct_groups(load_capture(folder))


def test_a_view_with_too_little_evidence_is_left_out(room) -> None:
    capture = load_capture(room)
    tracks = track_expert("sift").track(capture)
    keep = (tracks.weight[2] > 0).nonzero()[15:, 0]
    weight = tracks.weight.clone()
    weight[2, keep] = 0  # fifteen observations are left: enough for PnP, not for belief
    K = torch.stack([torch.from_numpy(frame.K) for frame in capture.frames])
    groups = solve_groups(Candidate(expert="sift", tracks=type(tracks)(uv=tracks.uv, weight=weight),
                                    inlier_angle=0.004), K)  # fmt: skip
    assert groups[0].views == [0, 1, 3, 4]


def test_the_network_labels_tracks_without_any_download(room) -> None:
    capture = load_capture(room)
    expert = track_expert("network")
    tracks = expert.track(capture)
    assert tracks.weight.shape[1] > 100
    assert (tracks.uv[..., 0] <= 320).all()
    told = expert.fingerprint()
    assert told["name"] == "network"
    assert len(told["weights_sha256"]) == 64


def test_the_package_has_weights_and_says_what_they_are() -> None:
    folder = Path(reliev3r.__file__).parent / "weights"
    assert (folder / "model.safetensors").stat().st_size <= 10_000_000
    assert file_hash(folder / "model.safetensors") == WEIGHTS
    network = load_network(PACKAGED)
    assert network.licence == "apache-2.0"
    assert network.config.cameras == "solved"
    assert network.image_size == 128
    card = (folder / "README.md").read_text()
    for words in ("license: apache-2.0", "rendered rooms", "simulated", "reliev3r train"):
        assert words in card


def test_the_views_are_those_that_the_depth_belongs_to(room, scene) -> None:
    (found,) = scene
    views, regions = network_views(load_capture(room), long_side=192, patch=8)
    torch.testing.assert_close(found.regions, regions)
    assert found.prediction.depth.shape[-2:] == views.size
    torch.testing.assert_close(found.prediction.K, views.K, atol=0.05, rtol=1e-3)
