import json
from fractions import Fraction

import av
import numpy as np
import pytest
from layouts import save, write_exr, write_mvs_synth
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, open_scene
from reliev3r.data.readers._depth import read_exr

SKY = (slice(0, 6), slice(0, 96))
UNIT = 10.0
"""Of the game in a metre."""


@pytest.fixture
def game(tmp_path, room):
    write_mvs_synth(tmp_path / "GTAV_540" / "0007", room, unit=UNIT, sky=SKY)
    return tmp_path


def test_it_is_read_back(game, room):
    assert find_reader(game)[0] == "mvs-synth"
    scene = open_scene(game)
    assert scene.name == "GTAV_540/0007"
    assert not scene.truth.metric
    assert np.array_equal(scene.capture.image(3), room.rgb[3])
    np.testing.assert_allclose(scene.capture.frames[0].K, room.K)
    assert_poses(scene, room.world_from_cam, similarity=True)
    depth = scene.truth.depth("0002")
    assert (depth[SKY] == 0).all()
    np.testing.assert_allclose(depth[6:], UNIT * room.depth[2, 6:], rtol=1e-6)
    assert_consistent(scene)


def test_damage_is_named(game):
    folder = game / "GTAV_540" / "0007"
    exr = folder / "depths" / "0001.exr"
    content = exr.read_bytes()
    for length in (0, 3, 40, 200, 500, len(content) // 2, len(content) - 1):
        exr.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"0001\.exr: not a readable OpenEXR depth map"):
            open_scene(game).truth.depth("0001")
    exr.unlink()
    with pytest.raises(UserError, match=r"0001\.exr: not found"):
        open_scene(game).truth.depth("0001")
    pose = folder / "poses" / "0002.json"
    pose.write_text(json.dumps({"f_x": 1}))
    with pytest.raises(UserError, match=r"0002\.json: needs numbers f_x"):
        open_scene(game)
    pose.unlink()
    with pytest.raises(UserError, match=r"0002\.json: not found"):
        open_scene(game)


def test_a_portrait_image_is_refused(game, room):
    save(game / "GTAV_540" / "0007" / "images" / "0001.png", np.rot90(room.rgb[1]).copy())
    with pytest.raises(UserError, match=r"0001\.exr: is 96x72, but the image is 72x96"):
        open_scene(game).truth.depth("0001")


def test_a_right_handed_world_is_refused(game, room):
    """Then the mirrored pose is no rotation: the file is not what the dataset has."""
    file = game / "GTAV_540" / "0007" / "poses" / "0000.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "extrinsic": np.linalg.inv(room.world_from_cam[0]).tolist()}))
    with pytest.raises(UserError, match=r"0000\.json: the pose is no rotation"):
        open_scene(game)


@pytest.mark.parametrize("names", ["Y", "Z", "R", "V", "RGB", "ABGR"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exr_of_any_channels_and_precision(tmp_path, names, dtype):
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 90, (5, 7)).astype(dtype)
    depth[1, 2], depth[0, 0] = np.inf, 0
    write_exr(tmp_path / "a.exr", {name: depth for name in names})
    read = read_exr(tmp_path / "a.exr")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, depth.astype(np.float32))


@pytest.mark.parametrize("compression", ["rle", "zip1", "zip16"])
def test_compressed_exr(tmp_path, compression):
    """Written by FFmpeg's encoder, which packs lines into blocks."""
    depth = np.linspace(1, 9, 40 * 64, dtype=np.float32).reshape(40, 64)
    depth[10:30] = 3
    codec = av.CodecContext.create("exr", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = 64, 40, "grayf32le", Fraction(1)
    codec.options = {"compression": compression}
    frame = av.VideoFrame(64, 40, "grayf32le")
    frame.planes[0].update(np.pad(depth, ((0, 0), (0, frame.planes[0].line_size // 4 - 64))).tobytes())
    frame.pts = 0
    content = bytes((codec.encode(frame) + codec.encode(None))[0])
    (tmp_path / "a.exr").write_bytes(content)
    assert np.array_equal(read_exr(tmp_path / "a.exr"), depth)
    (tmp_path / "a.exr").write_bytes(content[:-5])
    with pytest.raises(UserError, match=r"a\.exr: not a readable OpenEXR depth map \(truncated\)"):
        read_exr(tmp_path / "a.exr")
