"""Robust scales, scale and shift, ICP and cloud distances."""

import numpy as np
import pytest
import torch

from reliev3r.evaluation import metrics as clouds
from reliev3r.evaluation.metrics import compare_clouds, icp, relative_scale, scale_shift_l1, view_weights
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_relative_scale_ignores_a_minority_of_outliers():
    true = rand(100, 3).abs() + 1
    predicted = true / 3
    predicted[:20] *= 0.01
    predicted[20:40] *= 1.5
    assert relative_scale(predicted, true, torch.ones(100).double()).item() == pytest.approx(3)


def test_relative_scale_minimises_the_reported_depth_rel():
    true, view = rand(90, 1).abs() + 0.5, torch.arange(90) // 40  # 40, 40 and 10 pixels
    predicted = true * torch.exp(0.5 * rand(90, 1, seed=1))
    weight = view_weights(view)
    assert weight[:40].sum() == pytest.approx(1)
    assert weight[80:].sum() == pytest.approx(1)

    def rel(scale):
        return (weight * ((scale * predicted - true).abs() / true)[:, 0]).sum()

    best = rel(relative_scale(predicted, true, weight))
    assert all(rel(scale) >= best - 1e-12 for scale in torch.linspace(0.01, 4, 400).double())


def test_relative_scale_is_never_negative():
    true = rand(20, 3)
    assert relative_scale(-true, true, torch.ones(20).double()) == 0


def test_scale_and_shift_ignore_outliers_and_reach_the_optimum():
    from scipy.optimize import minimize

    x = rand(200).abs() + 1
    y = 2 * x + 0.5
    y[:40] += 100 * rand(40, seed=1).abs()
    scale, shift = scale_shift_l1(x, y)
    assert (scale.item(), shift.item()) == (pytest.approx(2, abs=1e-3), pytest.approx(0.5, abs=1e-3))

    noisy = y + 0.1 * rand(200, seed=2)
    scale, shift = scale_shift_l1(x, noisy)
    cost = lambda p: float(np.abs(p[0] * x.numpy() + p[1] - noisy.numpy()).sum())  # noqa: E731
    best = minimize(cost, [2, 0.5], method="Nelder-Mead").fun
    assert cost([scale.item(), shift.item()]) <= best * 1.0001


def test_icp_finds_a_small_motion_and_keeps_away_from_what_is_too_far():
    target = rand(2000, 3)
    motion = rigid_from(so3_exp(torch.tensor([0.01, -0.02, 0.01]).double()), torch.tensor([0.01, 0.02, -0.01]).double())
    source = target @ invert(motion)[:3, :3].mT + invert(motion)[:3, 3]
    assert torch.allclose(icp(source, target, threshold=0.1, iterations=60), motion, atol=1e-6)
    assert torch.equal(icp(target + 50, target, threshold=0.1), torch.eye(4).double())


def surface(count, seed=0):
    """Points on the bent sheet z = 0.3 x^2."""
    xy = 2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)).double() - 1
    return torch.cat([xy, 0.3 * xy[:, :1] ** 2], dim=-1)


def test_equal_clouds_up_to_a_similarity_are_perfect():
    true = surface(3000)
    predicted = 5 * true @ so3_exp(torch.tensor([0.4, 0.2, -1.0]).double()).mT + 3
    result = compare_clouds(predicted, true)
    for name in ("accuracy", "completeness"):
        assert result[f"{name}_mean"] == pytest.approx(0, abs=1e-9)
    assert result["normal_consistency_mean"] == pytest.approx(1, abs=1e-9)


def test_noise_shows_up_as_its_own_size():
    true = surface(10000)
    result = compare_clouds(true + 0.05 * rand(10000, 3), true)
    # distance to a dense sheet is the component along the normal: mean of |N(0, 0.05)| is 0.040
    assert result["accuracy_mean"] == pytest.approx(0.040, rel=0.15)
    assert result["accuracy_median"] < result["accuracy_mean"]
    assert result["normal_consistency_mean"] < 0.999


def test_missing_surface_costs_completeness_not_accuracy():
    true = surface(4000)
    predicted = true.clone()
    left = true[:, 0] < -0.5
    predicted[left] = true[~left][: int(left.sum())]  # a quarter of the points repeats what is elsewhere
    distance, _ = clouds._nearest(true, predicted)
    back, _ = clouds._nearest(predicted, true)
    assert distance.mean() > 10 * back.mean() + 0.01


def test_thinning_keeps_ends_and_order(monkeypatch):
    points = torch.arange(30.0).reshape(10, 3)
    assert torch.equal(clouds._thin(points, 10), points)
    assert clouds._thin(points, 4)[:, 0].tolist() == [0, 9, 18, 27]
    noisy, true = surface(9000) + 0.03 * rand(9000, 3), surface(9000)
    whole = compare_clouds(noisy, true)
    monkeypatch.setattr(clouds, "QUERY_CAP", 1500)
    thinned = compare_clouds(noisy, true)
    assert thinned["accuracy_mean"] == pytest.approx(whole["accuracy_mean"], rel=0.05)
    assert thinned["completeness_mean"] == pytest.approx(whole["completeness_mean"], rel=0.05)


def test_three_points_are_enough_to_be_finite():
    result = compare_clouds(rand(3, 3), rand(3, 3, seed=1))
    assert all(np.isfinite(value) for value in result.values())
