"""Points from rays: exact tracks, weights, gradients, no parallax."""

import math

import pytest
import torch

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import K_from_fov, project, transform
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp
from reliev3r.geometry.triangulate import parallax, triangulate, triangulation_angles, world_rays


def exact_scene(views=4, tracks=20, seed=0):
    """Cameras on an arc that look at points 4 to 6 units away, and the exact tracks of those points."""
    generator = torch.Generator().manual_seed(seed)
    omega = 0.1 * torch.randn(views, 3, generator=generator).double()
    world_from_cam = rigid_from(so3_exp(omega), torch.randn(views, 3, generator=generator).double() * 0.5)
    points = torch.rand(tracks, 3, generator=generator).double() * 2 + torch.tensor([-1.0, -1.0, 4.0])
    K = K_from_fov(1.0, 48, 64).double().expand(views, 3, 3)
    uv = torch.stack([project(transform(invert(pose), points), k) for pose, k in zip(world_from_cam, K)])
    return Tracks(uv=uv, weight=torch.ones(uv.shape[:2], dtype=uv.dtype)), K, world_from_cam, points


def test_exact_tracks_give_the_points_back():
    tracks, K, cameras, points = exact_scene()
    rays = world_rays(tracks, K, cameras)
    assert torch.allclose(rays.norm(dim=-1), torch.ones_like(tracks.weight))
    found = triangulate(rays, cameras[:, :3, 3], tracks.weight)
    assert torch.allclose(found, points, atol=1e-5)
    assert triangulation_angles(points, rays, cameras[:, :3, 3]).max() < 1e-9


def test_weightless_observations_do_not_matter():
    tracks, K, cameras, points = exact_scene()
    rays = world_rays(tracks, K, cameras).clone()
    weight = tracks.weight.clone()
    rays[2, :5] = torch.tensor([1.0, 0.0, 0.0]).double()  # wrong observations in view 2
    weight[2, :5] = 0
    assert torch.allclose(triangulate(rays, cameras[:, :3, 3], weight), points, atol=1e-5)


def test_batch_equals_loop_and_float32_comes_back_as_float32():
    tracks, K, cameras, _ = exact_scene()
    rays, centres = world_rays(tracks, K, cameras), cameras[:, :3, 3]
    batch = triangulate(torch.stack([rays, rays.flip(1)]), torch.stack([centres] * 2), torch.stack([tracks.weight] * 2))
    assert torch.allclose(batch[1].flip(0), batch[0])
    single = triangulate(rays.float(), centres.float(), tracks.weight.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), batch[0], atol=1e-3)


def test_gradient():
    tracks, K, cameras, _ = exact_scene(views=3, tracks=2)
    rays, centres = world_rays(tracks, K, cameras), cameras[:, :3, 3].clone()

    def points(rays, centres):
        return triangulate(torch.nn.functional.normalize(rays, dim=-1), centres, tracks.weight)

    assert torch.autograd.gradcheck(points, (rays.requires_grad_(), centres.requires_grad_()), atol=1e-4)


@pytest.mark.parametrize("centres", [torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [1.0, 2, 3]])])
def test_parallel_rays_give_finite_points(centres):
    """In float32 about one such system in 300 is exactly singular (this crashed ``torch.linalg.solve``)."""
    rays = torch.nn.functional.normalize(torch.randn(1, 5000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    rays = rays.expand(2, -1, -1).clone().requires_grad_()
    points = triangulate(rays, centres, torch.ones(2, 5000))
    points.sum().backward()
    assert points.isfinite().all()
    assert rays.grad.isfinite().all()


def test_unseen_tracks_give_the_mean_centre():
    tracks, K, cameras, _ = exact_scene()
    centres = cameras[:, :3, 3]
    points = triangulate(world_rays(tracks, K, cameras), centres, torch.zeros_like(tracks.weight))
    assert torch.allclose(points, centres.mean(0).expand_as(points))


def test_point_behind_the_camera_has_an_angle_over_ninety_degrees():
    rays, centres = torch.tensor([[[0.0, 0.0, 1.0]]]), torch.zeros(1, 3)
    angle = triangulation_angles(torch.tensor([[0.1, 0.0, -1.0]]), rays, centres)
    assert math.pi / 2 < float(angle) <= math.pi


def test_parallax_is_the_largest_angle_between_views_that_see_the_track():
    def ray(degrees):
        return [math.sin(math.radians(degrees)), 0.0, math.cos(math.radians(degrees))]

    rays = torch.tensor([[ray(0)], [ray(10)], [ray(50)]])
    assert math.degrees(parallax(rays, torch.ones(3, 1))[0]) == pytest.approx(50, rel=1e-5)
    assert math.degrees(parallax(rays, torch.tensor([[1.0], [1.0], [0.0]]))[0]) == pytest.approx(10, rel=1e-5)
    assert parallax(rays, torch.tensor([[1.0], [0.0], [0.0]]))[0] == 0
