"""The layouts of other trainers, read back by the arithmetic of their loaders and not by ours."""

import json

import cv2
import numpy as np
import pytest
from layouts import Room

from foundry_scenes import exact_scene, surface_points
from reliev3r.data.pseudo_labels import read_note
from reliev3r.data.readers._depth import read_exr
from reliev3r.export.trainers.covisibility import covisibility, ranking
from reliev3r.export.trainers.exr import write_exr
from reliev3r.export.trainers.layouts import LAYOUTS, write_training_scene
from reliev3r.synthetic.capture import SynthConfig


@pytest.fixture(scope="module")
def room() -> Room:
    config = SynthConfig(seed=5, views=4, width=96, height=72, fov=60.0, span=25.0, supersample=1)
    return Room.of(config, shift=(2.0, -1.5))


def read_wai(folder):
    """(image, depth, lifted points [h, w, 3]) by frame, as mapanything/utils/geometry.py lifts them."""
    meta = json.loads((folder / "scene_meta.json").read_text())
    for frame in meta["frames"]:
        depth = read_exr(folder / frame["reliev3r_depth"])
        v, u = np.indices(depth.shape)
        x, y = (u - frame["cx"]) * depth / frame["fl_x"], (v - frame["cy"]) * depth / frame["fl_y"]
        pose = np.array(frame["transform_matrix"])
        yield frame["frame_name"], folder / frame["image"], depth, _posed(pose, x, y, depth)


def read_omega(folder):
    """As training/data/dataset_util.py of VGGT-Omega lifts them: centres at halves, camera from world."""
    cam_from_world, K = np.load(folder / "cam_from_worlds.npy"), np.load(folder / "intrinsics.npy")
    for index, image in enumerate(json.loads((folder / "image_names.json").read_text())):
        depth = read_exr(folder / "depths" / f"{image[:-4]}.exr")
        v, u = np.indices(depth.shape) + 0.5
        x, y = ((at - K[index, axis, 2]) * depth / K[index, axis, axis] for axis, at in enumerate((u, v)))
        pose = np.linalg.inv(np.vstack([cam_from_world[index].astype(float), [0, 0, 0, 1]]))
        yield image[:-4], folder / "images" / image, depth, _posed(pose, x, y, depth)


def read_dust3r(folder):
    """As dust3r/utils/geometry.py lifts them; frames in the order of their file names."""
    for image in sorted((folder / "dense" / "rgb").iterdir()):
        depth = np.load(folder / "dense" / "depth" / f"{image.stem}.npy")
        with np.load(folder / "dense" / "cam" / f"{image.stem}.npz") as camera:
            K, pose = camera["intrinsic"], camera["pose"]
        v, u = np.indices(depth.shape)
        x, y = ((at - K[axis, 2]) * depth / K[axis, axis] for axis, at in enumerate((u, v)))
        yield image.stem, image, depth, _posed(pose, x, y, depth)


def _posed(pose, x, y, z):
    return np.stack([x, y, z], -1) @ pose[:3, :3].T + pose[:3, 3]


READ = {"wai": read_wai, "omega": read_omega, "dust3r": read_dust3r}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_loader_lifts_every_pixel_to_the_surface_that_its_image_shows(room, layout, tmp_path) -> None:
    """Half a pixel is 2 % of the depth over the focal length here: a hundred times what is allowed."""
    write_training_scene(exact_scene(room), layout, tmp_path)
    frames = list(READ[layout](LAYOUTS[layout].place(tmp_path, "room")))
    assert [frame[0] for frame in frames] == [f"frame_{number:05d}" for number in range(1, 5)]
    for index, (_, image, depth, points) in enumerate(frames):
        rows, columns = np.nonzero(depth)
        assert len(rows) == (72 - 6) * 96
        true = surface_points(room, rows, columns, index)
        assert np.abs(points[rows, columns] - true).max() < 2e-5 * depth.max()
        pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        assert np.abs(pixels.astype(int) - room.rgb[index]).mean() < 3  # JPEG


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_scene_says_what_it_is(room, layout, tmp_path) -> None:
    write_training_scene(exact_scene(room), layout, tmp_path)
    folder = LAYOUTS[layout].place(tmp_path, "room")
    note = json.loads((folder / "pseudo_labels.json").read_text())
    assert "not ground truth" in note["notice"]
    assert note["pixel_centre"] == {"wai": 0.0, "omega": 0.5, "dust3r": 0.0}[layout]
    assert [frame["file"] for frame in note["frames"]] == [frame["name"] for frame in note["frames"]]
    assert "simulated expert (degraded ground truth)" in read_note(folder).caveat
    assert not list(tmp_path.rglob(".*"))


