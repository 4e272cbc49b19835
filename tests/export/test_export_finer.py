"""Exported maps are finer than the network's, on the same rays, and say so."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import small_scene
from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.capture import load_capture
from reliev3r.export import finer as module
from reliev3r.export.finer import finer, finer_size
from reliev3r.export.write import export_reconstruction


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The truth at 24 x 28 pixels as if it had been predicted from photographs of 640 x 480."""
    photos = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for view in range(4):
        picture = random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(picture).save(photos / f"frame{view}.png", compress_level=0)
    capture = load_capture(photos)
    files = tuple(frame.file for frame in capture.frames)
    return dataclasses.replace(small_scene.reconstruction(), capture=capture, image_files=files)


def off_the_wall(points: torch.Tensor) -> torch.Tensor:
    return (points.double() @ small_scene.WALL[:3] - small_scene.WALL[3]).abs()


def test_finer_maps_show_the_same_scene(scene) -> None:
    fine = finer(scene, scene.capture, 112)
    assert fine.prediction.depth.shape == fine.prediction.conf.shape == (4, 96, 112)
    inner = fine.prediction.points_world[:, 2:-2, 2:-2]  # beyond the outermost centres depth is the border's
    assert off_the_wall(inner.reshape(-1, 3)).max() < 2e-3
    torch.testing.assert_close(fine.K_original, scene.K_original, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(fine.prediction.world_from_cam, scene.prediction.world_from_cam)
    photograph = scene.capture.image(1)[:, 40:600].reshape(96, 5, 112, 5, 3).mean((1, 3))
    np.testing.assert_allclose(fine.image[1].numpy(), photograph, atol=1)
    assert fine.meta["maps"]["upsampled_from"] == [24, 28]


def test_how_fine(scene, monkeypatch) -> None:
    assert finer_size(scene, 112) == (96, 112)
    assert finer_size(scene, 0) is None
    assert finer_size(scene, 28) is None
    assert finer_size(scene, 5000) == (480, 560)  # what the photographs have
    monkeypatch.setattr(module, "MOST_PIXELS", 4 * 48 * 56)
    assert finer_size(scene, 5000) == (48, 56)


def test_files_say_how_fine_they_are(scene, tmp_path) -> None:
    export_reconstruction(scene, None, tmp_path / "out", depth_size=112)
    told = read_json(tmp_path / "out/depth/maps.json")
    assert (told["size"], told["upsampled_from"]) == ([96, 112], [24, 28])
    depth = np.load(tmp_path / "out/depth/frame2.depth.npy")
    assert depth.shape == np.load(tmp_path / "out/depth/frame2.conf.npy").shape == (96, 112)
    pixel = np.array([30.5, 70.5, 1.0])  # column, row: K and depth alone give its point
    point = np.linalg.inv(told["K"]["frame2"]) @ pixel * depth[70, 30]
    pose = small_scene.arc(4)[2].numpy()
    world = pose[:3, :3] @ point + pose[:3, 3]
    assert off_the_wall(torch.from_numpy(world)) < 5e-3
    with np.load(tmp_path / "out/scene.npz") as arrays:  # as predicted
        assert arrays["depth"].shape == (4, 24, 28)
    assert len(trimesh.load(tmp_path / "out/scene.ply").vertices) > 10 * 4 * 24 * 28 * 0.5


@pytest.mark.parametrize("name", ["scene.ply", "scene.glb"])
def test_points_alone_are_finer_where_the_photographs_are_there(scene, tmp_path, name) -> None:
    export_reconstruction(scene, None, tmp_path / "coarse" / name, depth_size=0)
    export_reconstruction(scene, None, tmp_path / "fine" / name, depth_size=56, capture=scene.capture.root)
    coarse, fine = (
        sum(isinstance(part, trimesh.PointCloud) and len(part.vertices) for part in parts_of(tmp_path / way / name))
        for way in ("coarse", "fine")
    )
    assert 3.5 * coarse < fine < 4.5 * coarse


def parts_of(file) -> list:
    found = trimesh.load(file)
    return list(found.geometry.values()) if isinstance(found, trimesh.Scene) else [found]


def test_maps_stay_where_nothing_can_guide_them(scene, tmp_path) -> None:
    assert finer(scene, None, 112) is scene
    (tmp_path / "clip.mp4").touch()
    assert finer(scene, tmp_path / "clip.mp4", 112) is scene
    cameras = dataclasses.replace(scene, predicts_depth=False)
    assert finer(cameras, scene.capture, 112) is cameras


def test_other_photographs_are_refused(scene) -> None:
    other = dataclasses.replace(scene, names=("frame0", "frame1", "frame2", "missing"))
    with pytest.raises(UserError, match="no frame missing"):
        finer(other, scene.capture, 112)
    other = dataclasses.replace(scene, sizes=((640, 480),) * 3 + ((320, 240),))
    with pytest.raises(UserError, match="frame3 has another size"):
        finer(other, scene.capture, 112)
