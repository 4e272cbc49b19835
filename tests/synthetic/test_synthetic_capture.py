import json
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.geometry.rigid import invert, skew
from reliev3r.synthetic.capture import SynthConfig, render_capture, write_capture

TINY = SynthConfig(seed=11, views=3, width=96, height=72, span=25.0, supersample=1)


@pytest.fixture(scope="session")
def photographs():
    """Two neighbouring views of the default size."""
    return render_capture(SynthConfig(seed=0, views=2, span=7.0))


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    return write_capture(tmp_path_factory.mktemp("synthetic") / "capture", TINY)


def sift(image):
    grey = cv2.cvtColor((image.movedim(0, -1).numpy() * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return cv2.SIFT_create().detectAndCompute(grey, None)


def mutual_matches(a, b, ratio=0.8):
    """Pairs of descriptors that pass the ratio test in both directions."""

    def one_way(a, b):
        pairs = cv2.BFMatcher().knnMatch(a, b, k=2)
        return {(m.queryIdx, m.trainIdx) for m, other in pairs if m.distance < ratio * other.distance}

    return sorted(one_way(a, b) & {(i, j) for j, i in one_way(b, a)})


def test_sift_finds_stable_keypoints_whose_matches_lie_on_true_epipolar_lines(photographs):
    views, truth = photographs
    (points_a, descriptors_a), (points_b, descriptors_b) = sift(views.image[0]), sift(views.image[1])
    assert min(len(points_a), len(points_b)) >= 300
    good = mutual_matches(descriptors_a, descriptors_b)
    assert len(good) >= 200
    a = torch.tensor([points_a[i].pt for i, j in good]).double() + 0.5  # OpenCV centres pixels at integers
    b = torch.tensor([points_b[j].pt for i, j in good]).double() + 0.5
    b_from_a = (invert(truth.world_from_cam[1]) @ truth.world_from_cam[0]).double()
    K_inverse = truth.K[0].double().inverse()
    fundamental = K_inverse.T @ skew(b_from_a[:3, 3]) @ b_from_a[:3, :3] @ K_inverse
    lines = torch.nn.functional.pad(a, (0, 1), value=1.0) @ fundamental.T
    distance = (torch.nn.functional.pad(b, (0, 1), value=1.0) * lines).sum(-1).abs() / lines[:, :2].norm(dim=-1)
    assert (distance < 2).double().mean() > 0.9
    assert distance.median() < 0.3


def test_the_same_settings_give_the_same_bytes():
    first_views, first = render_capture(TINY)
    views, truth = render_capture(TINY)
    assert torch.equal(first_views.image, views.image)
    assert torch.equal(first.depth, truth.depth)
    assert torch.equal(first.world_from_cam, truth.world_from_cam)


@pytest.mark.parametrize("change", [{"seed": 12}, {"texture": "terrazzo"}, {"path": "random"}, {"fov": 50.0}])
def test_other_settings_give_another_capture(change):
    base, _ = render_capture(TINY)
    other, _ = render_capture(SynthConfig(**{**vars(TINY), **change}))
    assert (base.image - other.image).abs().mean() > 0.02


def test_K_has_the_field_of_view_and_the_principal_point_in_the_middle():
    views, truth = render_capture(TINY)
    focal = 48 / math.tan(math.radians(65) / 2)
    expected = torch.tensor([[focal, 0, 48], [0, focal, 36], [0, 0, 1]])
    torch.testing.assert_close(views.K, expected.expand(3, 3, 3))
    assert torch.equal(views.K, truth.K)
    assert views.size == (72, 96)


def test_written_capture_says_what_it_is(written):
    cameras = json.loads((written / "cameras.json").read_text())
    assert cameras["synthetic"] == vars(TINY)
    assert "integer" in cameras["convention"]
    assert [f["name"] for f in cameras["frames"]] == ["000000", "000001", "000002"]
    assert sorted(p.name for p in written.iterdir()) == ["cameras.json", "depth", "images"]
    views, _ = render_capture(TINY)
    for k, frame in enumerate(cameras["frames"]):
        pixels = np.array(Image.open(written / frame["image"]))
        assert pixels.shape == (frame["height"], frame["width"], 3)
        np.testing.assert_allclose(pixels / 255, views.image[k].movedim(0, -1), atol=0.5 / 255 + 1e-6)


def test_written_depth_and_K_carry_points_from_view_to_view(written):
    """Read as a stranger would: integer pixel centres, millimetres, OpenCV axes."""
    frames = json.loads((written / "cameras.json").read_text())["frames"]
    depth = [np.array(Image.open(written / f["depth"])) for f in frames]
    assert depth[0].dtype == np.uint16
    metres = [d / 1000 for d in depth]
    K = [np.array(f["K"]) for f in frames]
    assert K[0][0, 2] == pytest.approx(47.5)
    pose = [np.array(f["cam_to_world"]) for f in frames]

    def error(shift):
        rows, columns = np.mgrid[0:72, 0:96].reshape(2, -1)
        homogeneous = np.stack([columns + shift, rows + shift, np.ones_like(rows)])
        camera = np.linalg.inv(K[0]) @ homogeneous * metres[0].reshape(-1)
        world = pose[0][:3, :3] @ camera + pose[0][:3, 3:]
        local = pose[1][:3, :3].T @ (world - pose[1][:3, 3:])
        u, v, _ = K[1] @ local / local[2] - shift
        keep = (u > 0) & (u < 95) & (v > 0) & (v < 71)
        looked_up = cv2.remap(1 / metres[1], u[keep].astype(np.float32), v[keep].astype(np.float32), cv2.INTER_LINEAR)
        return np.abs(looked_up.ravel() * local[2][keep] - 1)

    assert np.median(error(0.0)) < 0.0005
    assert np.median(error(0.0)) < 0.7 * np.median(error(0.5))  # the half pixel is where it is said to be


def test_an_occupied_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        write_capture(tmp_path, TINY)
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]
    with pytest.raises(UserError, match="not an empty folder"):
        write_capture(tmp_path / "note.txt", TINY)


def test_an_empty_folder_is_used_and_a_failure_leaves_nothing(tmp_path):
    impossible = SynthConfig(views=3, width=64, height=48, span=360.0, overlap=0.9)
    with pytest.raises(UserError, match="overlap"):
        write_capture(tmp_path / "failed", impossible)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    calls = []
    tiny = SynthConfig(views=1, width=16, height=12)
    write_capture(tmp_path / "empty", tiny, progress=lambda done, total, what: calls.append(done / total))
    assert (tmp_path / "empty" / "images" / "000000.png").is_file()
    assert calls[-1] == 1


def test_a_folder_that_cannot_be_written_is_told_before_rendering(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_capture(tmp_path / "file" / "capture", TINY)


@pytest.mark.parametrize(
    "bad",
    [
        {"texture": "marble"},
        {"path": "spiral"},
        {"fov": 0.0},
        {"width": 0},
        {"supersample": 0},
        {"views": 0},
        {"overlap": 1.5},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises((UserError, TypeError)):  # the shape checks of the tests may see a wrong literal first
        SynthConfig(**bad)
