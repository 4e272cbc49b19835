"""Points in the frame of the first view: the auxiliary branch's losses."""

import dataclasses

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.types import CameraLabels, DepthLabels, FullLabels, Prediction, PseudoLabels, Tracks, Truth
from reliev3r.geometry.camera import K_from_fov, project, ray_map, transform
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp
from reliev3r.losses.full import SupervisedConfig, supervised
from reliev3r.losses.global_points import global_points_loss, in_first_view, own_points, taught_points
from reliev3r.losses.weak import ObjectiveConfig, objective

B, V, H, W = 2, 3, 12, 16
WEAK = ObjectiveConfig(depth_weight=0, tracks_weight=0, gauge_weight=0, teacher_weight=1.0, global_weight=1.0)
FULL = SupervisedConfig(
    points_weight=0, confidence_weight=0, normals_weight=0, translation_weight=0, rotation_weight=0, global_weight=1.0
)


def cameras(g: torch.Generator) -> torch.Tensor:
    return rigid_from(so3_exp(0.2 * torch.randn(B, V, 3, generator=g)), 0.3 * torch.randn(B, V, 3, generator=g))


def prediction(seed: int = 0) -> Prediction:
    g = torch.Generator().manual_seed(seed)
    return Prediction(
        depth=2 + torch.rand(B, V, H, W, generator=g), conf=torch.ones(B, V, H, W), world_from_cam=cameras(g),
        rays=ray_map(K_from_fov(1.2, H, W).expand(B, V, 3, 3), H, W),
        global_points=torch.randn(B, V, H, W, 3, generator=g),
    )  # fmt: skip


