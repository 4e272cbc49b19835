import dataclasses
import math

import pytest
import torch

from reliev3r.core.types import Truth
from reliev3r.geometry.camera import project, transform, unproject
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import depth_edges, sample_bilinear
from reliev3r.geometry.statistics import weighted_median
from reliev3r.synthetic.experts import (
    DepthNoise,
    TrackNoise,
    simulate_depth,
    simulate_depth_map,
    simulate_tracks,
)
from reliev3r.synthetic.path import look_at
from reliev3r.synthetic.render import render

CLEAN = DepthNoise(scale=1.0, distortion=0.0, edge_blur=0.0, outliers=0.0)
PERFECT = TrackNoise(count=200, pixel=0.0, false=0.0, drop=0.0)


def log_ratio(labels, truth):
    return (labels.depth / truth.depth).log()


def test_without_noise_the_depth_expert_tells_the_truth(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, CLEAN, 0)
    torch.testing.assert_close(labels.depth, truth.depth)
    assert labels.ambiguity == "scale"
    assert torch.equal(labels.valid, truth.valid)


def test_each_view_has_a_scale_of_its_own(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, dataclasses.replace(CLEAN, scale=3.0), 0)
    ratio = log_ratio(labels, truth).flatten(1)
    assert ratio.std(1).max() < 1e-4
    scales = ratio.mean(1)
    assert scales.abs().max() <= math.log(3) + 1e-4
    assert (scales[:, None] - scales).abs()[~torch.eye(4, dtype=torch.bool)].min() > 0.01


def test_distortion_has_the_amplitude_that_was_asked_for_and_is_smooth(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, dataclasses.replace(CLEAN, distortion=0.06), 0)
    ratio = log_ratio(labels, truth)
    torch.testing.assert_close(ratio.flatten(1).std(1), torch.full((4,), 0.06), rtol=1e-3, atol=0)
    assert ratio.flatten(1).mean(1).abs().max() < 1e-4
    assert ratio.diff(dim=-1).abs().max() < 0.02  # 160 columns, 4 control points
    correlation = torch.corrcoef(ratio.flatten(1)) - torch.eye(4)
    assert correlation.abs().max() < 0.9


def test_blur_stays_near_depth_edges(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, dataclasses.replace(CLEAN, edge_blur=1 / 160), 0)
    changed = (labels.depth / truth.depth - 1).abs() > 1e-3
    edges = depth_edges(truth.depth, rtol=0.1)
    near = torch.nn.functional.max_pool2d(edges[:, None].float(), 5, 1, 2)[:, 0] > 0
    assert not (changed & ~near).any()
    assert (changed & edges).sum() > 0.5 * edges.sum()
    assert labels.depth.min() > 0.99 * truth.depth.min()
    assert labels.depth.max() < 1.01 * truth.depth.max()


def test_outliers_have_the_share_that_was_asked_for_and_come_in_patches(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, dataclasses.replace(CLEAN, outliers=0.05), 0)
    far = log_ratio(labels, truth) > 0.5 * math.log(5)
    torch.testing.assert_close(far.flatten(1).float().mean(1), torch.full((4,), 0.05), atol=1e-3, rtol=0)
    torch.testing.assert_close(labels.depth[far], 5 * truth.depth[far])
    border = far[..., 1:] != far[..., :-1]
    assert border.sum() < 0.3 * far.sum()


def test_the_default_expert_is_about_as_wrong_as_it_says(small_capture):
    _, truth = small_capture
    labels = simulate_depth(truth, DepthNoise(), 0)
    ratio = (labels.depth / truth.depth).flatten(1)
    ratio = ratio / weighted_median(ratio, torch.ones_like(ratio))[:, None]
    error = (ratio - 1).abs().median(1).values
    assert error.min() > 0.02
    assert error.max() < 0.08
    assert (labels.depth > 0).all()


def test_invalid_pixels_neither_leak_nor_count(small_capture):
    _, truth = small_capture
    hole = truth.valid.clone()
    hole[:, 20:60, 40:80] = False
    depth = torch.where(hole, truth.depth, 0.0)
    labels = simulate_depth(dataclasses.replace(truth, depth=depth, valid=hole), DepthNoise(outliers=0.0), 0)
    full = simulate_depth(truth, DepthNoise(outliers=0.0), 0)
    assert torch.equal(labels.valid, hole)
    edge = torch.zeros_like(hole)
    edge[:, 17:63, 37:83] = True
    torch.testing.assert_close(labels.depth[~edge], full.depth[~edge])
    assert (labels.depth[hole] > 0.1).all()
    assert ((labels.depth / full.depth)[hole & edge] - 1).abs().max() < 0.5
    empty = dataclasses.replace(truth, valid=torch.zeros_like(hole))
    assert torch.isfinite(simulate_depth(empty, DepthNoise(), 0).depth).all()


def test_depth_maps_depend_on_seed_and_name_alone(small_capture):
    _, truth = small_capture
    depth, valid = truth.depth[0], truth.valid[0]
    one = simulate_depth_map(depth, valid, DepthNoise(), name="000001", seed=0)
    assert torch.equal(one, simulate_depth_map(depth, valid, DepthNoise(), name="000001", seed=0))
    for name, seed in (("000002", 0), ("000001", 1)):
        assert not torch.allclose(one, simulate_depth_map(depth, valid, DepthNoise(), name=name, seed=seed))
    batched = simulate_depth(truth, DepthNoise(), 5)
    nested = simulate_depth(truth.map(lambda x: x[None]), DepthNoise(), 5)
    assert torch.equal(nested.depth[0], batched.depth)


