"""Full supervision by hand: values, scale and scenes without truth. What holds for every loss: test_every_loss.py."""

import dataclasses
import math
import operator

import pytest
import torch

import builders
import reliev3r.losses.full as module
from reliev3r.core.types import FullLabels, Prediction, Tracks, Truth
from reliev3r.geometry.camera import K_from_focal, K_from_fov, ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.losses.full import SupervisedConfig, normal_loss, scene_scale, supervised

H, W = 10, 12
EVERYTHING = SupervisedConfig(fov_weight=1.0, correspondence_weight=1.0)


def labels(scenes: int = 2, views: int = 3) -> FullLabels:
    return builders.full_labels(views, scenes=scenes, size=(H, W))


def prediction(scenes: int = 2, views: int = 3, *, grad: bool = False) -> Prediction:
    return builders.prediction(views, scenes=scenes, seed=1, size=(H, W), smooth=True, channels=4, grad=grad)


def true_prediction(label: FullLabels, scale: float = 1.0) -> Prediction:
    truth = label.truth
    return Prediction(
        depth=scale * truth.depth, rays=ray_map(truth.K, *truth.depth.shape[-2:]), conf=torch.ones_like(truth.depth),
        world_from_cam=builders.moved_cameras(truth.world_from_cam, scale),
    )  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.02, 70.0])
def test_the_truth_costs_nothing_in_any_unit_and_frame(scale: float) -> None:
    label = labels()
    parts = supervised(true_prediction(label, scale), label, SupervisedConfig(fov_weight=1.0)).parts
    for name in ("points", "normals", "translation", "rotation", "fov"):
        assert abs(float(parts[name])) < 2e-6, name
    # and something else costs something in each of them
    others = supervised(prediction(), label, SupervisedConfig(fov_weight=1.0)).parts
    assert all(float(others[name]) > 1e-3 for name in ("points", "normals", "translation", "rotation", "fov"))


def test_the_gradient_does_not_push_the_scale() -> None:
    p = prediction(grad=True)
    supervised(p, labels(), SupervisedConfig()).total.backward()
    along = (p.depth.grad * p.depth).sum((1, 2, 3))
    along = along + (p.world_from_cam.grad * p.world_from_cam)[..., :3, 3].sum((1, 2))
    size = (p.depth.grad * p.depth).abs().sum((1, 2, 3))
    assert (along.abs() < 1e-4 * size).all()


def test_points_by_hand() -> None:
    # a frontal plane at 2, focal length so long that points are (0, 0, z); a quarter of the pixels is 40 % too far
    K = K_from_focal(torch.tensor(1e6), 4, 4).expand(1, 1, 3, 3)
    truth = Truth(
        depth=torch.full((1, 1, 4, 4), 2.0), valid=torch.ones(1, 1, 4, 4, dtype=torch.bool), K=K,
        world_from_cam=torch.eye(4).expand(1, 1, 4, 4),
    )  # fmt: skip
    depth = torch.full((1, 1, 4, 4), 7.0)
    depth[..., 0, :] *= 1.4
    conf = torch.full((1, 1, 4, 4), 0.5)
    p = Prediction(depth=depth, rays=ray_map(K, 4, 4), conf=conf, world_from_cam=truth.world_from_cam)
    label = FullLabels(truth=truth, tracks=Tracks(uv=torch.zeros(1, 1, 0, 2), weight=torch.zeros(1, 1, 0)))
    parts = supervised(p, label, SupervisedConfig(alpha=0.3)).parts
    error = 0.25 * 0.4 / 3  # the mean over the coordinates; the scale is right for the others
    assert float(parts["points"]) == pytest.approx(error, rel=1e-4)
    assert float(parts["confidence"]) == pytest.approx(0.5 * error - 0.3 * math.log(0.5), rel=1e-4)
    assert float(parts["translation"]) == float(parts["rotation"]) == 0  # one view has no pair


