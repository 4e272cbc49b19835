"""Ground truth off the disk: half pixels, crops, depth of another size, and what may be missing."""

import json

import cv2
import numpy as np
import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.run import evaluate_reconstruction
from reliev3r.geometry.camera import project, ray_map, transform
from reliev3r.geometry.rigid import invert

DEPTH_MM = np.arange(1000, 1032, dtype=np.uint16).reshape(4, 8)  # every pixel of the 8x4 image is told apart
WHOLE = torch.tensor([[0.0, 0.0, 8.0, 4.0]])


def write_capture(folder, frames=None, depth=DEPTH_MM):
    """A capture of one 8x4 frame 'a' with depth and one 'b' without, or of the ``frames`` given."""
    (folder / "depth").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "depth" / "a.png"), depth)
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    both = {"width": 8, "height": 4, "K": [[10, 0, 3.5], [0, 12, 1.5], [0, 0, 1]], "cam_to_world": pose.tolist()}
    if frames is None:
        frames = [{"name": "a", "image": "images/a.png", "depth": "depth/a.png", **both}]
        frames.append({"name": "b", "image": "images/b.png", **both})
    (folder / "cameras.json").write_text(json.dumps({"convention": "OpenCV", "frames": frames}))
    return folder


def test_the_whole_image_at_its_own_size(tmp_path):
    truth = load_truth(write_capture(tmp_path), ["a"], regions=WHOLE, size=(4, 8))
    assert torch.allclose(truth.depth[0], torch.from_numpy(DEPTH_MM.astype(np.float32)) / 1000)
    assert truth.valid.all()
    # centres at integers on disk, corners here: the middle of 8x4 is 3.5, 1.5 there and 4, 2 here
    assert truth.K[0].tolist() == [[10, 0, 4], [0, 12, 2], [0, 0, 1]]
    assert truth.world_from_cam[0, :3, 3].tolist() == [0, 0, 0]  # of this frame's own world


def test_depth_is_looked_up_at_the_centres_of_the_grid(tmp_path):
    # a grid of 2x1 pixels over the crop (2, 1)-(6, 3): centres at (3, 2) and (5, 2), which are pixels [2, 3] and [2, 5]
    truth = load_truth(write_capture(tmp_path), ["a"], regions=torch.tensor([[2.0, 1.0, 4.0, 2.0]]), size=(1, 2))
    assert truth.depth[0].tolist() == [[pytest.approx(DEPTH_MM[2, 3] / 1000), pytest.approx(DEPTH_MM[2, 5] / 1000)]]
    assert truth.K[0].tolist() == [[5, 0, 1], [0, 6, 0.5], [0, 0, 1]]


def test_a_finer_grid_repeats_the_nearest_pixel(tmp_path):
    truth = load_truth(write_capture(tmp_path), ["a"], regions=WHOLE, size=(8, 16))
    assert torch.equal(truth.depth[0, ::2, ::2], truth.depth[0, 1::2, 1::2])
    assert truth.K[0].tolist() == [[20, 0, 8], [0, 24, 4], [0, 0, 1]]


