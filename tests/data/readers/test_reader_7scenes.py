import numpy as np
import pytest
from layouts import pinhole, save
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, list_scenes, open_scene

K = pinhole(87.75, 87.75, 48, 36)
"""585, 320 and 240 pixels at 640 x 480."""


@pytest.fixture(scope="module")
def views(room):
    seen = room.by(K, (96, 72))
    return seen.rgb, seen.depth


@pytest.fixture
def chess(tmp_path, room, views):
    rgb, depth = views
    folder = tmp_path / "chess" / "seq-02"
    for k in range(4):
        millimetres = np.rint(1000 * depth[k]).astype(np.uint16)
        millimetres[:8, :8] = 65535
        save(folder / f"frame-{k:06d}.color.png", rgb[k])
        save(folder / f"frame-{k:06d}.depth.png", millimetres)
        rows = ["\t ".join(f"{x: .7e}" for x in row) + "\t " for row in room.world_from_cam[k]]
        (folder / f"frame-{k:06d}.pose.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_it_is_read_back(chess, room, views):
    assert find_reader(chess)[0] == "7scenes"
    assert list_scenes(chess) == ["chess/seq-02"]
    scene = open_scene(chess)
    assert scene.capture.names[1] == "frame-000001"
    assert scene.truth.metric
    assert any("not registered" in caveat for caveat in scene.caveats)
    assert np.array_equal(scene.capture.image(1), views[0][1])
    np.testing.assert_allclose(scene.capture.frames[0].K, K)
    assert_poses(scene, room.world_from_cam)
    depth = scene.truth.depth("frame-000003")
    assert (depth[:8, :8] == 0).all()
    assert np.abs(depth[8:] - views[1][3, 8:]).max() < 6e-4
    assert_consistent(scene)


def test_a_sequence_is_recognised_by_itself(chess):
    assert find_reader(chess / "chess" / "seq-02")[0] == "7scenes"
    assert open_scene(chess / "chess" / "seq-02").name == "seq-02"


def test_damage_is_named(chess, views):
    folder = chess / "chess" / "seq-02"
    save(folder / "frame-000001.depth.png", (views[1][1] * 20).astype(np.uint8))
    with pytest.raises(UserError, match=r"frame-000001\.depth\.png: not a readable 16-bit grey PNG"):
        open_scene(chess).truth.depth("frame-000001")
    save(folder / "frame-000001.depth.png", np.ones((36, 48), np.uint16))
    with pytest.raises(UserError, match=r"frame-000001\.depth\.png: is 48x36, but the image is 96x72"):
        open_scene(chess).truth.depth("frame-000001")
    pose = folder / "frame-000002.pose.txt"
    pose.write_text("1 0 0 0\n0 1 0")
    with pytest.raises(UserError, match=r"frame-000002\.pose\.txt: .*restore"):
        open_scene(chess)
    pose.unlink()
    with pytest.raises(UserError, match=r"frame-000002\.pose\.txt: not found"):
        open_scene(chess)
