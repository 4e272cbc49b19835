"""Weak supervision by hand: values, worst places and which term hears what. What holds for all: test_every_loss.py."""

import dataclasses
import math

import pytest
import torch

from builders import SIZE, labels, moved, prediction
from reliev3r.core.types import CameraLabels, DepthLabels, Prediction, Tracks
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.losses.cameras import relative_pose_loss
from reliev3r.losses.depth import DepthLossConfig, depth_loss
from reliev3r.losses.tracks import (
    ReprojectionConfig,
    gauge_loss,
    reprojection_loss,
    track_depth_loss,
    track_geometry,
    visible_pairs,
)
from reliev3r.losses.weak import ObjectiveConfig, objective

FORMS = ("angle", "focal_angle", "pixel", "cosine", "point")
H, W = SIZE


# depth loss ----------------------------------------------------------------------------------------------------------


def one_row(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


EVERYWHERE = torch.ones(1, 1, 1, 5, dtype=torch.bool)
KINDS = ("metric", "scale", "scale+shift")


def errors(depth: list[float], label: list[float], ambiguity: str = "scale", **settings) -> list[float]:
    """What enters Eq. 4 before confidence weighs it."""
    labels = DepthLabels(depth=one_row(label), valid=EVERYWHERE, ambiguity=ambiguity)
    config = DepthLossConfig(confidence=False, **settings)
    return depth_loss(one_row(depth), torch.ones(1, 1, 1, 5), labels, config)[0].flatten().tolist()


def test_depth_loss_by_hand_where_the_label_leaves_scale_and_shift_open() -> None:
    # prediction: median 3, mean |d - 3| = 6/5; label: median 30, deviation 12, so G is the same for both
    # but for the last pixel: (10 - 3) against (50 - 30)
    conf = torch.full((1, 1, 1, 5), 0.5)
    label = DepthLabels(depth=one_row([10, 20, 30, 40, 50]), valid=EVERYWHERE, ambiguity="scale+shift")
    config = DepthLossConfig(alpha=0.7)
    values, _ = depth_loss(one_row([1, 2, 3, 4, 5]), conf, label, config)
    torch.testing.assert_close(values, torch.full_like(values, -0.7 * math.log(0.5)))
    values, _ = depth_loss(one_row([1, 2, 3, 4, 10]), conf, label, config)
    deviation = (2 + 1 + 0 + 1 + 7) / 5
    expected = 0.5 * abs(7 / deviation - 20 / 12) - 0.7 * math.log(0.5)
    assert float(values[..., -1]) == pytest.approx(expected, rel=1e-5)


def test_depth_loss_by_hand_where_it_leaves_a_scale_open() -> None:
    # medians 2 and 40 bring the prediction to 20, 20, 40, 60, 100; the label's mean deviation is (20+20+0+20+40) / 5
    expected = [0, 0, 0, 0, 20 / 20]
    assert errors([1, 1, 2, 3, 5], [20, 20, 40, 60, 80]) == pytest.approx(expected, abs=1e-5)
    # median deviation: of 20, 20, 0, 20, 40
    assert errors([1, 1, 2, 3, 9], [20, 20, 40, 60, 80], deviation="median") == pytest.approx(
        [0, 0, 0, 0, 100 / 20], abs=1e-4
    )
    # the mean deviation of 1, 1, 2, 3, 20 about 2 is 21 / 5, the median one 1
    assert errors([1, 1, 2, 3, 4], [1, 1, 2, 3, 20])[-1] == pytest.approx(16 / (21 / 5))
    assert errors([1, 1, 2, 3, 4], [1, 1, 2, 3, 20], deviation="median")[-1] == pytest.approx(16)


@pytest.mark.parametrize("space", ["depth", "log", "disparity"])
@pytest.mark.parametrize("average", ["mean", "median"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_has_no_error_for_every_kind_of_label(kind: str, average: str, space: str) -> None:
    label = [1.0, 1.5, 2.0, 4.0, 9.0]
    scaled = [0.3 * x for x in label]
    assert errors(scaled, label, kind, deviation=average, space=space) == pytest.approx([0.0] * 5, abs=1e-5)
    if space == "depth":  # only a label that leaves the shift open lets it go
        shifted = errors([x + 0.7 for x in scaled], label, kind, deviation=average)
        assert (max(shifted) < 1e-5) == (kind == "scale+shift")
        free = errors([x + 0.7 for x in scaled], label, kind, deviation=average, align="scale+shift")
        assert max(free) < 1e-5


@pytest.mark.parametrize("average", ["mean", "median"])
def test_alpha_means_the_same_for_every_kind_of_label(average: str) -> None:
    # one far pixel of the prediction is 1.5 m off: neither its median nor, with the median, its deviation knows of it
    label, off = [2.0, 3.0, 4.0, 5.0, 7.0], [2.0, 3.0, 4.0, 5.0, 8.5]
    deviation = {"mean": 7 / 5, "median": 1.0}[average]
    found = {
        "metric": errors(off, label, "metric", deviation=average),
        "scale": errors([0.2 * x for x in off], [30 * x for x in label], "scale", deviation=average),
    }
    for each in found.values():
        assert each == pytest.approx([0, 0, 0, 0, 1.5 / deviation], abs=1e-5)
    affine = errors([0.2 * x + 9 for x in off], [30 * x - 11 for x in label], "scale+shift", deviation=average)
    if average == "median":
        assert affine == pytest.approx(found["metric"], abs=1e-4)
    else:  # the prediction's own mean deviation, 1.7, scales it
        assert affine == pytest.approx([abs(a - b) for a, b in zip(
            [(x - 4) / 1.7 for x in off], [(x - 4) / 1.4 for x in label])], abs=1e-4)  # fmt: skip


def test_statistics_are_weighted_by_confidence_without_its_gradient() -> None:
    # a doubted outlier does not move the normalisation; and W gets the gradient of its own pixel alone
    for kind in KINDS:
        label = DepthLabels(depth=one_row([1, 2, 3, 4, 90]), valid=EVERYWHERE, ambiguity=kind)
        conf = one_row([1, 1, 1, 1, 1e-6]).requires_grad_()
        values, _ = depth_loss(one_row([1, 2, 3, 4, 5]), conf, label, DepthLossConfig(alpha=0.3))
        assert values[..., :4].abs().max() < 1e-3
        values[..., 0].sum().backward()
        assert conf.grad[..., 1:].abs().max() == 0
        assert float(conf.grad[..., 0]) == pytest.approx(-0.3, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_confidence_is_alpha_over_error(kind: str) -> None:
    # W* = min(2, alpha / l), docs/method.md; found here by descent on W alone, with the statistics that W itself
    # weighs: the three pixels at 2 hold the median at 3, so l = 4 / deviation of the label
    label = DepthLabels(depth=one_row([1, 2, 3, 4, 9]), valid=EVERYWHERE, ambiguity=kind)
    x = torch.zeros(1, 1, 1, 5, requires_grad=True)
    depth, config = one_row([1, 2, 3, 4, 5]), DepthLossConfig(alpha=0.5)
    for _ in range(600):
        x.grad = None
        depth_loss(depth, 2 * torch.sigmoid(x), label, config)[0].sum().backward()
        x.data -= 4 * x.grad
    conf = 2 * torch.sigmoid(x.detach())
    error, _ = depth_loss(depth, conf, label, dataclasses.replace(config, alpha=0.0))
    best = (0.5 / (error / conf)).clamp_max(2)
    torch.testing.assert_close(conf, best, rtol=0.03, atol=0)
    assert conf[..., -1] < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_depth_loss_survives_flat_views(kind: str) -> None:
    p = prediction(grad=True)
    flat = DepthLabels(depth=torch.ones(1, 3, H, W), valid=torch.ones(1, 3, H, W, dtype=torch.bool), ambiguity=kind)
    for depth in (p.depth, torch.ones(1, 3, H, W, requires_grad=True)):
        values, _ = depth_loss(depth, p.conf, flat, DepthLossConfig())
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert torch.isfinite(depth.grad).all()
        assert torch.isfinite(p.conf.grad).all()


# reprojection --------------------------------------------------------------------------------------------------------


def by_hand(p: Prediction, tracks: Tracks) -> tuple[float, float]:
    """The paper's L_rgst by a loop over ordered pairs, with nearest-pixel tracks: sum and count."""
    total, count = 0.0, 0.0
    points = p.points_world[0]
    for k in range(tracks.uv.shape[-2]):
        for i in range(points.shape[0]):
            for j in range(points.shape[0]):
                if i == j or not (tracks.weight[0, i, k] > 0 and tracks.weight[0, j, k] > 0):
                    continue
                (ui, vi), (uj, vj) = tracks.uv[0, i, k], tracks.uv[0, j, k]
                t = p.world_from_cam[0, i, :3, 3]
                a, b = points[i, int(vi), int(ui)] - t, points[j, int(vj), int(uj)] - t
                total += float(torch.acos((a @ b / a.norm() / b.norm()).clamp(-1, 1)))
                count += 1
    return total, count


def test_angle_equals_the_papers_formula_pair_by_pair() -> None:
    p, tracks = prediction(), labels().tracks
    tracks = dataclasses.replace(tracks, uv=tracks.uv.floor() + 0.5)
    values, weight = reprojection_loss(p, tracks, ReprojectionConfig())
    total, count = by_hand(p, tracks)
    assert float(weight.sum()) == count
    assert float((values * weight).sum()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_all_pairs_with_weights_are_the_pairs_that_are_seen(form, monkeypatch) -> None:
    """What a GPU, and a compiled step, compute: no shape depends on what is seen."""
    p, tracks = prediction(), labels().tracks
    seen, weight = reprojection_loss(p, tracks, ReprojectionConfig(form=form))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    values, weights = reprojection_loss(p, tracks, ReprojectionConfig(form=form))
    assert len(values) == tracks.weight.shape[-1] * tracks.weight.shape[-2] ** 2 > len(seen)
    assert torch.equal(weights[weights > 0].sort().values, weight.sort().values)
    torch.testing.assert_close(values[weights > 0].sort().values, seen.sort().values)


def test_forms_by_hand() -> None:
    # two cameras side by side, both looking along z; the point lies at 45 degrees to the right of camera 0
    K = K_from_fov(math.pi / 2, 10, 10).expand(1, 2, 3, 3)
    world_from_cam = torch.eye(4).repeat(1, 2, 1, 1)
    world_from_cam[0, 1, 0, 3] = 4.0
    depth = torch.full((1, 2, 10, 10), 4.0)
    p = Prediction(depth=depth, rays=ray_map(K, 10, 10), conf=torch.ones_like(depth), world_from_cam=world_from_cam)
    centre = torch.tensor([5.0, 5.0])
    tracks = Tracks(uv=centre.expand(1, 2, 1, 2), weight=torch.ones(1, 2, 1))
    # view 1 puts the track at (4, 0, 4); camera 0 saw it straight ahead
    expected = {"angle": math.pi / 4, "cosine": 1 - math.cos(math.pi / 4),
                "pixel": 1.0, "focal_angle": math.pi / 8, "point": 1.0}  # fmt: skip
    for form, value in expected.items():
        values, weight = reprojection_loss(p, tracks, ReprojectionConfig(form=form))
        assert visible_pairs(tracks).T.tolist() == [[0, 0, 1, 0], [0, 1, 0, 0]]
        assert float(values[0]) == pytest.approx(value, rel=1e-4), form
        assert weight.tolist() == [1, 1]


def test_consistent_geometry_costs_nothing() -> None:
    # a plane at z = 2, seen by shifted cameras: exact tracks have no residual in any form
    K = K_from_fov(1.0, H, W).expand(1, 3, 3, 3)
    world_from_cam = torch.eye(4).repeat(1, 3, 1, 1)
    world_from_cam[0, :, 0, 3] = torch.tensor([0.0, 0.3, -0.2])
    depth = torch.full((1, 3, H, W), 2.0)
    p = Prediction(depth=depth, rays=ray_map(K, H, W), conf=torch.ones_like(depth), world_from_cam=world_from_cam)
    base = torch.tensor([[6.0, 5.0], [9.2, 6.7]])
    shift = -world_from_cam[0, :, None, 0, 3] / 2 * K[0, :, 0, 0][:, None]
    uv = base[None] + torch.stack([shift.expand(3, 2), torch.zeros(3, 2)], -1)
    tracks = Tracks(uv=uv[None], weight=torch.ones(1, 3, 2))
    for form in FORMS:
        values, weight = reprojection_loss(p, tracks, ReprojectionConfig(form=form))
        assert float((values * weight).abs().max()) < 2e-3, form


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_finite_in_the_worst_places(form: str) -> None:
    p = prediction(grad=True)
    behind = rigid_from(so3_exp(torch.tensor([[[0, 0, 0], [0, math.pi, 0], [0, 0, 0]]])), torch.zeros(1, 3, 3))
    cases = {
        "behind the camera and no baseline": (behind.requires_grad_(), torch.ones(1, 3, 20)),
        "identical cameras": (torch.eye(4).repeat(1, 3, 1, 1).requires_grad_(), torch.ones(1, 3, 20)),
    }
    for name, (world_from_cam, weight) in cases.items():
        case = dataclasses.replace(p, world_from_cam=world_from_cam)
        tracks = dataclasses.replace(labels().tracks, weight=weight)
        loss = objective(
            case,
            dataclasses.replace(labels(), tracks=tracks),
            ObjectiveConfig(reprojection=ReprojectionConfig(form=form)),
        )
        gradients = torch.autograd.grad(loss.total, (case.depth, case.conf, case.world_from_cam))
        assert torch.isfinite(loss.total), name
        assert all(torch.isfinite(g).all() for g in gradients), name


def test_an_angle_has_gradient_behind_the_camera_and_a_clipped_pixel_has_none() -> None:
    turned = rigid_from(so3_exp(torch.tensor([[[0, 0, 0], [0, 2.8, 0]]])), torch.tensor([[[0, 0, 0], [0.3, 0, 0]]]))
    p = dataclasses.replace(prediction(2), world_from_cam=turned.requires_grad_())
    tracks = Tracks(uv=torch.tensor([8.0, 6.0]).expand(1, 2, 1, 2), weight=torch.ones(1, 2, 1))
    gradient = {}
    for form in ("angle", "pixel"):
        values, weight = reprojection_loss(p, tracks, ReprojectionConfig(form=form))
        gradient[form] = torch.autograd.grad((values * weight).sum(), turned)[0].abs().sum()
    assert gradient["angle"] > 0.1
    assert gradient["pixel"] == 0


def test_the_gauge_term_sees_the_scale() -> None:
    p, tracks = prediction(), labels().tracks
    near, far = gauge_loss(moved(p, 0.01), tracks), gauge_loss(moved(p, 100.0), tracks)
    assert near > 9
    assert far > 9


def test_focal_times_angle_takes_away_the_reward_for_a_longer_lens() -> None:
    # fixed geometry, wrong by a few pixels: a longer lens shrinks every angle, not the angle times the focal length
    costs = {}
    for form in ("angle", "focal_angle"):
        costs[form] = []
        for fov in (1.2, 0.3):
            p = dataclasses.replace(prediction(), rays=ray_map(K_from_fov(fov, H, W).expand(1, 3, 3, 3), H, W))
            world_from_cam = torch.eye(4).repeat(1, 3, 1, 1)
            values, weight = reprojection_loss(
                dataclasses.replace(p, world_from_cam=world_from_cam), labels().tracks, ReprojectionConfig(form=form)
            )
            costs[form].append(float((values * weight).sum()))
    assert costs["angle"][1] < 0.3 * costs["angle"][0]
    assert costs["focal_angle"][1] > 0.9 * costs["focal_angle"][0]


# teacher and objective -----------------------------------------------------------------------------------------------


def test_pose_loss_is_blind_to_a_similarity_and_counts_weighted_pairs() -> None:
    p = prediction()
    target = moved(p, 3.0).world_from_cam
    scale = torch.tensor([1 / 3])
    values, weight = relative_pose_loss(p.world_from_cam, target, torch.ones(1, 3), scale=scale)
    assert float((values * weight).max()) < 1e-3
    assert float(weight.sum()) == 6
    _, weight = relative_pose_loss(p.world_from_cam, target, torch.tensor([[1.0, 0.0, 1.0]]), scale=scale)
    assert float(weight.sum()) == 2


def test_pose_loss_by_hand() -> None:
    target = torch.eye(4).repeat(1, 2, 1, 1)
    target[0, 1, 0, 3] = 2.0
    turned = target.clone()
    turned[0, 1, :3, :3] = so3_exp(torch.tensor([0.0, 0.0, 0.3]))
    values, _ = relative_pose_loss(turned, target, torch.ones(1, 2), scale=torch.ones(1))
    assert float(values[0, 0, 1]) == pytest.approx(0.3, abs=1e-3)  # seen from 0, camera 1 lies where it should
    assert float(values[0, 1, 0]) == pytest.approx(0.3 + 2 * math.sin(0.15), abs=1e-3)
    values, _ = relative_pose_loss(target, target, torch.ones(1, 2), scale=torch.tensor([2.0]))
    assert float(values[0, 0, 1]) == pytest.approx(0.5, abs=1e-3)  # half the wanted baseline


def test_pose_loss_has_a_gradient_when_all_cameras_coincide() -> None:
    start = torch.eye(4).repeat(1, 3, 1, 1).requires_grad_()
    values, weight = relative_pose_loss(start, prediction().world_from_cam, torch.ones(1, 3), scale=torch.ones(1))
    (gradient,) = torch.autograd.grad((values * weight).sum(), start)
    assert torch.isfinite(gradient).all()
    assert gradient[..., :3, 3].abs().sum() > 0.1


def test_an_unknown_focal_length_hears_the_teacher_and_not_the_gauge() -> None:
    p, label = prediction(), labels()
    K = p.K.clone()
    rays = p.rays.clone().requires_grad_()
    p = dataclasses.replace(p, rays=rays)
    (slope,) = torch.autograd.grad(gauge_loss(p, label.tracks).sum(), rays, materialize_grads=True)
    assert not slope[..., :2].any()
    cameras = CameraLabels(world_from_cam=p.world_from_cam, weight=torch.ones(1, 3))
    config = ObjectiveConfig(depth_weight=0.0, tracks_weight=0.0, gauge_weight=0.0, teacher_weight=1.0)
    longer = torch.diag(torch.tensor([1.5, 1.5, 1.0])) @ K
    same, other = (
        objective(p, dataclasses.replace(label, cameras=cameras, K=wanted), config).parts["teacher"]
        for wanted in (K, longer)
    )
    assert (other - same).item() == pytest.approx(math.log(1.5), rel=1e-4)


def test_objective_is_the_weighted_sum_of_its_parts() -> None:
    p, label = prediction(), labels()
    cameras = CameraLabels(world_from_cam=prediction(seed=9).world_from_cam, weight=torch.ones(1, 3))
    label = dataclasses.replace(label, cameras=cameras)
    solved = torch.where(label.tracks.weight > 0, 1.5, 0.0)
    label = dataclasses.replace(label, tracks=dataclasses.replace(label.tracks, depth=solved))
    config = ObjectiveConfig(depth_weight=2.0, tracks_weight=0.5, gauge_weight=0.1, teacher_weight=3.0)
    loss = objective(p, label, config, teacher=0.25)
    parts = loss.parts
    # the teacher hands over to the tracks: what it has, they have not
    expected = 2 * parts["depth"] + 0.75 * 0.5 * parts["tracks"] + 0.1 * parts["gauge"] + 0.75 * parts["teacher"]
    torch.testing.assert_close(loss.total, expected)
    values, weight = reprojection_loss(p, label.tracks, config.reprojection)
    torch.testing.assert_close(parts["tracks"], (values * weight).sum() / weight.sum())
    without = dataclasses.replace(label, cameras=None)
    loss = objective(p, without, config, teacher=1.0)
    expected = 2 * loss.parts["depth"] + 0.5 * loss.parts["tracks"] + 0.1 * loss.parts["gauge"]
    torch.testing.assert_close(loss.total, expected)
    only = objective(p, label, ObjectiveConfig(depth_weight=0.0, gauge_weight=0.0), teacher=0.0)
    assert set(only.parts) == {"tracks"}
    assert set(objective(p, label, ObjectiveConfig(tracks_weight=0.0, gauge_weight=0.0)).parts) == {"depth"}


def test_track_depth_by_hand() -> None:
    p = prediction()
    tracks = Tracks(
        uv=torch.full((1, 3, 2, 2), 4.5), weight=torch.tensor([[[1.0, 1.0], [1.0, 0.0], [0.5, 1.0]]]),
        depth=torch.tensor([[[2.0, 0.0], [3.0, 1.0], [4.0, 1.0]]]),
    )  # fmt: skip
    values, weight = track_depth_loss(track_geometry(p, tracks), tracks)
    assert weight.tolist() == [[[1, 0], [1, 0], [0.5, 1]]]
    assert float(values[0, 0, 0]) == pytest.approx(abs(math.log(float(p.depth[0, 0, 4, 4]) / 2)), rel=1e-4)
    unsolved = dataclasses.replace(tracks, depth=None)
    assert track_depth_loss(track_geometry(p, unsolved), unsolved)[1].sum() == 0


def test_an_untrusted_expert_weighs_less() -> None:
    p, label = prediction(), labels()
    config = ObjectiveConfig(tracks_weight=0.0, gauge_weight=0.0)
    half = dataclasses.replace(label, depth=dataclasses.replace(label.depth, trust=torch.full((1, 3), 0.5)))
    torch.testing.assert_close(objective(p, half, config).total, 0.5 * objective(p, label, config).total)