@pytest.mark.parametrize("gap", [0.05, 1.0])
def test_cameras_by_hand(gap: float) -> None:
    label = labels(1, 2)
    truth = dataclasses.replace(label.truth, world_from_cam=torch.eye(4).repeat(1, 2, 1, 1))
    distance = (ray_map(truth.K, H, W) * truth.depth[..., None]).norm(dim=-1)[truth.valid].mean()
    turn = so3_exp(torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)).float()
    world_from_cam = truth.world_from_cam.clone()
    world_from_cam[0, 1] = rigid_from(turn, 3 * torch.tensor([gap, 0.0, 0.0]) * distance)
    p = dataclasses.replace(true_prediction(label, 3), world_from_cam=world_from_cam)
    parts = supervised(p, dataclasses.replace(label, truth=truth), SupervisedConfig()).parts
    assert float(parts["rotation"]) == pytest.approx(0.5, abs=1e-5)

    # seen from camera 0 the gap lies along x; from camera 1 along (-cos, 0, -sin) of the half radian
    def huber(x: float) -> float:
        return 0.5 * x * x if abs(x) < 0.1 else 0.1 * (abs(x) - 0.05)

    expected = (huber(gap) + huber(gap * math.cos(0.5)) + huber(gap * math.sin(0.5))) / 6
    assert float(parts["translation"]) == pytest.approx(expected, rel=1e-3)


def test_normals_by_hand() -> None:
    # a plane turned by 10 degrees about the vertical, against a frontal one
    rays = ray_map(K_from_fov(1.0, 8, 8).expand(1, 3, 3), 8, 8)
    tilt = math.radians(10)
    target = rays * 2
    points = rays * (2 / (math.sin(tilt) * rays[..., :1] + math.cos(tilt)))
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[0, 3, 4] = False
    values, known = normal_loss(points, target, mask)
    assert values.shape == (1, 4, 6, 6)
    torch.testing.assert_close(values, torch.full_like(values, math.radians(10 - 1.5 - 1 / 6)), atol=1e-4, rtol=0)
    # the pixel's own four triangles, and two of each of its neighbours
    assert int((~known).sum()) == 4 + 4 * 2


def test_normals_are_not_compared_across_depth_edges() -> None:
    label = labels(1, 1)
    step = torch.where(torch.arange(W) < 6, 2.0, 4.0).expand(1, 1, H, W)
    valid = torch.ones(1, 1, H, W, dtype=torch.bool)
    label = dataclasses.replace(label, truth=dataclasses.replace(label.truth, depth=step, valid=valid))
    p = true_prediction(label)
    # the edge blurred in the prediction: the normals on the step are wrong by tens of degrees, all others right
    blurred = p.depth.clone()
    blurred[..., 5], blurred[..., 6] = 2.5, 3.5
    values, known = normal_loss(p.rays * blurred[..., None], p.points_cam, valid)
    assert float((values * known).max()) > 0.3
    parts = supervised(dataclasses.replace(p, depth=blurred), label, SupervisedConfig()).parts
    assert 0 <= float(parts["normals"]) < 0.02
    assert float(parts["points"]) > 0.01


def test_the_scale_is_the_weighted_l1_optimum() -> None:
    g = torch.Generator().manual_seed(0)
    points, target = torch.randn(2, 2, 5, 6, 3, generator=g), torch.randn(2, 2, 5, 6, 3, generator=g)
    target += 2.5 * points
    weight = torch.rand(2, 2, 5, 6, generator=g) * (torch.rand(2, 2, 5, 6, generator=g) > 0.3)
    scale = scene_scale(points, target, weight, 10_000)
    for scene in range(2):
        x, y, w = points[scene], target[scene], weight[scene][..., None]
        costs = torch.stack([(w * (s * x - y).abs()).sum() for s in (y / x).flatten()])  # the optimum is one of them
        assert float((w * (scale[scene] * x - y).abs()).sum()) == pytest.approx(float(costs.min()), rel=1e-5)
    assert (scene_scale(points, target, 0 * weight, 10_000) == 1).all()
    torch.testing.assert_close(scene_scale(points, -points, weight, 40), torch.ones(2))  # turned round
    # a part of the pixels finds nearly the same
    torch.testing.assert_close(scene_scale(points, target, weight, 30), scale, atol=0.5, rtol=0)


