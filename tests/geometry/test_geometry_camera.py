"""Pinhole cameras: hand-computed values, the pixel convention, round trips."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.geometry.camera import (
    K_from_focal,
    K_from_fov,
    K_of_crop_resize,
    focal_from_35mm,
    focal_from_fov,
    fov_from_focal,
    pixel_grid,
    project,
    ray_map,
    rays_from_uv,
    transform,
    unproject,
)


def intrinsics(fx=100.0, fy=120.0, cx=32.0, cy=24.0, dtype=torch.float64):
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=dtype)


def test_first_pixel_centre_is_at_one_half():
    grid = pixel_grid(2, 3)
    assert grid.shape == (2, 3, 2)
    assert grid[0, 0].tolist() == [0.5, 0.5]
    assert grid[1, 2].tolist() == [2.5, 1.5]  # u runs along the width


def test_rays_and_projection_by_hand():
    K = intrinsics()
    rays = rays_from_uv(torch.tensor([[82.0, 24.0], [32.0, 144.0]], dtype=torch.float64), K)
    assert rays.tolist() == [[0.5, 0.0, 1.0], [0.0, 1.0, 1.0]]
    point = torch.tensor([[1.0, -2.0, 4.0]], dtype=torch.float64)
    assert project(point, K).tolist() == [[1 / 4 * 100 + 32, -2 / 4 * 120 + 24]]
    assert torch.equal(ray_map(K, 48, 64)[3, 5], rays_from_uv(torch.tensor([[5.5, 3.5]]).double(), K)[0])


@given(
    u=st.floats(-50, 150),
    v=st.floats(-50, 150),
    depth=st.floats(0.01, 1e4),
    f=st.floats(10, 2000),
    c=st.floats(-5, 100),
)
def test_unproject_then_project_is_the_identity(u, v, depth, f, c):
    K, uv = intrinsics(f, 1.3 * f, c, 2 * c), torch.tensor([[u, v]], dtype=torch.float64)
    points = unproject(uv, torch.tensor([depth], dtype=torch.float64), K)
    assert points[0, 2] == depth
    assert torch.allclose(project(points, K), uv, atol=1e-8)


def test_projection_at_zero_depth_is_finite_with_finite_gradient():
    points = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    pixels = project(points, intrinsics(dtype=torch.float32))
    pixels.sum().backward()
    assert pixels.isfinite().all()
    assert points.grad.isfinite().all()


def test_points_behind_the_camera_keep_their_sign():
    K = intrinsics(cx=0, cy=0)
    assert project(torch.tensor([[1.0, 0.0, -2.0]]).double(), K)[0, 0] == -50


def test_batches_agree_with_loops():
    K = torch.stack([intrinsics(), intrinsics(80, 90, 30, 20)])
    uv, depth = torch.rand(2, 7, 2).double() * 40, torch.rand(2, 7).double() + 1
    points = unproject(uv, depth, K)
    for i in range(2):
        assert torch.allclose(points[i], unproject(uv[i], depth[i], K[i]))
        assert torch.allclose(ray_map(K, 6, 8)[i], ray_map(K[i], 6, 8))
        assert torch.allclose(project(points, K)[i], uv[i])


def test_gradients_of_projection():
    K = intrinsics().requires_grad_()
    points = torch.tensor([[0.3, -0.2, 2.0], [1.0, 0.5, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project, (points, K))
    uv, depth = torch.rand(4, 2).double().requires_grad_(), torch.rand(4).double().requires_grad_()
    assert torch.autograd.gradcheck(unproject, (uv, depth, K))


def test_transform_moves_points_from_b_to_a():
    a_from_b = torch.eye(4)
    a_from_b[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x -> y
    a_from_b[:3, 3] = torch.tensor([10.0, 0.0, 0.0])
    assert transform(a_from_b, torch.tensor([[1.0, 0.0, 0.0]])).tolist() == [[10.0, 1.0, 0.0]]


def test_crop_and_resize_move_pixels_and_K_together():
    K = intrinsics()
    offset, scale = (7.0, 3.0), (0.5, 0.25)
    points = torch.tensor([[0.2, 0.1, 2.0], [-0.1, 0.3, 1.0]], dtype=torch.float64)
    moved = project(points, K_of_crop_resize(K, offset=offset, scale=scale))
    expected = (project(points, K) - torch.tensor(offset)) * torch.tensor(scale)
    assert torch.allclose(moved, expected)
    assert torch.equal(K, intrinsics())  # the input is left alone


@pytest.mark.parametrize("degrees", [10.0, 60.0, 90.0, 150.0])
def test_field_of_view_is_horizontal(degrees):
    K = K_from_fov(math.radians(degrees), 48, 64)
    assert K[0, 0] == K[1, 1]
    assert (K[0, 2], K[1, 2]) == (32, 24)
    assert math.degrees(2 * math.atan(32 / K[0, 0])) == pytest.approx(degrees, rel=1e-5)
    assert K_from_fov(math.radians(90), 48, 64)[0, 0] == pytest.approx(32)


def test_focal_is_differentiable():
    focal = torch.tensor(50.0, requires_grad=True)
    K_from_focal(focal, 10, 20).sum().backward()
    assert focal.grad == 2  # once in each of fx and fy


def test_35mm_equivalent_focal_goes_by_the_diagonal():
    # a 3:2 image has the film's own shape: 36 mm are its width
    assert focal_from_35mm(36.0, 400, 600) == pytest.approx(600)
    # 4:3: the diagonal of 600 x 800 is 1000 pixels on 43.27 mm
    assert focal_from_35mm(28.0, 600, 800) == pytest.approx(28 / 43.2666 * 1000, rel=1e-4)


def test_focal_length_and_field_of_view_by_hand():
    assert focal_from_fov(math.radians(90)) == pytest.approx(0.5)  # in image widths
    assert focal_from_fov(math.radians(60), 640) == pytest.approx(320 * math.sqrt(3))
    assert fov_from_focal(320.0, 640) == pytest.approx(math.pi / 2)
    fov = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(fov_from_focal(focal_from_fov(fov)), fov)
