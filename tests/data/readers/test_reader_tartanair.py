import numpy as np
import pytest
from layouts import ned, pinhole, quaternion_line, save, write_exr, write_tartanair, write_text
from PIL import Image
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, list_scenes, open_scene

SKY = (slice(0, 9), slice(0, 20))


@pytest.fixture
def v1(tmp_path, room):
    write_tartanair(tmp_path / "office" / "Easy" / "P001", room, width=96, sky=SKY)
    return tmp_path


def test_v1_is_read_back(v1, room):
    assert find_reader(v1)[0] == "tartanair"
    assert list_scenes(v1) == ["office/Easy/P001"]
    scene = open_scene(v1)
    assert scene.capture.names == tuple(f"{k:06d}_left" for k in range(4))
    assert scene.capture.ordered
    assert scene.truth.metric
    np.testing.assert_allclose(scene.capture.frames[0].K, pinhole(48, 48, 48, 36))
    assert np.array_equal(scene.capture.image(2), room.by(pinhole(48, 48, 48, 36), (96, 72)).rgb[2])
    assert_poses(scene, room.world_from_cam)
    depth = scene.truth.depth("000001_left")
    assert (depth[SKY] == 0).all()
    assert (depth > 0).sum() == 96 * 72 - 180
    assert_consistent(scene)


def test_one_scene_and_some_views(v1):
    scene = open_scene(v1 / "office" / "Easy" / "P001", views=2)
    assert scene.capture.names == ("000000_left", "000003_left")


def test_v1_damage_is_named(v1):
    folder = v1 / "office" / "Easy" / "P001"
    depth = folder / "depth_left" / "000002_left_depth.npy"
    np.save(depth, np.ones((72, 96), np.int32))
    with pytest.raises(UserError, match=r"000002_left_depth\.npy: not an array of floating-point"):
        open_scene(v1).truth.depth("000002_left")
    depth.write_bytes(depth.read_bytes()[:500])
    with pytest.raises(UserError, match=r"000002_left_depth\.npy: not a readable \.npy"):
        open_scene(v1).truth.depth("000002_left")
    depth.unlink()
    with pytest.raises(UserError, match=r"000002_left_depth\.npy: not found; restore"):
        open_scene(v1).truth.depth("000002_left")
    (folder / "image_left" / "000003_left.png").unlink()
    with pytest.raises(UserError, match=r"pose_left\.txt: 4 poses for the 3 images"):
        open_scene(v1)


def test_a_portrait_image_is_refused(v1):
    file = v1 / "office" / "Easy" / "P001" / "image_left" / "000000_left.png"
    Image.open(file).rotate(90, expand=True).save(file)
    with pytest.raises(UserError, match=r"000000_left\.png: is 72x96, not 640x480 or a resized copy"):
        open_scene(v1)


def test_v1_without_depth_still_has_poses(v1):
    for file in (v1 / "office" / "Easy" / "P001" / "depth_left").iterdir():
        file.unlink()
    (v1 / "office" / "Easy" / "P001" / "depth_left").rmdir()
    scene = open_scene(v1)
    assert scene.truth.depth("000000_left") is None
    assert "no depth" in scene.caveats[0]


def packed(depth):
    """Four bytes a number, the lowest as blue, then green, red, alpha; Pillow stores red, green, blue, alpha."""
    blue, green, red, alpha = np.moveaxis(depth.astype("<f4")[..., None].view(np.uint8), -1, 0)
    return np.stack([red, green, blue, alpha], axis=-1)


def test_v2_is_read_back(tmp_path, room):
    K = pinhole(36, 36, 36, 36)
    seen = room.by(K, (72, 72))
    rgb, depth = seen.rgb, seen.depth
    depth[:, *SKY] = 8248
    folder = tmp_path / "OldTown" / "Data_easy" / "P000"
    for k in range(4):
        save(folder / "image_lcam_front" / f"{k:06d}_lcam_front.png", rgb[k])
        save(folder / "depth_lcam_front" / f"{k:06d}_lcam_front_depth.png", packed(depth[k]))
    lines = [quaternion_line(ned(pose)) for pose in room.world_from_cam]
    write_text(folder / "pose_lcam_front.txt", "\n".join(lines) + "\n")
    assert find_reader(tmp_path)[0] == "tartanair-v2"
    scene = open_scene(tmp_path)
    np.testing.assert_allclose(scene.capture.frames[0].K, K)
    assert np.array_equal(scene.capture.image(1), rgb[1])
    assert_poses(scene, room.world_from_cam)
    assert (scene.truth.depth("000000_lcam_front")[SKY] == 0).all()
    assert_consistent(scene)
    save(folder / "depth_lcam_front" / "000000_lcam_front_depth.png", rgb[0])
    with pytest.raises(UserError, match=r"000000_lcam_front_depth\.png: not a readable 8-bit RGBA PNG"):
        scene.truth.depth("000000_lcam_front")


def test_wide_baseline_sets_are_read_back(tmp_path, room):
    folder = tmp_path / "DesertGasStation"
    for part in ("camera_params", "poses"):
        (folder / part).mkdir(parents=True)
    for k in range(4):
        name = f"{k:08d}_0"
        save(folder / "images" / f"{name}.png", room.rgb[k])
        write_exr(folder / "depth" / f"{name}.exr", {"Y": room.depth[k].astype(np.float32)})
        np.save(folder / "camera_params" / f"{name}.npy", room.K)
        np.save(folder / "poses" / f"{name}.npy", room.world_from_cam[k].astype(np.float32))
    assert find_reader(tmp_path)[0] == "tartanair-v2"
    scene = open_scene(tmp_path)
    assert not scene.capture.ordered
    np.testing.assert_allclose(scene.capture.frames[3].K, room.K)
    assert np.array_equal(scene.capture.image(0), room.rgb[0])
    assert_poses(scene, room.world_from_cam)
    assert_consistent(scene)
