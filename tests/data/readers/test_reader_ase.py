import numpy as np
import pytest
from PIL import Image
from reader_room import assert_consistent, assert_poses
from room_layouts import inverse, rendered, save, through_lens
from scipy.spatial.transform import Rotation

from reliev3r.core.errors import UserError
from reliev3r.data.lenses import fisheye624
from reliev3r.data.readers import find_reader, open_scene

SIDE = 176
"""Pixels: a quarter of the dataset's 704."""
FOCAL, CENTRE = 297.6375381033778, (357.6599197217746, 349.1922497127481)
RADIAL = (0.3650890375644368, -0.1738082418112771, -0.7534945484033189, 2.434788882752295, -2.57786220300886,
          0.8788483538598834)  # fmt: skip
TANGENTIAL = (0.0008005198595407136, -0.000294237814554143)
DEVICE_FROM_CAMERA = np.eye(4)
DEVICE_FROM_CAMERA[:3, :3] = Rotation.from_quat(
    [0.32640934382849085, 0.029274992008313648, 0.033361059956531547, 0.9441858687689326]
).as_matrix()
DEVICE_FROM_CAMERA[:3, 3] = [-0.007530096566173914, -0.01090854984158026, -0.003598063315542823]


def lens(angles):
    """The published model on (theta cos phi, theta sin phi); its focal length and principal point left out."""
    theta2 = (angles**2).sum(-1, keepdims=True)
    bent = angles * (1 + sum(k * theta2 ** (i + 1) for i, k in enumerate(RADIAL)))
    x, y = bent[..., 0], bent[..., 1]
    p, q = TANGENTIAL
    return np.stack([x + p * (3 * x**2 + y**2) + 2 * q * x * y, y + q * (x**2 + 3 * y**2) + 2 * p * x * y], axis=-1)


@pytest.fixture(scope="module")
def stored(room):
    """(rgb, millimetres along the ray) as the camera on its side sees them; black and 0 where it sees nothing."""
    scale = SIDE / 704
    u, v = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    target = np.stack([(u / scale - 0.5 - CENTRE[0]) / FOCAL, (v / scale - 0.5 - CENTRE[1]) / FOCAL], axis=-1)
    outside = np.linalg.norm(target, axis=-1) > 1415 / 4 / FOCAL
    angles = inverse(lens, np.where(outside[..., None], 0, target))
    theta = np.linalg.norm(angles, axis=-1, keepdims=True)
    xy = angles * np.tan(theta) / np.maximum(theta, 1e-12)
    # the world's up is -y of an upright camera; this one lies on its side: its x axis points down, its y axis left
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    rgb, z = through_lens(room.world_from_cam, xy, turn)
    length = np.rint(1000 * z * np.sqrt((xy**2).sum(-1) + 1)).astype(np.uint16)
    rgb[:, outside], length[:, outside] = 0, 0
    length[:, 80:90, 80:90] = 65535
    return rgb, length


@pytest.fixture
def walk(tmp_path, room, stored):
    folder = tmp_path / "train" / "317"
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]
    names = "tx_world_device,ty_world_device,tz_world_device,qx_world_device,qy_world_device,qz_world_device,"
    lines = [f"graph_uid,tracking_timestamp_us,utc_timestamp_ns,{names}qw_world_device,quality_score"]
    for k, pose in enumerate(room.world_from_cam):
        save(folder / "rgb" / f"vignette{k:07d}.jpg", stored[0][k], quality=95)
        save(folder / "depth" / f"depth{k:07d}.png", stored[1][k])
        device = pose @ turn @ np.linalg.inv(DEVICE_FROM_CAMERA)
        numbers = [*device[:3, 3], *Rotation.from_matrix(device[:3, :3]).as_quat()]
        lines.append(",".join(["uid", str(33333 * k), "-1", *(f"{x:.9f}" for x in numbers), "1.0"]))
    (folder / "trajectory.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_it_is_read_back(walk, room):
    assert find_reader(walk)[0] == "ase"
    scene = open_scene(walk)
    assert scene.name == "train/317"
    frame = scene.capture.frames[2]
    assert (frame.width, frame.height) == (SIDE, SIDE)
    assert_poses(scene, room.world_from_cam)
    assert_consistent(scene)
    expected_rgb, expected = rendered(room.world_from_cam[2:3], frame.K, (SIDE, SIDE))
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
        params=[FOCAL, FOCAL, *CENTRE, *RADIAL, *TANGENTIAL, *prism],
    )
    rng = np.random.default_rng(1)
    rays = np.concatenate([rng.uniform(-1, 1, (50, 2)), np.ones((50, 1))], axis=1)
    ours = fisheye624(rays, (FOCAL, *CENTRE, *RADIAL, *TANGENTIAL, *prism))
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