def test_what_is_not_confident_is_masked(room, tmp_path) -> None:
    for layout in LAYOUTS:
        write_training_scene(exact_scene(room), layout, tmp_path / layout)
    grey = cv2.IMREAD_UNCHANGED
    mask = cv2.imread(str(tmp_path / "omega" / "room" / "masks" / "frame_00001.png"), grey)
    assert (mask[6:-5] == 255).all()
    assert (mask[-5:] == 0).all()
    assert (mask[:6] == 0).all()
    dense = tmp_path / "dust3r" / "scenes" / "room" / "dense"
    np.testing.assert_array_equal(cv2.imread(str(dense / "outlier_mask" / "frame_00001.png"), grey), 255 - mask)
    assert not cv2.imread(str(dense / "sky_mask" / "frame_00001.png"), grey).any()
    wai = tmp_path / "wai" / "room" / "reliev3r"
    np.testing.assert_array_equal(read_exr(wai / "confidence" / "frame_00001.exr") > 0.25, mask == 255)
    np.testing.assert_array_equal(
        cv2.imread(str(wai / "mask" / "frame_00001.png"), grey) > 0, read_exr(wai / "depth" / "frame_00001.exr") > 0
    )


def test_frames_keep_their_order_where_the_alphabet_has_another(room, tmp_path) -> None:
    scene = exact_scene(room, ("shot2", "shot10", "shot11", "shot1"))
    for layout in LAYOUTS:
        write_training_scene(scene, layout, tmp_path / layout)
    dense = list(read_dust3r(tmp_path / "dust3r" / "scenes" / "room"))
    assert [frame[0] for frame in dense] == ["000000_shot2", "000001_shot10", "000002_shot11", "000003_shot1"]
    assert read_note(tmp_path / "dust3r" / "scenes" / "room").names["000003_shot1"] == "shot1"
    assert [frame[0] for frame in read_omega(tmp_path / "omega" / "room")] == list(scene.frames)
    assert [frame[0] for frame in read_wai(tmp_path / "wai" / "room")] == list(scene.frames)


def test_covisibility_is_what_the_views_share(room) -> None:
    depth, poses = room.depth.astype(np.float32), room.world_from_cam
    K = np.repeat(room.K[None], 4, 0)
    shares = covisibility(depth, K, poses)
    assert (shares.diagonal() == 1).all()
    assert shares[0, 1] > shares[0, 3] > 0.2  # along the path
    turned = poses.copy()
    turned[1, :3, :3] = turned[1, :3, :3] @ np.diag([-1.0, 1.0, -1.0])  # looks back
    assert covisibility(depth, K, turned)[0, 1] == 0
    hidden = depth.copy()
    hidden[1] *= 0.5  # something stands in front
    assert covisibility(hidden, K, poses)[0, 1] < 0.05
    assert covisibility(0 * depth, K, poses).sum() == 4
    order = ranking(shares)
    assert order[:, 0].tolist() == [0, 1, 2, 3]
    assert order[0].tolist() == [0, 1, 2, 3]
    assert sorted(order[2].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (61, 97)])
def test_maps_survive_to_the_bit(size, tmp_path) -> None:
    values = np.random.default_rng(0).lognormal(0, 3, size).astype(np.float32)
    values[0, 0] = 0
    write_exr(tmp_path / "a" / "x.exr", values)
    np.testing.assert_array_equal(read_exr(tmp_path / "a" / "x.exr"), values)
