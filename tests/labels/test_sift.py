import itertools

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.data.truth import load_truth
from reliev3r.geometry.rigid import relative, skew
from reliev3r.labels.quality.label_verdict import check_labels
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.matcher import mutual_neighbours
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.sfm.two_view import epipolar_distance


def epipolar_errors(tracks, K, world_from_cam):
    """Distances to the true epipolar lines of all pairs of observations of all tracks."""
    cam_from_cam = relative(world_from_cam.double())
    inverse = torch.linalg.inv(K.double())
    uv, seen, errors = tracks.uv.double().numpy(), tracks.visible.numpy(), []
    for i, j in itertools.combinations(range(len(K)), 2):
        motion = cam_from_cam[j, i]
        F = inverse[j].T @ skew(motion[:3, 3]) @ motion[:3, :3] @ inverse[i]
        both = seen[i] & seen[j]
        errors.append(epipolar_distance(F.numpy(), uv[i, both], uv[j, both]))
    return np.concatenate(errors)


def sift(**settings):
    return PairwiseTracks(matcher=SiftMatcher(), **settings)


def truth_of(capture):
    sizes = torch.tensor([[0.0, 0.0, frame.width, frame.height] for frame in capture.frames])
    size = (capture.frames[0].height, capture.frames[0].width)
    return load_truth(capture.root, capture.names, regions=sizes, size=size)


@pytest.mark.parametrize("spec", [None, "estimate"])
def test_rendered_views_match_as_the_truth_says(rendered, spec):
    capture = with_intrinsics(load_capture(rendered), spec)
    tracks = track_expert("sift").track(capture)
    truth = truth_of(capture)
    errors = epipolar_errors(tracks, truth.K, truth.world_from_cam)
    assert (errors < 2).mean() > 0.97
    assert np.median(errors) < 0.3
    assert tracks.visible.sum(1).min() > 50
    assert (tracks.visible.sum(0) >= 3).sum() > 100
    length = tracks.visible.sum(0)
    assert length.min() >= 2
    assert bool((length[:-1] >= length[1:]).all())


def test_same_capture_gives_the_same_tracks(rendered):
    capture = load_capture(rendered, views=3)
    first, second = (sift().track(capture) for _ in range(2))
    assert torch.equal(first.uv, second.uv)
    assert torch.equal(first.weight, second.weight)


def test_pixels_are_corner_based():
    """A blob whose centre lies at (41.3, 30.6) when the first pixel's centre is (0.5, 0.5) is found there."""
    v, u = np.mgrid[:60, :80] + 0.5
    blob = np.exp(-((u - 41.3) ** 2 + (v - 30.6) ** 2) / (2 * 3.0**2))
    image = (40 + 200 * blob).astype(np.uint8)
    features = SiftMatcher().detect(image)
    nearest = np.abs(features.uv - [41.3, 30.6]).max(1).min()
    assert nearest < 0.05


def test_large_images_are_matched_small_and_mapped_back(rendered, tmp_path):
    capture = load_capture(rendered, views=3)
    for index, frame in enumerate(capture.frames):
        large = cv2.resize(capture.image(index), None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
        Image.fromarray(large).save(tmp_path / f"{frame.name}.png")
    large = load_capture(tmp_path)
    tracks = sift(long_side=240).track(large)
    truth = truth_of(capture)
    assert tracks.uv.amax() > 300  # original pixels
    small = type(tracks)(uv=tracks.uv / 2.5, weight=tracks.weight)
    errors = epipolar_errors(small, truth.K, truth.world_from_cam)
    assert (errors < 2).mean() > 0.95


def test_number_of_tracks_is_bounded(rendered):
    capture = load_capture(rendered, views=3)
    tracks = sift(max_tracks=50).track(capture)
    assert tracks.weight.shape == (3, 50)
    assert tracks.visible.sum(1).min() > 10


def test_no_texture_gives_no_tracks(tmp_path):
    for name in ("a", "b", "c"):
        Image.new("RGB", (64, 48), (90, 90, 90)).save(tmp_path / f"{name}.png")
    assert sift().track(load_capture(tmp_path)).weight.shape == (3, 0)


def test_noise_matches_nothing(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    assert sift().track(load_capture(tmp_path)).weight.shape[1] == 0


def test_progress_reaches_the_end(rendered):
    seen = []
    sift().track(load_capture(rendered, views=3), progress=lambda *args: seen.append(args))
    assert [done for done, _, _ in seen] == list(range(1, 7))  # three images, three pairs
    assert {total for _, total, _ in seen} == {6}


def test_mutual_neighbours_by_hand():
    a = np.eye(4, dtype=np.float32)[:3]
    b = np.array([[0, 1, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 0, 1]], np.float32)
    index_a, index_b, ratio = mutual_neighbours(a, b)
    # a0's nearest is b1 and back; a1's is b0 and back; a2 is orthogonal to all.
    assert (0, 1) in zip(index_a.tolist(), index_b.tolist())
    assert (1, 0) in zip(index_a.tolist(), index_b.tolist())
    assert ratio[index_a == 1][0] == 0
    np.testing.assert_allclose(ratio[index_a == 0], np.sqrt((2 - 1.6) / 2), rtol=1e-6)


def test_unknown_expert_lists_the_choices():
    with pytest.raises(UserError, match="choose one of sift"):
        track_expert("magic")


@pytest.mark.parametrize("name", ["box_rgbd", "livingroom1"])
def test_real_captures_are_tied_together(shared_data, name):
    """Six wide views: every pair of neighbours shares many tracks, most of them within the poses' own error."""
    capture = load_capture(shared_data / name, views=6)
    tracks = sift().track(capture)
    seen = tracks.visible.float()
    shared = seen @ seen.T
    assert shared.diagonal(1).min() >= 100
    truth = truth_of(capture)
    errors = epipolar_errors(tracks, truth.K, truth.world_from_cam)
    assert (errors < 8).mean() > 0.93  # these poses are good to about a degree


def test_unrelated_sets_stay_apart(tmp_path):
    for seed, name in enumerate(("first", "second")):
        noise = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        poster = cv2.resize(noise, (240, 180), interpolation=cv2.INTER_CUBIC)
        for view in range(3):
            tilt = np.array([[1, 0.02 * view, 3.0 * view], [0.01 * view, 1, -2.0 * view], [2e-4 * view, 0, 1]])
            Image.fromarray(cv2.warpPerspective(poster, tilt, (240, 180))).save(tmp_path / f"{name}{view}.png")
    tracks = sift().track(load_capture(tmp_path))
    seen = tracks.visible.float()
    shared = seen @ seen.T
    assert shared[:3, :3].min() > 50
    assert shared[3:, 3:].min() > 50
    assert shared[:3, 3:].max() == 0
    (warning,) = check_labels(tracks, [f"{name}{view}" for name in ("first", "second") for view in range(3)])
    assert "(first0, first1, first2; second0, second1, second2)" in warning
