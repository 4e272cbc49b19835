"""Alignments: exact recovery, optimality, invariance, a second implementation, degenerate inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.geometry.align import align_cameras, align_scale_l1, align_scale_shift, umeyama
from reliev3r.geometry.rigid import rigid_from, so3_exp


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_l1_scale_by_hand():
    x, y = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([3.0, 3.0, 100.0])
    assert align_scale_l1(x, y, torch.tensor([1.0, 1.0, 0.5])) == 3  # ratios 3, 3, 50 with weights 1, 1, 1
    assert align_scale_l1(x, y, torch.tensor([1.0, 1.0, 5.0])) == 50


@given(st.integers(0, 1000))
def test_l1_scale_is_optimal(seed):
    x, y = rand(2, 15, seed=seed)
    weight = rand(15, seed=seed + 1).abs()
    scale = align_scale_l1(x, y, weight)
    others = torch.linspace(-5, 5, 301).double()[:, None]
    cost = (weight * (torch.cat([scale[None, None], others]) * x - y).abs()).sum(-1)
    assert cost[0] <= cost.min() + 1e-9


def test_l1_scale_without_information_is_zero_with_finite_gradient():
    x = torch.zeros(4, requires_grad=True)
    scale = align_scale_l1(x, torch.ones(4), torch.ones(4))
    scale.backward()
    assert scale == 0
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e6])
def test_scale_and_shift_are_recovered_in_any_unit(unit):
    x = rand(20) * unit
    scale, shift = align_scale_shift(x, 2.5 * x + 0.7 * unit, torch.rand(20).double())
    assert float(scale) == pytest.approx(2.5)
    assert float(shift) == pytest.approx(0.7 * unit)


def test_scale_and_shift_equal_numpy_least_squares():
    x, y, weight = rand(30, seed=1), rand(30, seed=2), rand(30, seed=3).abs()
    root = weight.sqrt()
    expected = np.linalg.lstsq(torch.stack([x * root, root], 1).numpy(), (y * root).numpy(), rcond=None)[0]
    assert np.allclose([float(v) for v in align_scale_shift(x, y, weight)], expected)


def test_scale_of_a_constant_is_one():
    x = torch.full((5,), 3.0, requires_grad=True)
    scale, shift = align_scale_shift(x, torch.arange(5.0), torch.ones(5))
    (scale + shift).backward()
    assert (scale.item(), shift.item()) == (1, -1)
    assert x.grad.isfinite().all()


@given(st.integers(0, 1000), st.floats(0.01, 50))
def test_umeyama_recovers_a_similarity(seed, true_scale):
    source, translation = rand(8, 3, seed=seed), rand(3, seed=seed + 1)
    rotation = so3_exp(rand(3, seed=seed + 2))
    target = true_scale * source @ rotation.mT + translation
    s, r, t = umeyama(source, target)
    assert float(s) == pytest.approx(true_scale)
    assert torch.allclose(r, rotation, atol=1e-8)
    assert torch.allclose(t, translation, atol=1e-7)


def test_umeyama_agrees_with_evo():
    from evo.core.geometry import umeyama_alignment

    source, target = rand(10, 3, seed=5), rand(10, 3, seed=6)
    for with_scale in (True, False):
        scale, rotation, translation = umeyama(source, target, with_scale=with_scale)
        r, t, s = umeyama_alignment(source.numpy().T, target.numpy().T, with_scale)
        assert float(scale) == pytest.approx(s, abs=1e-9)
        assert np.allclose(rotation, r, atol=1e-9)
        assert np.allclose(translation, t, atol=1e-9)


def test_umeyama_never_reflects():
    source = rand(12, 3)
    _, rotation, _ = umeyama(source, source * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.det(rotation) == pytest.approx(1)


def test_umeyama_weight_zero_leaves_points_out_and_batch_equals_loop():
    source, target = rand(2, 6, 3), rand(2, 6, 3, seed=1)
    weight = torch.tensor([[1.0, 1, 1, 1, 0, 0]]).double().expand(2, -1)
    batch = umeyama(source, target, weight)
    for i in range(2):
        alone = umeyama(source[i, :4], target[i, :4])
        assert all(torch.allclose(a[i], b) for a, b in zip(batch, alone))


@pytest.mark.parametrize("points", [torch.zeros(4, 3), torch.outer(torch.arange(4.0), torch.tensor([1.0, 2.0, 3.0]))])
def test_umeyama_of_a_point_or_a_line_is_a_finite_rotation(points):
    scale, rotation, translation = umeyama(points.double(), rand(4, 3))
    assert all(part.isfinite().all() for part in (scale, rotation, translation))
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).double(), atol=1e-9)


def test_cameras_on_a_line_are_aligned():
    source = rigid_from(so3_exp(rand(4, 3)), torch.outer(torch.arange(4.0), torch.tensor([1.0, 0, 0])).double())
    turn, move = so3_exp(rand(3, seed=9)), rand(3, seed=10)
    target = rigid_from(turn @ source[:, :3, :3], 3 * source[:, :3, 3] @ turn.mT + move)
    scale, rotation, translation = align_cameras(source, target)
    assert float(scale) == pytest.approx(3)
    assert torch.allclose(rotation, turn, atol=1e-9)
    assert torch.allclose(translation, move, atol=1e-9)