def test_a_batch_is_its_scenes_one_of_them_without_a_valid_pixel() -> None:
    p, label = prediction(4), labels(4)
    label = dataclasses.replace(label, truth=dataclasses.replace(label.truth, valid=label.truth.valid.clone()))
    label.truth.valid[1] = False
    whole = supervised(p, label, EVERYTHING)
    at = operator.itemgetter
    single = [supervised(p.map(at(s)), label.map(at(s)), EVERYTHING) for s in range(4)]
    for name, value in whole.parts.items():
        torch.testing.assert_close(torch.stack([loss.parts[name] for loss in single]).mean(), value, msg=name)


def test_no_valid_pixel_leaves_rotations_alone() -> None:
    p, label = prediction(grad=True), labels()
    truth = dataclasses.replace(
        label.truth, valid=torch.zeros_like(label.truth.valid), depth=torch.zeros_like(label.truth.depth)
    )
    loss = supervised(p, dataclasses.replace(label, truth=truth), SupervisedConfig())
    loss.total.backward()
    assert {name for name, value in loss.parts.items() if float(value.detach()) != 0} == {"rotation"}
    for leaf in (p.depth, p.conf, p.world_from_cam):
        assert torch.isfinite(leaf.grad).all()
    assert p.world_from_cam.grad.abs().max() > 0


def test_confidence_learns_from_the_error_and_does_not_excuse_it() -> None:
    p, label = prediction(grad=True), labels()
    config = SupervisedConfig(points_weight=0, normals_weight=0, translation_weight=0, rotation_weight=0)
    supervised(p, label, config).total.backward()
    assert p.depth.grad is None or p.depth.grad.abs().max() == 0
    # the best W is alpha / error: larger confidences are pushed down, smaller ones up
    parts = supervised(p.detach(), label, SupervisedConfig()).parts
    assert float(parts["points"]) > 0.02  # else every W would be pushed up
    assert (p.conf.grad > 0).any()
    assert (p.conf.grad < 0).any()
    assert (p.conf.grad[~label.truth.valid] == 0).all()


def test_a_focal_length_a_tenth_too_long() -> None:
    label = labels()
    K = label.truth.K.clone().requires_grad_()
    p = dataclasses.replace(true_prediction(label), rays=ray_map(K @ torch.diag(torch.tensor([1.1, 1.1, 1.0])), H, W))
    part = supervised(p, label, SupervisedConfig(fov_weight=1.0)).parts["fov"]
    part.backward()
    assert float(part.detach()) == pytest.approx(math.log(1.1), abs=1e-4)
    assert K.grad[..., 0, 0].abs().max() > 0


def test_gradients_are_those_of_finite_differences(monkeypatch) -> None:
    # the scale is held, as its stop-gradient says
    monkeypatch.setattr(module, "scene_scale", lambda points, target, weight, limit: points.new_tensor([1.1]))
    config = SupervisedConfig(fov_weight=1.0, confidence_weight=0.0)
    label = labels(1, 2).map(lambda x: x[..., :5, :4] if x.shape[-2:] == (H, W) else x).to(torch.float64)
    start = prediction(1, 2).to(torch.float64)
    omega = 0.3 * torch.randn(1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def total(depth, omega, centre) -> torch.Tensor:
        p = Prediction(
            depth=depth, rays=start.rays[..., :5, :4, :], conf=torch.ones_like(depth),
            world_from_cam=rigid_from(so3_exp(omega), centre),
        )  # fmt: skip
        return supervised(p, label, config).total

    leaves = (start.depth[..., :5, :4], omega, start.world_from_cam[..., :3, 3])
    assert torch.autograd.gradcheck(total, tuple(leaf.clone().requires_grad_() for leaf in leaves), atol=1e-6)


def test_weights_of_zero_leave_terms_out() -> None:
    config = SupervisedConfig(normals_weight=0, translation_weight=0, rotation_weight=0, confidence_weight=0)
    loss = supervised(prediction(), labels(), config)
    assert set(loss.parts) == {"points"}
    torch.testing.assert_close(loss.total, loss.parts["points"])
