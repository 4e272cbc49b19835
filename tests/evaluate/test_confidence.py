"""Confidence against true depth, by hand."""

import dataclasses

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Truth
from reliev3r.evaluation.confidence import auroc, confidence_figures, depth_errors, sparsification
from reliev3r.geometry.camera import K_from_fov, ray_map


def test_auroc_counts_pairs_of_right_and_wrong() -> None:
    wrong = torch.tensor([False, False, True, True])
    assert auroc(torch.tensor([1.9, 1.5, 1.0, 0.2]), wrong) == 1
    assert auroc(torch.tensor([0.2, 1.0, 1.5, 1.9]), wrong) == 0
    # right 2 and 1, wrong 1 and 0: three pairs in order, and one of equals
    assert auroc(torch.tensor([2.0, 1.0, 1.0, 0.0]), wrong) == 3.5 / 4
    assert auroc(torch.full((4,), 1.964), wrong) == 0.5
    assert auroc(torch.rand(4), torch.ones(4, dtype=torch.bool)) is None
    assert auroc(torch.rand(4), torch.zeros(4, dtype=torch.bool)) is None


def test_sparsification_of_twenty_errors() -> None:
    error = torch.arange(1, 21).double()[torch.randperm(20, generator=torch.Generator().manual_seed(0))]
    best = sparsification(error, -error)  # of the k smallest the mean is (k + 1) / 2
    assert best.by_confidence == pytest.approx([(k + 1) / 2 for k in range(20, 0, -1)])
    assert best.oracle == pytest.approx(best.by_confidence)
    assert (best.area, best.area_random, best.gain) == pytest.approx((5.75, 10.5, 1))
    worst = sparsification(error, error)  # of the k largest it is 20 - (k - 1) / 2
    assert (worst.area, worst.area_oracle, worst.gain) == pytest.approx((15.25, 5.75, -1))


def test_equal_confidence_is_chance() -> None:
    error = torch.tensor([0.0, 4.0, 1.0, 3.0])
    same = sparsification(error, torch.ones(4))
    assert set(same.by_confidence) == {2.0}
    assert same.gain == 0
    # two levels: of the upper pair the mean is 2, whichever of the two goes first
    halves = sparsification(error, torch.tensor([1.0, 1.0, 0.5, 0.5]))
    swapped = sparsification(error[[1, 0, 3, 2]], torch.tensor([1.0, 1.0, 0.5, 0.5]))
    assert halves.by_confidence == swapped.by_confidence
    assert set(halves.by_confidence[10:]) == {2.0}
    assert sparsification(torch.ones(7), torch.rand(7)).gain is None


H, W = 10, 20


def scene() -> tuple[Prediction, Truth]:
    """Two views of a wall at 2; the right quarter is at 8, predicted a half too far and doubted; one hole."""
    depth = torch.full((2, H, W), 2.0)
    depth[..., 15:] = 8.0
    valid = torch.ones_like(depth, dtype=torch.bool)
    valid[0, 5, 2] = False
    K = K_from_fov(1.0, H, W).expand(2, 3, 3)
    truth = Truth(depth=depth, valid=valid, K=K, world_from_cam=torch.eye(4).repeat(2, 1, 1))
    guess, conf = 0.1 * depth, torch.full_like(depth, 1.964)
    guess[..., 15:] *= 1.5
    conf[..., 15:] = 0.5
    guess[0, 5, 2], conf[0, 5, 2] = 77.0, 0.1  # in the hole nobody looks
    prediction = Prediction(depth=guess, rays=ray_map(K, H, W), conf=conf, world_from_cam=truth.world_from_cam)
    return prediction, truth


def test_confidence_of_a_wall_with_a_window() -> None:
    prediction, truth = scene()
    errors = depth_errors(prediction, truth)
    assert errors[..., :15].abs().max() < 1e-6
    assert errors[..., 15:].sub(0.5).abs().max() < 1e-6
    figures = confidence_figures(prediction, truth)
    pixels, wrong = 2 * H * W - 1, 2 * H * 5
    assert figures.wrong_share == pytest.approx(wrong / pixels)
    assert (figures.auroc, figures.curve.gain) == pytest.approx((1, 1))
    assert figures.depth_rel == pytest.approx(0.5 * wrong / pixels)
    assert figures.depth_rel_confident_half == pytest.approx(0, abs=1e-6)
    assert figures.share_at_bound == pytest.approx(1 - wrong / pixels)
    assert figures.share_doubted == pytest.approx(wrong / pixels)
    # the far ones are all that share the largest depth; of the two columns at the jump by more than a tenth one is near
    assert figures.w_far == pytest.approx(0.5)
    assert figures.w_edge == pytest.approx((1.964 + 0.5) / 2)
    assert figures.w_rest == pytest.approx(1.964)


def test_a_constant_confidence_says_nothing() -> None:
    prediction, truth = scene()
    figures = confidence_figures(dataclasses.replace(prediction, conf=torch.full_like(prediction.conf, 2.0)), truth)
    assert figures.auroc == 0.5
    assert figures.curve.gain == pytest.approx(0)
    assert figures.depth_rel_confident_half == pytest.approx(figures.depth_rel)
    assert figures.share_at_bound == 1


def test_what_cannot_be_judged_is_told() -> None:
    prediction, truth = scene()
    blind = dataclasses.replace(truth, valid=torch.zeros_like(truth.valid))
    with pytest.raises(UserError, match="no pixel has true depth"):
        confidence_figures(prediction, blind)
    smaller = dataclasses.replace(truth, depth=truth.depth[:, :5], valid=truth.valid[:, :5])
    with pytest.raises(UserError, match="grid 2 x 10 x 20, but the truth has 2 x 5 x 20"):
        confidence_figures(prediction, smaller)
