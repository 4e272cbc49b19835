"""nerfstudio's transforms.json and DL3DV, which has its conventions: lenses, axes, smaller copies, the guard."""

import json

import cv2
import numpy as np
import pytest
from layouts import brown, fisheye, write_dl3dv, write_nerfstudio
from lenses import rays_as_colours, through
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.benchmark_guard import benchmark_hashes, refuse_benchmark
from reliev3r.data.capture import load_capture
from reliev3r.data.convert import convert_scene
from reliev3r.data.readers import list_scenes, open_scene

BROWN = {"k1": 0.08, "k2": -0.02, "p1": 0.004, "p2": -0.003}
FISHEYE = {"k1": 0.03, "k2": -0.01, "k3": 0.002, "k4": 0.0}
HASHES = ("0123456789abcdef" * 4, "fedcba9876543210" * 4)


@pytest.mark.parametrize("per_frame", [False, True])
def test_a_pinhole_capture_comes_back(room, tmp_path, per_frame) -> None:
    write_nerfstudio(tmp_path / "desk", room, depth=room.depth, per_frame=per_frame, camera_model="PINHOLE")
    scene = open_scene(tmp_path / "desk")
    assert scene.name == "desk"
    assert scene.capture.names == tuple(f"frame_{i:05d}" for i in range(1, 5))
    for i in range(4):
        np.testing.assert_array_equal(scene.capture.image(i), room.rgb[i])
        np.testing.assert_allclose(scene.capture.frames[i].K, room.K)
    assert_poses(scene, room.world_from_cam)
    # the applied transform is undone: the world is the solver's
    np.testing.assert_allclose(scene.truth.camera("frame_00001").world_from_cam, room.world_from_cam[0], atol=1e-9)
    np.testing.assert_allclose(scene.truth.depth("frame_00003"), room.depth[2], atol=6e-4)
    assert_consistent(scene)
    assert not scene.truth.metric
    assert scene.caveats


@pytest.mark.parametrize(
    ("lens", "distort"),
    [
        ({"camera_model": "OPENCV", **BROWN}, brown(**BROWN)),
        ({"camera_model": "OPENCV_FISHEYE", **FISHEYE}, fisheye(**FISHEYE)),
    ],
    ids=["opencv", "fisheye"],
)  # fmt: skip
def test_lenses_are_rectified(room, tmp_path, lens, distort) -> None:
    rgb, depth = through(room, distort)
    write_nerfstudio(tmp_path / "real", room, rgb=rgb, depth=depth, **lens)
    scene = open_scene(f"nerfstudio:{tmp_path / 'real'}")
    assert_consistent(scene)
    known = scene.truth.depth("frame_00001") > 0
    assert known.mean() > 0.7
    # the pixel convention, to a tenth of a pixel: images whose colours tell where the pixel's ray goes
    ideal = rays_as_colours(room)
    write_nerfstudio(tmp_path / "rays", room, rgb=through(ideal, distort)[0], **lens)
    seen = open_scene(tmp_path / "rays").capture.image(0).astype(float)
    inner = seen[..., 2] == 255  # nothing of the black beyond the room's images is mixed in
    assert inner.mean() > 0.5
    error = seen - ideal.rgb[0]
    assert np.abs(error[inner].mean(0)).max() < 0.2
    assert np.abs(error[inner]).max() <= 3


def test_a_lens_of_no_coefficients_needs_no_rectification(room, tmp_path) -> None:
    write_nerfstudio(tmp_path / "a", room, camera_model="OPENCV", k1=0.0)
    assert open_scene(tmp_path / "a").capture.frames[0].rectification is None


def test_depth_maps_of_other_sizes_and_npy(room, tmp_path) -> None:
    content = write_nerfstudio(tmp_path / "a", room, depth=room.depth, camera_model="PINHOLE")
    for i, frame in enumerate(content["frames"]):
        frame["depth_file_path"] = f"depth/{i}.npy"
        small = room.depth[3 - i][1::3, 1::3]
        np.save(tmp_path / "a" / "depth" / f"{i}.npy", np.where(small > 3, np.inf, small))
    content["depth_unit_scale_factor"] = 1.0
    (tmp_path / "a" / "transforms.json").write_text(json.dumps(content))
    depth = open_scene(tmp_path / "a").truth.depth("frame_00001")
    assert depth.shape == (24, 32)
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    near = room.depth[0][1::3, 1::3] <= 3
    np.testing.assert_allclose(depth, np.where(near, room.depth[0][1::3, 1::3], 0), rtol=1e-6)


def test_frames_without_a_finite_pose_are_left_out(room, tmp_path, caplog) -> None:
    content = write_nerfstudio(tmp_path / "a", room)
    content["frames"][0]["transform_matrix"][0][3] = float("-inf")
    (tmp_path / "a" / "transforms.json").write_text(json.dumps(content))
    assert len(open_scene(tmp_path / "a").capture.frames) == 3
    assert "left out 1 of 4" in caplog.text


def damage(content: dict, what: str) -> None:
    frame = content["frames"][0]
    match what:
        case "no frames":
            del content["frames"]
        case "EQUIRECTANGULAR":
            content["camera_model"] = "EQUIRECTANGULAR"
        case "fl_x":
            del content["fl_x"]
        case "a finite number":
            content["cx"] = float("nan")
        case "mirrored":
            frame["transform_matrix"][0] = [-x for x in frame["transform_matrix"][0]]
        case "not 4x4":
            frame["transform_matrix"] = [[1, 0], [0, 1]]
        case "twice":
            frame["file_path"] = content["frames"][1]["file_path"]
        case "not found":
            frame["file_path"] = "images/lost.png"
        case "rotated":
            content["w"], content["h"] = content["h"], content["w"]


