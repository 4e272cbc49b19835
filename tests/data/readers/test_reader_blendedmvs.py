import numpy as np
import pytest
from layouts import save, write_blendedmvs
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, open_scene
from reliev3r.data.readers._depth import read_pfm

HASH = "5a3ca9cb270f0e3f14d0eddb"
UNIT = 7.3
HOLE = (slice(60, 72), slice(0, 30))


@pytest.fixture
def blended(tmp_path, room):
    write_blendedmvs(tmp_path / HASH, room, unit=UNIT, unknown=HOLE)
    return tmp_path


def test_it_is_read_back(blended, room):
    assert find_reader(blended)[0] == "blendedmvs"
    scene = open_scene(blended)
    assert scene.name == HASH
    assert len(scene.capture.frames) == 4  # no masked ones
    assert not scene.truth.metric
    assert any("scale is arbitrary" in caveat for caveat in scene.caveats)
    assert np.abs(scene.capture.image(0).astype(int) - room.rgb[0]).mean() < 6  # JPEG
    np.testing.assert_allclose(scene.capture.frames[0].K, room.K, rtol=1e-8)
    assert_poses(scene, room.world_from_cam, similarity=True)
    depth = scene.truth.depth("00000001")
    assert (depth[HOLE] == 0).all()
    np.testing.assert_allclose(depth[:60], UNIT * room.depth[1, :60], rtol=1e-6)  # the right way up
    assert_consistent(scene)


def test_damage_is_named(blended):
    pfm = blended / HASH / "rendered_depth_maps" / "00000001.pfm"
    pfm.write_bytes(pfm.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"00000001\.pfm: 27640 bytes of depth, not 4 x 96 x 72"):
        open_scene(blended).truth.depth("00000001")
    pfm.write_bytes(b"PF\n2 2\n-1.0\n" + bytes(48))
    with pytest.raises(UserError, match=r"00000001\.pfm: not a one-channel PFM"):
        open_scene(blended).truth.depth("00000001")
    cam = blended / HASH / "cams" / "00000002_cam.txt"
    cam.write_text(cam.read_text()[:40])
    with pytest.raises(UserError, match=r"00000002_cam\.txt: not 'extrinsic' with 16"):
        open_scene(blended)
    cam.unlink()
    with pytest.raises(UserError, match=r"00000002_cam\.txt: not found"):
        open_scene(blended)


def test_a_portrait_image_is_refused(blended, room):
    save(blended / HASH / "blended_images" / "00000001.jpg", np.rot90(room.rgb[1]).copy())
    with pytest.raises(UserError, match=r"00000001\.pfm: is 96x72, but the image is 72x96"):
        open_scene(blended).truth.depth("00000001")


def test_pfm_by_hand(tmp_path):
    file = tmp_path / "a.pfm"
    file.write_bytes(b"Pf\n2 2\n1.0\n" + np.array([3, 4, 1, 2], ">f4").tobytes())  # big endian
    assert read_pfm(file).tolist() == [[1, 2], [3, 4]]
