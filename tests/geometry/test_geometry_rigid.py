"""Rigid motions: group axioms, known rotations, degenerate inputs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.geometry.rigid import (
    angle_between,
    invert,
    relative,
    rigid_from,
    rotation_angle,
    rotation_from_9d,
    skew,
    so3_exp,
)

vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
motions = st.tuples(vectors, vectors).map(lambda pair: rigid_from(so3_exp(pair[0]), pair[1]))
identity = torch.eye(4, dtype=torch.float64)
EXPONENTIAL = 2e-10
"""How exact torch's matrix exponential is, with a margin: 1.3e-11 at 0.049 radians."""


@given(motions, motions, motions)
def test_group_axioms(a, b, c):
    close = {"atol": EXPONENTIAL}  # the translations are up to 5 long
    assert torch.allclose(a @ invert(a), identity, **close)
    assert torch.allclose(invert(a) @ a, identity, **close)
    assert torch.allclose(invert(a @ b), invert(b) @ invert(a), **close)
    assert torch.allclose((a @ b) @ c, a @ (b @ c), **close)
    assert torch.allclose(invert(invert(a)), a, **close)


@given(vectors)
def test_exponential_gives_rotations_of_that_angle(omega):
    rotation = so3_exp(omega)
    assert torch.allclose(rotation @ rotation.mT, identity[:3, :3], atol=EXPONENTIAL)
    assert torch.det(rotation) == pytest.approx(1)
    assert torch.allclose(so3_exp(-omega), rotation.mT, atol=EXPONENTIAL)
    assert torch.allclose(rotation @ omega, omega, atol=EXPONENTIAL)  # the axis stays
    turn = float(omega.norm()) % (2 * math.pi)
    assert float(rotation_angle(rotation)) == pytest.approx(min(turn, 2 * math.pi - turn), abs=1e-7)


def test_quarter_turn_about_z_by_hand():
    rotation = so3_exp(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
    assert torch.allclose(rotation @ torch.tensor([1.0, 0, 0]).double(), torch.tensor([0.0, 1, 0]).double())
    assert float(rotation_angle(rotation)) == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("angle", [1e-6, 1e-4, 1.0, math.pi - 1e-4])
def test_rotation_angle_is_accurate_at_both_ends_in_float32(angle):
    rotation = so3_exp(torch.tensor([0.0, angle, 0.0]))
    assert float(rotation_angle(rotation)) == pytest.approx(angle, rel=1e-3 if angle < 1e-5 else 1e-5)


@pytest.mark.parametrize("rotation", [torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))])
def test_rotation_angle_has_finite_gradient_at_its_singular_points(rotation):
    rotation = rotation.requires_grad_()
    angle = rotation_angle(rotation)
    angle.backward()
    assert angle.item() == pytest.approx(0 if rotation[1, 1] > 0 else math.pi, abs=1e-6)
    assert rotation.grad.isfinite().all()


@given(vectors, vectors)
def test_skew_is_the_cross_product(a, b):
    assert torch.allclose(skew(a) @ b, torch.linalg.cross(a, b), atol=1e-12)


def test_relative_gives_cam_i_from_cam_j_for_all_ordered_pairs():
    poses = torch.stack([rigid_from(so3_exp(torch.randn(3).double()), torch.randn(3).double()) for _ in range(3)])
    pairs = relative(poses)
    for i in range(3):
        for j in range(3):
            assert torch.allclose(pairs[i, j], torch.linalg.inv(poses[i]) @ poses[j], atol=1e-12)
    batch = torch.stack([poses, poses.flip(0)])
    assert torch.allclose(relative(batch)[1], relative(poses.flip(0)))


@given(vectors)
def test_projection_to_so3_keeps_rotations_and_ignores_scale(omega):
    rotation = so3_exp(omega)
    assert torch.allclose(rotation_from_9d(rotation), rotation, atol=1e-9)
    assert torch.allclose(rotation_from_9d(7 * rotation), rotation, atol=1e-9)


def test_projection_to_so3_is_the_nearest_rotation():
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    nearest = rotation_from_9d(matrix)
    assert torch.det(nearest) == pytest.approx(1)
    distance = (matrix - nearest).norm()
    for omega in torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double():
        assert (matrix - so3_exp(0.3 * omega) @ nearest).norm() > distance


@pytest.mark.parametrize("matrix", [torch.zeros(3, 3), torch.eye(3), -torch.eye(3), torch.ones(3, 3)])
def test_projection_of_degenerate_matrices_is_a_rotation_with_finite_gradient(matrix):
    matrix = matrix.requires_grad_()
    rotation = rotation_from_9d(matrix)
    (rotation * torch.arange(9.0).reshape(3, 3)).sum().backward()
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3), atol=1e-5)
    assert torch.det(rotation).item() == pytest.approx(1, abs=1e-5)
    assert matrix.grad.isfinite().all()


def test_projection_gradient():
    matrix = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    assert torch.autograd.gradcheck(rotation_from_9d, (matrix,))


@pytest.mark.parametrize("degrees", [1e-4, 30.0, 90.0, 150.0, 179.99])
def test_angle_between_by_hand_whatever_the_lengths(degrees):
    a = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    b = 5 * torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]).double()
    assert math.degrees(angle_between(a, b)) == pytest.approx(degrees, rel=1e-6)


@pytest.mark.parametrize("degrees", [0.01, 60.0, 120.0, 179.0])
def test_angle_gradient_is_one_over_the_length_at_every_angle(degrees):
    a = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    b = 4 * torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]).double()
    b.requires_grad_()
    angle_between(a, b).backward()
    assert float(b.grad.norm()) == pytest.approx(1 / 4)


@pytest.mark.parametrize("other", [[0.0, 0, 0], [0, 0, 1.0], [0, 0, -1.0], [0, 0, 1e-20]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angle_has_finite_value_and_gradient_where_it_is_singular(other, dtype):
    a = torch.tensor([0.0, 0.0, 1.0], dtype=dtype, requires_grad=True)
    b = torch.tensor(other, dtype=dtype, requires_grad=True)
    angle_between(a, b).backward()
    assert a.grad.norm() < 1
    assert b.grad.isfinite().all()
    if other == [0.0, 0, 0]:
        assert b.grad.norm() == 0


def test_angle_gradcheck_and_batch():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 3, generator=generator).double().requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(angle_between, (a, b))
    assert torch.allclose(angle_between(a, b)[2], angle_between(a[2], b[2]))