@pytest.mark.parametrize(
    "what", ["EQUIRECTANGULAR", "fl_x", "a finite number", "mirrored", "not 4x4", "twice", "not found", "rotated"]
)
def test_damage_is_told_in_one_line(room, tmp_path, what) -> None:
    content = write_nerfstudio(tmp_path / "a", room)
    damage(content, what)
    (tmp_path / "a" / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=what) as caught:
        open_scene(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)


def test_damaged_depth_is_told_when_it_is_asked_for(room, tmp_path) -> None:
    write_nerfstudio(tmp_path / "a", room, depth=room.depth)
    cv2.imwrite(str(tmp_path / "a" / "depth" / "frame_00002.png"), np.zeros((72, 96), np.uint8))
    scene = open_scene(tmp_path / "a")
    with pytest.raises(UserError, match=r"frame_00002\.png: not a readable 16-bit"):
        scene.truth.depth("frame_00002")
    (tmp_path / "a" / "depth" / "frame_00003.png").unlink()
    with pytest.raises(UserError, match=r"frame_00003\.png"):
        scene.truth.depth("frame_00003")


# DL3DV ---------------------------------------------------------------------------------------------------------------


def test_dl3dv_scales_the_lens_to_its_smaller_copies(room, tmp_path) -> None:
    write_dl3dv(tmp_path / "1K" / HASHES[0], room, divisor=8)
    assert list_scenes(tmp_path) == [f"1K/{HASHES[0]}"]
    scene = open_scene(tmp_path, views=3)
    assert scene.capture.ordered
    assert len(scene.capture.frames) == 3
    assert scene.capture.frames[0].width == 96
    np.testing.assert_allclose(scene.capture.frames[0].K, room.K)
    assert scene.truth.depth(scene.capture.names[0]) is None
    assert any("structure from motion" in text for text in scene.caveats)
    full = open_scene(tmp_path / "1K" / HASHES[0])
    assert_poses(full, room.world_from_cam)
    inner = np.s_[20:-20, 20:-20]  # no black corners
    for i in range(4):
        read, drawn = (
            cv2.GaussianBlur(image, (0, 0), 1.0).astype(float) for image in (full.capture.image(i), room.rgb[i])
        )
        error, moved = (np.abs(other - drawn)[inner].mean() for other in (read, np.roll(drawn, 1, axis=1)))
        assert error < 0.6 * moved  # resampling is not the question, and less than a pixel off


def test_the_order_in_time_outlives_a_conversion(room, tmp_path) -> None:
    """DL3DV is a sequence, photographs of a nerfstudio export need not be one; CoTracker asks."""
    write_dl3dv(tmp_path / HASHES[0], room)
    content = json.loads((tmp_path / HASHES[0] / "transforms.json").read_text())
    for number, frame in enumerate(content["frames"]):  # names that alphabetical order gets wrong
        old = tmp_path / HASHES[0] / "images_4" / frame["file_path"].rpartition("/")[2]
        old.rename(old.with_name(f"frame_{9 + number}.png"))
        frame["file_path"] = f"images/frame_{9 + number}.png"
    (tmp_path / HASHES[0] / "transforms.json").write_text(json.dumps(content))
    scene = open_scene(tmp_path)
    assert scene.capture.names == ("frame_9", "frame_10", "frame_11", "frame_12")
    kept = load_capture(convert_scene(scene, tmp_path / "copy"))
    assert kept.ordered
    assert kept.names == scene.capture.names
    write_nerfstudio(tmp_path / "photos", room, camera_model="PINHOLE")
    assert not load_capture(convert_scene(open_scene(tmp_path / "photos"), tmp_path / "b")).ordered


def test_dl3dv_portrait_copies_are_told(room, tmp_path) -> None:
    write_dl3dv(tmp_path / HASHES[0], room)
    for file in (tmp_path / HASHES[0] / "images_4").iterdir():
        cv2.imwrite(str(file), np.rot90(cv2.imread(str(file))).copy())
    with pytest.raises(UserError, match=r"72x96 are no smaller copies of the 384x288"):
        open_scene(tmp_path)
    for file in (tmp_path / HASHES[0] / "images_4").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="is empty"):
        open_scene(tmp_path)


def test_the_benchmark_is_read_and_never_trained_on(room, tmp_path) -> None:
    root = tmp_path / "bench"
    write_dl3dv(root / HASHES[1] / "nerfstudio", room)
    assert list_scenes(root) == [HASHES[1]]
    (root / "benchmark-meta.csv").write_text(f"hash,name\n{HASHES[0]},x\n{HASHES[1]},y\n")
    scene = open_scene(root)
    assert scene.name == HASHES[1]
    assert_poses(scene, room.world_from_cam)

    for benchmark in (root, root / "benchmark-meta.csv"):
        assert benchmark_hashes(benchmark) == set(HASHES)
        refuse_benchmark(["other", "1K/" + "ab" * 32], benchmark)
        with pytest.raises(UserError, match="1 scenes of the DL3DV benchmark"):
            refuse_benchmark(["fine", f"1K/{HASHES[0]}"], benchmark)
    refuse_benchmark(["a room", "livingroom1"], "")
    convert_scene(scene, tmp_path / "renamed")
    with pytest.raises(UserError, match="1 scenes of the DL3DV benchmark"):
        refuse_benchmark([str(tmp_path / "renamed")], root)
    with pytest.raises(UserError, match="dl3dv-benchmark"):
        refuse_benchmark([f"1K/{HASHES[0]}"], "")
    (tmp_path / "empty.csv").write_text("hash\n")
    with pytest.raises(UserError, match="no hash"):
        refuse_benchmark([HASHES[0]], tmp_path / "empty.csv")
