"""Error measures by hand, against evo, and at their edges."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.evaluation.metrics import (
    ate_mean_rigid,
    ate_rmse,
    auc,
    norm_ratio,
    pair_errors,
    relative_error,
    spread,
    view_mean,
)
from reliev3r.geometry.rigid import rigid_from, so3_exp


def degrees(*values):
    return torch.tensor(values, dtype=torch.float64)


def area(*errors, threshold=30):
    return auc(degrees(*errors), torch.zeros(len(errors), dtype=torch.float64), threshold)


def cameras(views=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rotation = so3_exp(torch.randn(views, 3, generator=generator).double())
    return rigid_from(rotation, torch.randn(views, 3, generator=generator).double())


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((0.0, 0.0), 100),
        ((15.5, 15.5, 15.5), 50),  # in bin [15, 16): counted in the last 15 of 30 cumulative shares
        ((0.999,), 100),
        ((1.0,), 100 * 29 / 30),  # an edge belongs to the bin it opens
        ((29.0,), 100 / 30),
        ((30.0,), 100 / 30),  # the last bin is closed
        ((30.001,), 0),
        ((0.0, 180.0), 50),
        ((0.0, math.nan), 50),  # NaN is a failure, not an absence
    ],
)
def test_auc_by_hand(errors, expected):
    assert area(*errors) == pytest.approx(expected)


def test_auc_takes_the_worse_of_rotation_and_translation():
    assert auc(degrees(0, 15.5), degrees(15.5, 0)) == pytest.approx(50)


def test_auc_at_other_thresholds():
    assert area(2.5, threshold=5) == pytest.approx(60)
    assert area(4.5, threshold=3) == 0
    assert auc(degrees(), degrees()) is None


@given(st.lists(st.floats(0, 180), min_size=1, max_size=40))
def test_auc_equals_the_histogram_of_numpy(errors):
    histogram, _ = np.histogram(errors, bins=np.arange(31))
    assert area(*errors) == pytest.approx(100 * np.mean(np.cumsum(histogram / len(errors))))


def test_known_rotation_and_direction_errors():
    true = torch.eye(4).double().repeat(2, 1, 1)
    true[1, 0, 3] = 1  # baseline along x
    predicted = true.clone()
    predicted[1, :3, :3] = so3_exp(torch.tensor([0.0, 0.0, math.radians(20)]).double())
    predicted[1, :3, 3] = torch.tensor([math.cos(math.radians(50)), math.sin(math.radians(50)), 0])
    rotation, first = pair_errors(predicted, true, signed=True, seen="first")
    assert rotation.tolist() == pytest.approx([20])
    assert first.tolist() == pytest.approx([50])
    # the second camera is turned by 20 degrees, so it sees the baseline turned by 30
    assert pair_errors(predicted, true, signed=True, seen="second")[1].tolist() == pytest.approx([30])
    rotation, both = pair_errors(predicted, true, signed=True, seen="both")
    assert rotation.tolist() == pytest.approx([20, 20])
    assert both.tolist() == pytest.approx([50, 30])


def test_opposite_direction_is_right_only_where_the_sign_is_open():
    true = torch.eye(4).double().repeat(2, 1, 1)
    true[1, 0, 3] = 1
    predicted = true.clone()
    predicted[1, :3, 3] = torch.tensor([-2.0, 0.0, 0.0])
    assert pair_errors(predicted, true, signed=False, seen="first")[1].tolist() == pytest.approx([0])
    assert pair_errors(predicted, true, signed=True, seen="first")[1].tolist() == pytest.approx([180])


def test_all_unordered_pairs_are_compared():
    true = cameras(5)
    for part in pair_errors(true, true, signed=True, seen="first"):
        assert part.shape == (10,)
        assert part.max() < 1e-5


def test_a_camera_that_was_not_found_costs_180_degrees_in_all_its_pairs():
    true, found = cameras(4), torch.tensor([True, True, False, True])
    for part in pair_errors(true, true, found, signed=False, seen="first"):
        assert sorted(part.round().tolist()) == [0, 0, 0, 180, 180, 180]


def test_no_predicted_baseline_is_ninety_degrees_and_no_true_one_asks_for_none():
    true = cameras(3)
    collapsed = true.clone()
    collapsed[:, :3, 3] = 0
    assert pair_errors(collapsed, true, signed=True, seen="both")[1].tolist() == pytest.approx([90] * 6)
    rotation, translation = pair_errors(true, collapsed, signed=True, seen="both")
    assert translation.tolist() == [0] * 6
    assert rotation.max() < 1e-5


@given(st.integers(0, 100), st.floats(0.1, 50))
def test_pair_errors_do_not_see_a_similarity(seed, scale):
    true, predicted, by = cameras(4), cameras(4, seed=1), cameras(1, seed=seed)[0]
    other = by @ predicted
    other[:, :3, 3] *= scale
    for a, b in zip(
        pair_errors(predicted, true, signed=True, seen="both"), pair_errors(other, true, signed=True, seen="both")
    ):
        assert torch.allclose(a, b, atol=1e-6)


def test_ate_equals_evo():
    from evo.core import metrics
    from evo.core.trajectory import PosePath3D

    true, predicted = cameras(8), cameras(8, seed=1)
    reference, estimate = PosePath3D(poses_se3=list(true.numpy())), PosePath3D(poses_se3=list(predicted.numpy()))
    for scale, statistic, own in ((True, "rmse", ate_rmse), (False, "mean", ate_mean_rigid)):
        aligned = PosePath3D(poses_se3=list(estimate.poses_se3))
        aligned.align(reference, correct_scale=scale)
        error = metrics.APE(metrics.PoseRelation.translation_part)
        error.process_data((reference, aligned))
        value = own(predicted[:, :3, 3], true[:, :3, 3])
        assert value == pytest.approx(error.get_statistic(metrics.StatisticsType[statistic]), abs=1e-9)


def test_ate_by_hand():
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]).double()
    assert ate_rmse(5 * square + 7, square) == pytest.approx(0, abs=1e-9)
    assert spread(square + 3) == pytest.approx(math.sqrt(2))
    # without scale, each corner is left sqrt(2) away
    assert ate_mean_rigid(2 * square, square) == pytest.approx(math.sqrt(2))
    # one point for all cameras: nothing better than the mean
    assert ate_rmse(torch.zeros(4, 3).double(), square) == pytest.approx(spread(square))


def test_two_centres_have_no_similarity_ate():
    centres = torch.randn(2, 3).double()
    assert ate_rmse(centres, centres) is None
    assert ate_mean_rigid(centres[:1], centres[:1]) is None


def test_relative_error_and_norm_ratio_by_hand():
    true = torch.tensor([[3.0, 4.0, 0.0]]).double()
    turned = torch.tensor([[4.0, 3.0, 0.0]]).double()
    assert relative_error(turned, true).item() == pytest.approx(math.sqrt(2) / 5)
    assert norm_ratio(turned, true).item() == 1  # blind to the direction
    assert norm_ratio(true / 2, true).item() == norm_ratio(true * 2, true).item() == 2
    assert norm_ratio(torch.zeros(1, 3).double(), true) > 1e6


def test_mean_over_pixels_then_views():
    values, view = torch.tensor([1.0, 3.0, 10.0]).double(), torch.tensor([0, 0, 4])
    assert view_mean(values, view) == 6  # views 1 to 3 have no pixel and do not count
    assert view_mean(torch.tensor([True, False, True]), view) == 0.75