def weak_labels(p: Prediction, factor: torch.Tensor) -> PseudoLabels:
    """Constant depth in each view, seen up to a factor a view, with the cameras of ``p``."""
    depth = p.depth.mean((-2, -1), keepdim=True).expand(p.depth.shape)
    uv = torch.rand(B, V, 20, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([W, H])
    weight = torch.ones(B, V, 20)
    return PseudoLabels(
        depth=DepthLabels(depth=depth / factor[..., None, None], valid=torch.ones_like(depth, dtype=torch.bool)),
        tracks=Tracks(uv=uv, weight=weight, depth=depth[..., 0, :1].expand(weight.shape)),
        cameras=CameraLabels(world_from_cam=p.world_from_cam, weight=torch.ones(B, V)),
    )


def truth_of(p: Prediction, world: torch.Tensor | None = None, scale: float = 1.0) -> FullLabels:
    """What ``p`` says, as truth, in another world."""
    world = torch.eye(4) if world is None else world
    moved = world @ p.world_from_cam
    moved = rigid_from(moved[..., :3, :3], scale * moved[..., :3, 3])
    truth = Truth(
        depth=scale * p.depth, valid=torch.ones_like(p.depth, dtype=torch.bool), world_from_cam=moved,
        K=K_from_fov(1.2, H, W).expand(B, V, 3, 3),
    )  # fmt: skip
    return FullLabels(truth=truth, tracks=Tracks(uv=torch.zeros(B, V, 1, 2), weight=torch.zeros(B, V, 1)))


def test_points_in_the_first_view_project_where_that_view_sees_them() -> None:
    p = prediction()
    found = in_first_view(p.points_cam, p.world_from_cam)
    torch.testing.assert_close(found[:, 0], p.points_cam[:, 0], atol=1e-5, rtol=0)
    world = transform(p.world_from_cam, p.points_cam.flatten(-3, -2))[:, 2]
    seen_by_first = transform(invert(p.world_from_cam[:, 0]), world)
    K = K_from_fov(1.2, H, W).expand(B, 3, 3)
    torch.testing.assert_close(project(found[:, 2].flatten(-3, -2), K), project(seen_by_first, K), atol=1e-3, rtol=1e-4)


def test_zero_at_the_truth_whatever_its_world_and_the_unit_of_the_points() -> None:
    p = prediction()
    right = dataclasses.replace(p, global_points=0.3 * in_first_view(p.points_cam, p.world_from_cam))
    world = rigid_from(so3_exp(torch.tensor([0.3, -1.0, 0.6])), torch.tensor([3.0, -1.0, 2.0]))
    for labels in (truth_of(p), truth_of(p, world, scale=7.0)):
        assert supervised(right, labels, FULL).total < 1e-5
        assert supervised(p, labels, FULL).total > 0.1
    one = supervised(p, truth_of(p), FULL).total
    torch.testing.assert_close(supervised(p, truth_of(p, world, scale=7.0), FULL).total, one, atol=1e-4, rtol=1e-4)
    larger = dataclasses.replace(p, global_points=5 * p.global_points)
    torch.testing.assert_close(supervised(larger, truth_of(p), FULL).total, one, atol=1e-4, rtol=1e-4)


def test_the_teacher_lifts_label_depth_by_a_factor_a_view() -> None:
    p = prediction()
    factor = torch.tensor([[1.0, 2.0, 0.4], [3.0, 0.5, 1.0]])
    target, weight = taught_points(weak_labels(p, factor), p.rays)
    depth = p.depth.mean((-2, -1), keepdim=True).expand(p.depth.shape)
    torch.testing.assert_close(target, in_first_view(p.rays * depth[..., None], p.world_from_cam))
    torch.testing.assert_close(weight, 1 / depth)
    right = dataclasses.replace(p, global_points=2 * target)
    assert objective(right, weak_labels(p, factor), WEAK).parts["global_points"] < 1e-5
    assert objective(p, weak_labels(p, factor), WEAK).parts["global_points"] > 0.1


def test_views_that_are_not_tied_have_no_say_nor_has_anything_without_the_first() -> None:
    p = prediction()
    labels = weak_labels(p, torch.ones(B, V))
    tied = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    untied = dataclasses.replace(labels, cameras=dataclasses.replace(labels.cameras, weight=tied))
    _, weight = taught_points(untied, p.rays)
    assert (weight > 0).flatten(2).any(-1).tolist() == [[True, False, True], [False, False, False]]
    unsolved = dataclasses.replace(labels.tracks, depth=torch.zeros_like(labels.tracks.weight))
    assert not taught_points(dataclasses.replace(labels, tracks=unsolved), p.rays)[1].any()


def test_as_the_teacher_fades_the_branch_follows_depth_and_cameras_without_pulling_them() -> None:
    p = prediction()
    right = dataclasses.replace(p, global_points=own_points(p)[0])
    labels = weak_labels(prediction(5), torch.ones(B, V))  # a teacher that says something else
    assert objective(right, labels, WEAK, teacher=0.0).parts["global_points"] < 1e-5
    shares = [float(objective(right, labels, WEAK, teacher=t).parts["global_points"]) for t in (0.5, 1.0)]
    assert shares[0] == pytest.approx(0.5 * shares[1], rel=1e-4)

    leaves = {name: getattr(p, name).clone().requires_grad_() for name in ("depth", "world_from_cam", "global_points")}
    config = dataclasses.replace(WEAK, teacher_weight=0.0)
    objective(dataclasses.replace(p, **leaves), labels, config).total.backward()
    assert leaves["depth"].grad is None or not leaves["depth"].grad.any()
    assert leaves["world_from_cam"].grad is None or not leaves["world_from_cam"].grad.any()
    assert leaves["global_points"].grad.abs().sum() > 0


def test_the_gradient_is_that_of_the_loss_with_its_best_scale() -> None:
    # at the best scale the loss does not depend on the scale: leaving it out of the gradient changes nothing
    p = prediction().map(lambda x: x.double())
    target, weight = own_points(p)
    points = (0.5 * target + 0.1 * p.global_points).requires_grad_()
    global_points_loss(dataclasses.replace(p, global_points=points), target, weight).sum().backward()
    step = torch.randn(points.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def at(size: float) -> torch.Tensor:
        return global_points_loss(dataclasses.replace(p, global_points=points.detach() + size * step), target, weight)

    slope = (at(1e-5).sum() - at(-1e-5).sum()) / 2e-5
    torch.testing.assert_close((points.grad * step).sum(), slope, atol=0.02 * float(slope.abs()) + 1e-3, rtol=0)


def test_a_network_without_the_branch_is_told() -> None:
    p = dataclasses.replace(prediction(), global_points=None)
    with pytest.raises(UserError, match="global-points"):
        objective(p, weak_labels(p, torch.ones(B, V)), WEAK)