def reprojections(tracks, truth, source, target):
    """Pixels in ``target`` of what ``source`` sees at its observations, the observed ones, and where both see them."""
    depth = 1 / sample_bilinear(1 / truth.depth[source], tracks.uv[source])
    world = transform(truth.world_from_cam[source], unproject(tracks.uv[source], depth, truth.K[source]))
    local = transform(invert(truth.world_from_cam[target]), world)
    both = tracks.visible[source] & tracks.visible[target]
    return project(local, truth.K[target])[both], tracks.uv[target][both]


def test_perfect_tracks_are_true_to_the_pixel(small_capture):
    _, truth = small_capture
    tracks = simulate_tracks(truth, PERFECT, 0)
    assert tracks.uv.shape == (4, 200, 2)
    assert (tracks.visible.sum(0) >= 2).all()
    for source, target in ((0, 1), (1, 0), (1, 3)):
        expected, observed = reprojections(tracks, truth, source, target)
        distance = (expected - observed).norm(dim=-1)
        assert len(distance) > 50
        assert distance.median() < 0.01
        assert distance.quantile(0.95) < 1.0


def test_noise_false_matches_and_drops_have_the_statistics_asked_for(small_capture):
    _, truth = small_capture
    clean = simulate_tracks(truth, dataclasses.replace(PERFECT, count=2000), 0)
    noisy = simulate_tracks(truth, TrackNoise(count=2000, pixel=0.5, false=0.0, drop=0.0), 0)
    assert torch.equal(clean.visible, noisy.visible)
    offset = (noisy.uv - clean.uv)[clean.visible]
    torch.testing.assert_close(offset.std(0), torch.full((2,), 0.5), rtol=0.05, atol=0)

    false = simulate_tracks(truth, TrackNoise(count=2000, pixel=0.0, false=0.2, drop=0.0), 0)
    astray = ((false.uv - clean.uv)[clean.visible].norm(dim=-1) > 1).float().mean()
    assert astray.item() == pytest.approx(0.2, abs=0.02)

    dropped = simulate_tracks(truth, TrackNoise(count=2000, pixel=0.0, false=0.0, drop=0.4), 0)
    assert 0.55 < dropped.visible.sum() / clean.visible.sum() < 0.8


def test_uv_stay_in_the_image_and_are_zero_where_unseen(small_capture):
    _, truth = small_capture
    tracks = simulate_tracks(truth, TrackNoise(count=500, pixel=5.0), 0)
    assert (tracks.uv >= 0).all()
    assert (tracks.uv <= torch.tensor([160.0, 120.0])).all()
    assert (tracks.uv[~tracks.visible] == 0).all()
    assert set(tracks.weight.unique().tolist()) == {0.0, 1.0}


def test_hidden_points_are_not_visible(make_room):
    """Two cameras on the two sides of a partition: no point of the room's middle is seen by both."""
    room = make_room(boxes=[((0.0, 0.0, 0.0), (0.05, 2.99, 1.49), 0.0)])
    poses = torch.stack(
        [
            look_at(torch.tensor([-3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])),
            look_at(torch.tensor([-3.0, 0.3, 0.0]), torch.tensor([0.0, 0.0, 0.0])),
            look_at(torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])),
        ]
    )
    K = torch.tensor([[60.0, 0.0, 48.0], [0.0, 60.0, 36.0], [0.0, 0.0, 1.0]]).expand(3, 3, 3)
    _, truth = render(room, K, poses, (72, 96), supersample=1)
    tracks = simulate_tracks(truth, PERFECT, 0)
    assert (tracks.visible[0] & tracks.visible[1]).sum() > 150
    assert not (tracks.visible[:2] & tracks.visible[2]).any()


def test_tracks_without_enough_common_points_have_no_weight(small_capture):
    _, truth = small_capture
    alone = truth.select_views([0])
    tracks = simulate_tracks(alone, PERFECT, 0)
    assert tracks.uv.shape == (1, 200, 2)
    assert not tracks.visible.any()
    nothing = dataclasses.replace(truth, valid=torch.zeros_like(truth.valid))
    assert not simulate_tracks(nothing, PERFECT, 0).visible.any()


def test_batches_of_captures(small_capture):
    _, truth = small_capture
    both = Truth(**{k: torch.stack([v, v.flip(0)]) for k, v in vars(truth).items() if k != "metric"})
    tracks = simulate_tracks(both, PERFECT, 0)
    assert tracks.uv.shape == (2, 4, 200, 2)
    assert not torch.equal(tracks.uv[0], tracks.uv[1])
    for k in range(2):
        one = dataclasses.replace(tracks, uv=tracks.uv[k], weight=tracks.weight[k])
        expected, observed = reprojections(one, both.map(lambda x, k=k: x[k]), 0, 1)
        assert (expected - observed).norm(dim=-1).median() < 0.01


def test_tracks_are_seeded(small_capture):
    _, truth = small_capture
    first = simulate_tracks(truth, TrackNoise(), 3)
    assert torch.equal(first.uv, simulate_tracks(truth, TrackNoise(), 3).uv)
    assert not torch.equal(first.uv, simulate_tracks(truth, TrackNoise(), 4).uv)
