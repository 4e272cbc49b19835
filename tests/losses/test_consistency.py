"""Contradictions between views, by hand: cameras side by side before a wall."""

import math

import pytest
import torch

import builders
from reliev3r.core.types import DepthLabels, Prediction, Tracks
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.losses.consistency import WORST, partners, view_gaps
from reliev3r.losses.depth import DepthLossConfig, depth_loss
from reliev3r.losses.weak import ObjectiveConfig, objective

H, W = 6, 10


def side_by_side(depths: list[float], step: float = 0.0) -> Prediction:
    """Views of walls at ``depths``, each camera ``step`` to the right of the one before."""
    views = len(depths)
    K = K_from_fov(1.0, H, W).expand(views, 3, 3)
    world_from_cam = torch.eye(4).repeat(views, 1, 1)
    world_from_cam[:, 0, 3] = step * torch.arange(views)
    depth = torch.tensor(depths)[:, None, None].expand(views, H, W).contiguous().requires_grad_()
    return Prediction(depth=depth, rays=ray_map(K, H, W), conf=torch.ones(views, H, W), world_from_cam=world_from_cam)


def tied(*groups: list[int], views: int) -> Tracks:
    """One track for each group of views that see it."""
    weight = torch.zeros(views, len(groups))
    for track, group in enumerate(groups):
        weight[group, track] = 1
    return Tracks(uv=torch.zeros(views, len(groups), 2), weight=weight)


def test_views_that_agree_have_no_gap() -> None:
    gaps = view_gaps(side_by_side([2.0, 2.0, 2.0], step=0.2), tied([0, 1, 2], views=3))
    assert gaps.shape == (3, H, W)
    assert not gaps.requires_grad
    assert gaps.max() < 1e-5


def test_a_gap_is_the_mean_log_ratio_over_the_other_views() -> None:
    gaps = view_gaps(side_by_side([2.0, 2.0, 2.2]), tied([0, 1, 2], views=3))
    third = math.log(1.1)
    torch.testing.assert_close(gaps[0], torch.full((H, W), third / 2))
    torch.testing.assert_close(gaps[2], torch.full((H, W), third))
    # nothing is worse than what counts as hidden
    assert view_gaps(side_by_side([2.0, 20.0]), tied([0, 1], views=2)).unique().item() == pytest.approx(WORST)


def test_a_pixel_that_no_view_sees_counts_as_the_average_one() -> None:
    # half of the first image's width to the right: the other camera sees the right half of it alone
    step = 2.0 * math.tan(0.5)
    gaps = view_gaps(side_by_side([2.0, 2.0], step), tied([0, 1], views=2))
    assert gaps.max() < 1e-5
    moved = side_by_side([2.0, 2.0], step)
    bent = moved.depth.detach().clone()
    bent[0, :, -2:] = 2.2
    moved = Prediction(depth=bent, rays=moved.rays, conf=moved.conf, world_from_cam=moved.world_from_cam)
    gaps = view_gaps(moved, tied([0, 1], views=2))
    unseen = gaps[0, :, :4]
    assert len(unseen.unique()) == 1
    assert 0 < float(unseen[0, 0]) < math.log(1.1)


def test_views_that_share_no_track_are_not_compared() -> None:
    gaps = view_gaps(side_by_side([2.0, 2.0, 9.0]), tied([0, 1], [2], views=3))
    assert gaps[:2].max() < 1e-5


def test_partners_are_spread_from_the_most_to_the_least_tied() -> None:
    # view 0 shares 5, 4, 3, 2, 1 tracks with views 1 to 5, and none with view 6
    groups = [[0, other] for other in range(1, 6) for _ in range(6 - other)]
    chosen, any_tied = partners(tied(*groups, views=7))
    assert chosen[0].tolist() == [1, 2, 4, 5]
    assert set(chosen[3].tolist()) == {0}
    assert any_tied.tolist() == [True] * 6 + [False]


def test_gaps_are_blind_to_a_similarity_and_batched() -> None:
    scene, tracks = builders.prediction(4, scenes=2, smooth=True), builders.labels(4, scenes=2).tracks
    gaps = view_gaps(scene, tracks)
    torch.testing.assert_close(view_gaps(builders.moved(scene, 7.0), tracks), gaps, rtol=1e-3, atol=1e-4)
    single = view_gaps(scene.map(lambda x: x[1]), tracks.map(lambda x: x[1]))
    torch.testing.assert_close(single, gaps[1], rtol=1e-4, atol=1e-5)


def test_doubt_weighs_on_confidence_alone() -> None:
    labels = DepthLabels(
        depth=torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]).reshape(1, 1, 1, 5), valid=torch.ones(1, 1, 1, 5).bool()
    )
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 1, 1, 5).requires_grad_()
    conf = torch.full((1, 1, 1, 5), 0.5, requires_grad=True)
    doubt = torch.tensor([0.0, 0.7, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 5)
    config, found = DepthLossConfig(), {}
    for name, given in (("paper", None), ("ours", doubt)):
        value = depth_loss(depth, conf, labels, config, given)[0].sum()
        found[name] = (value, *torch.autograd.grad(value, (depth, conf)))
    assert (found["ours"][0] - found["paper"][0]).item() == pytest.approx(0.5 * 0.7)
    torch.testing.assert_close(found["ours"][1], found["paper"][1])
    torch.testing.assert_close(found["ours"][2] - found["paper"][2], doubt)


def test_the_objective_hears_of_it_only_where_asked() -> None:
    scene, labels = builders.prediction(3), builders.labels(3)
    paper = objective(scene, labels, ObjectiveConfig()).parts["depth"]
    ours = objective(scene, labels, ObjectiveConfig(doubt=10.0)).parts["depth"]
    weight = labels.depth.valid * scene.conf * view_gaps(scene, labels.tracks)
    assert (ours - paper).item() == pytest.approx(10 * (weight.sum() / labels.depth.valid.sum()).item(), rel=1e-4)
