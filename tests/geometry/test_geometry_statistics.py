"""Weighted median, mean and MAD against brute force, and where nothing is left."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reliev3r.geometry.statistics import weighted_deviation, weighted_mean, weighted_median

samples = st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 5)), min_size=1, max_size=12)


def columns(pairs):
    return (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs))


def test_median_by_hand():
    values = torch.tensor([5.0, 1.0, 3.0, 2.0])
    assert weighted_median(values, torch.ones(4)) == 2  # the lower of the two in the middle
    assert weighted_median(values, torch.tensor([10.0, 1.0, 1.0, 1.0])) == 5
    assert weighted_median(values, torch.tensor([0.0, 0.0, 1.0, 0.0])) == 3


@given(samples)
def test_median_minimises_the_weighted_absolute_deviation(pairs):
    values, weight = columns(pairs)
    median = weighted_median(values, weight)
    if weight.sum() < 1e-6:
        return
    cost = (weight * (values[:, None] - values).abs().mT).sum(-1)
    own = (weight * (values - median).abs()).sum()
    assert own <= cost.min() + 1e-9 * (1 + cost.min())
    assert (values[weight > 0] == median).any()


def test_weightless_values_are_not_read():
    values, weight = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([1.0, 0.0, 3.0])
    assert weighted_median(values, weight) == 3
    assert weighted_mean(values, weight) == 2.5


def test_no_weight_gives_zero_with_zero_gradient():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    for result in (weighted_median(values, torch.zeros(2)), weighted_mean(values, torch.zeros(2))):
        assert result == 0
        result.backward()
        assert values.grad.tolist() == [0, 0]


def test_median_gradient_reaches_the_picked_value_only():
    values = torch.tensor([4.0, 1.0, 2.0], requires_grad=True)
    weighted_median(values, torch.ones(3)).backward()
    assert values.grad.tolist() == [0, 0, 1]


def test_deviation_by_hand():
    values, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0])
    median, deviation = weighted_deviation(values, weight, "mean")
    assert median == 2  # half of the weight is reached at 2
    assert deviation == pytest.approx((1 + 0 + 2 * 4) / 4)
    # the deviations 1, 0, 4 with weights 1, 1, 2: half of the weight is reached at 1
    assert [float(x) for x in weighted_deviation(values, weight, "median")] == [2, 1]


@pytest.mark.parametrize("average", ["mean", "median"])
@given(pairs=samples, scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_deviation_follows_scale_and_shift(average, pairs, scale, shift):
    values, weight = columns(pairs)
    median, deviation = weighted_deviation(values, weight, average)
    if weight.sum() < 1e-6:
        return
    moved = weighted_deviation(scale * values + shift, weight, average)
    assert float(moved[0]) == pytest.approx(float(scale * median + shift), abs=1e-6)
    assert float(moved[1]) == pytest.approx(float(scale * deviation), abs=1e-6)


def test_batch_equals_loop():
    generator = torch.Generator().manual_seed(0)
    values, weight = torch.randn(4, 3, 9, generator=generator), torch.rand(4, 3, 9, generator=generator)
    for function in (weighted_median, weighted_mean):
        batch = function(values, weight)
        for i in range(4):
            for j in range(3):
                assert torch.equal(batch[i, j], function(values[i, j], weight[i, j]))
