import numpy as np
import pytest
from layouts import ASE_CENTRE, ASE_FOCAL, ASE_RADIAL, ASE_TANGENTIAL, write_ase
from PIL import Image
from reader_room import assert_consistent, assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.lenses import fisheye624
from reliev3r.data.readers import find_reader, open_scene

SIDE = 176
"""Pixels: a quarter of the dataset's 704."""


@pytest.fixture
def walk(tmp_path, room):
    write_ase(tmp_path / "train" / "317", room, side=SIDE, unknown=(slice(80, 90), slice(80, 90)))
    return tmp_path


def test_it_is_read_back(walk, room):
    assert find_reader(walk)[0] == "ase"
    scene = open_scene(walk)
    assert scene.name == "train/317"
    frame = scene.capture.frames[2]
    assert (frame.width, frame.height) == (SIDE, SIDE)
    assert_poses(scene, room.world_from_cam)
    assert_consistent(scene)
    seen = room.view(2).by(frame.K, (SIDE, SIDE))
    expected_rgb, expected = seen.rgb, seen.depth
    read = scene.truth.depth(frame.name)
    unknown = read == 0
    assert 0.003 < unknown.mean() < 0.006  # the 65535 alone: the lens saw all the rest
    assert np.median(np.abs(read - expected[0])[~unknown] / expected[0][~unknown]) < 0.005
    difference = np.abs(scene.capture.image(2).astype(int) - expected_rgb[0]).mean()
    for turns in (1, 2, 3):
        turned = np.abs(np.rot90(scene.capture.image(2), turns).astype(int) - expected_rgb[0]).mean()
        assert difference < 0.4 * turned


def test_the_lens_against_colmap():
    """Another implementation of the same model."""
    pycolmap = pytest.importorskip("pycolmap")
    prism = (0.002, -0.001, 0.0015, 0.0005)  # ASE's are 0
    camera = pycolmap.Camera(
        model="RAD_TAN_THIN_PRISM_FISHEYE",
        width=704,
        height=704,
        params=[ASE_FOCAL, ASE_FOCAL, *ASE_CENTRE, *ASE_RADIAL, *ASE_TANGENTIAL, *prism],
    )
    rng = np.random.default_rng(1)
    rays = np.concatenate([rng.uniform(-1, 1, (50, 2)), np.ones((50, 1))], axis=1)
    ours = fisheye624(rays, (ASE_FOCAL, *ASE_CENTRE, *ASE_RADIAL, *ASE_TANGENTIAL, *prism))
    np.testing.assert_allclose(ours, camera.img_from_cam(rays), atol=1e-6)


def test_without_depth(walk):
    for file in (walk / "train" / "317" / "depth").iterdir():
        file.unlink()
    (walk / "train" / "317" / "depth").rmdir()
    scene = open_scene(walk)
    assert scene.truth.depth("vignette0000000") is None
    assert any("no depth" in caveat for caveat in scene.caveats)


def test_damage_is_named(walk):
    folder = walk / "train" / "317"
    (folder / "depth" / "depth0000001.png").unlink()
    with pytest.raises(UserError, match=r"depth0000001\.png: not found"):
        open_scene(walk).truth.depth("vignette0000001")
    trajectory = folder / "trajectory.csv"
    trajectory.write_text("\n".join(trajectory.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match=r"trajectory\.csv: 3 poses for the 4 images"):
        open_scene(walk)
    trajectory.write_text("header\na,b,c,d,e,f,g,h,i,j\n")
    with pytest.raises(UserError, match=r"trajectory\.csv: pose 1 has words"):
        open_scene(walk)
    image = folder / "rgb" / "vignette0000000.jpg"
    Image.new("RGB", (176, 132)).save(image)
    with pytest.raises(UserError, match=r"vignette0000000\.jpg: is 176x132, not square"):
        open_scene(walk)