def test_a_depth_map_of_half_the_size_covers_the_same_image(tmp_path):
    folder = write_capture(tmp_path, depth=np.array([[1000, 2000, 3000, 4000], [5000, 6000, 7000, 8000]], np.uint16))
    truth = load_truth(folder, ["a"], regions=WHOLE, size=(4, 8))
    assert truth.depth[0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert truth.depth[0, 3].tolist() == [5, 5, 6, 6, 7, 7, 8, 8]


def test_what_is_outside_or_unknown_is_not_valid_and_still_positive(tmp_path):
    holes = DEPTH_MM.copy()
    holes[1, 2] = 0
    truth = load_truth(
        write_capture(tmp_path, depth=holes), ["a"], regions=torch.tensor([[-2.0, -1.0, 12.0, 6.0]]), size=(6, 12)
    )
    inside = torch.zeros(6, 12, dtype=torch.bool)
    inside[1:5, 2:10] = True
    inside[2, 4] = False
    assert torch.equal(truth.valid[0], inside)
    assert (truth.depth > 0).all()


def test_frames_come_in_the_order_asked_for_and_may_lack_depth(tmp_path):
    truth = load_truth(write_capture(tmp_path), ["b", "a"], regions=WHOLE.expand(2, 4), size=(4, 8))
    assert truth.valid.flatten(1).any(1).tolist() == [False, True]


def test_missing_truth_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cameras\.json: not found, so this capture has no ground truth"):
        load_truth(tmp_path, ["a"], regions=WHOLE, size=(4, 8))
    write_capture(tmp_path)
    with pytest.raises(UserError, match="no frame 'z'"):
        load_truth(tmp_path, ["z"], regions=WHOLE, size=(4, 8))
    with pytest.raises(UserError, match="frame 'a' is 8x4, the prediction was made from 16x8"):
        load_truth(tmp_path, ["a"], regions=WHOLE, size=(4, 8), image_sizes=[(16, 8)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cam_to_world": None}, "this capture has no ground truth: poses are missing"),
        ({"K": None}, "needs width, height, a 3x3 K"),
        ({"K": [[1, 2], [3, 4]]}, "frame 'a': K must be"),
        ({"cam_to_world": [[float("nan")] * 4] * 4}, "not finite"),
        ({"depth": "depth/none.png"}, r"none\.png: not a readable 16-bit PNG depth map"),
    ],
)
def test_bad_frames_are_named(tmp_path, change, message):
    write_capture(tmp_path)
    frame = json.loads((tmp_path / "cameras.json").read_text())["frames"][0]
    write_capture(tmp_path, frames=[{**frame, **change}])
    with pytest.raises(UserError, match=message):
        load_truth(tmp_path, ["a"], regions=WHOLE, size=(4, 8))


def test_colour_pictures_are_no_depth_maps(tmp_path):
    folder = write_capture(tmp_path)
    cv2.imwrite(str(folder / "depth" / "a.png"), np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(UserError, match="not a readable 16-bit PNG"):
        load_truth(folder, ["a"], regions=WHOLE, size=(4, 8))


@pytest.mark.parametrize("content", ['{"frames": 3}', '{"frames": [1]}', "[]", '{"frames": [{}]}'])
def test_a_damaged_cameras_file_is_named(tmp_path, content):
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(UserError, match=r"cameras\.json: needs a list 'frames'"):
        load_truth(tmp_path, ["a"], regions=WHOLE, size=(4, 8))


def test_depth_of_a_real_capture_agrees_between_frames(shared_data):
    """K, poses, half pixels and depth of box_rgbd fit together: 2 % between frames 20 apart."""
    names = ["000031", "000051"]
    region = torch.tensor([[16.0, 8.0, 600.0, 450.0]]).expand(2, 4)
    truth = load_truth(shared_data / "box_rgbd", names, regions=region, size=(225, 300))
    assert truth.valid.float().mean() > 0.1
    points = (ray_map(truth.K, 225, 300) * truth.depth[..., None])[0][truth.valid[0]]
    there = transform(invert(truth.world_from_cam[1]) @ truth.world_from_cam[0], points)
    u, v = project(there, truth.K[1]).floor().long().unbind(-1)
    hit = (u >= 0) & (u < 300) & (v >= 0) & (v < 225)
    u, v, z = u[hit], v[hit], there[hit, 2]
    measured, valid = truth.depth[1, v, u], truth.valid[1, v, u]
    assert valid.sum() > 1000
    error = ((z - measured).abs() / measured)[valid]
    assert error.median() < 0.02


def make_reconstruction(folder, regions, size, names=("a",), sizes=((8, 4),)):
    truth = load_truth(folder, names, regions=regions, size=size)
    prediction = Prediction(
        depth=truth.depth, rays=ray_map(truth.K, *size), conf=truth.depth, world_from_cam=truth.world_from_cam
    )
    image = torch.zeros(*truth.depth.shape, 3, dtype=torch.uint8)
    return Reconstruction(
        prediction=prediction, names=names, image_files=names, image=image, sizes=sizes, regions=regions
    )


@pytest.mark.parametrize("protocol", ["strict", "mapanything"])
def test_a_reconstruction_of_a_crop_is_scored_where_its_pixels_lie(tmp_path, protocol):
    """Depth copied from the crop scores perfectly; the same numbers said to lie one pixel further do not."""
    folder = write_capture(tmp_path, depth=1000 * (DEPTH_MM % 32 + 1))
    region = torch.tensor([[2.0, 1.0, 4.0, 2.0]])
    right = make_reconstruction(folder, region, (2, 4))
    assert evaluate_reconstruction(right, folder, protocol).depth_rel == pytest.approx(0, abs=1e-6)
    shifted = Reconstruction(**{**vars(right), "regions": region + torch.tensor([1.0, 0, 0, 0])})
    assert evaluate_reconstruction(shifted, folder, protocol).depth_rel > 0.002


def test_another_capture_is_refused(tmp_path):
    folder = write_capture(tmp_path)
    reconstruction = make_reconstruction(folder, WHOLE, (4, 8))
    other = Reconstruction(**{**vars(reconstruction), "sizes": ((16, 8),)})
    with pytest.raises(UserError, match="made from 16x8"):
        evaluate_reconstruction(other, folder)


def test_strict_scores_on_the_pixels_of_the_truth(shared_data):
    """The truth at 64x48 pixels is no perfect prediction of the truth at 640x480: it is off at edges."""
    root = shared_data / "livingroom1"
    region, names = torch.tensor([[0.0, 0, 640, 480]]).expand(2, 4), ("00000", "00020")
    coarse = make_reconstruction(root, region, (48, 64), names=names, sizes=((640, 480),) * 2)
    fine = evaluate_reconstruction(coarse, root, "strict")
    own = evaluate_reconstruction(coarse, root, "mapanything")
    assert own.depth_rel == pytest.approx(0, abs=1e-6)
    assert 0.001 < fine.depth_rel < 0.05
