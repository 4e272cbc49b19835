"""Whether confidence W says where depth is wrong: order of the pixels, and where doubt lies. It needs ground truth.

All figures are over the valid pixels of all views together, on the prediction's grid. The error of a pixel is that of
its z-depth under one scale for the scene, |s d - d*| / d*, as in the protocol ``strict``. Only the order of W matters
to the first two functions, so they serve any other score of confidence as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Truth
from reliev3r.evaluation.metrics import relative_error, relative_scale, view_weights
from reliev3r.geometry.collapse_signs import share_at_two
from reliev3r.geometry.sampling import depth_edges

WRONG = 0.10
"""Relative depth error beyond which a pixel counts as wrong."""
STEPS = 20
"""Points of a sparsification curve: 0, 5, ..., 95 % left out."""
EDGE = 0.10
"""Jump of the true depth within 3 x 3 pixels, as a share of it, that counts as an edge."""
FAR = 0.10
"""Share of the pixels, those of largest true depth, that count as far."""


def auroc(confidence: Float[Tensor, " n"], wrong: Bool[Tensor, " n"]) -> float | None:
    """Probability that a right pixel has more confidence than a wrong one; equal confidence counts half.

    1: confidence tells them apart; 0.5: it says nothing. ``None`` where all pixels are right, or all wrong.
    """
    right = (~wrong).double()
    pairs = float(right.sum()) * float(wrong.sum())
    if pairs == 0:
        return None
    _, level = confidence.unique(return_inverse=True)
    rights, wrongs = torch.bincount(level, weights=right), torch.bincount(level, weights=wrong.double())
    return float((rights * (wrongs.cumsum(0) - 0.5 * wrongs)).sum()) / pairs


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """Mean error of the pixels that remain when a growing share is left out: 0, 5, ..., 95 %."""

    by_confidence: tuple[float, ...]
    """Those with the least confidence are left out; among equals it is chance that chooses (its expectation)."""
    oracle: tuple[float, ...]
    """Those with the largest error are: no order can do better."""

    @property
    def area(self) -> float:
        """Mean of the curve, lower is better."""
        return sum(self.by_confidence) / STEPS

    @property
    def area_random(self) -> float:
        """The area of a confidence that says nothing: the mean error of all pixels."""
        return self.by_confidence[0]

    @property
    def area_oracle(self) -> float:
        """The least area that any confidence can have."""
        return sum(self.oracle) / STEPS

    @property
    def gain(self) -> float | None:
        """What confidence is worth, from chance (0) to the oracle (1); negative where it misleads, ``None`` where all
        errors are equal."""
        most = self.area_random - self.area_oracle
        return (self.area_random - self.area) / most if most > 1e-12 else None


def sparsification(error: Float[Tensor, " n"], confidence: Float[Tensor, " n"]) -> Sparsification:
    """The curve of these pixels, at least one (Ilg et al., *Uncertainty Estimates for Optical Flow*, ECCV 2018)."""
    error = error.double()
    _, level = confidence.unique(return_inverse=True)
    count = torch.bincount(level)
    expected = (torch.bincount(level, weights=error) / count)[level]
    best_first = expected[confidence.argsort(descending=True, stable=True)]
    return Sparsification(by_confidence=_remaining(best_first), oracle=_remaining(error.sort().values))


def _remaining(error: Float[Tensor, " n"]) -> tuple[float, ...]:
    """Mean of what remains of an ordered list whose end is left out."""
    mean = error.cumsum(0) / torch.arange(1, len(error) + 1, device=error.device)
    kept = [round(len(error) * (1 - step / STEPS)) for step in range(STEPS)]
    return tuple(float(mean[max(number, 1) - 1]) for number in kept)


@dataclass(frozen=True, kw_only=True)
class ConfidenceFigures:
    """What W of one prediction is worth; ``None`` where there is no such pixel."""

    wrong_share: float
    """Share of the pixels whose depth is off by more than 10 %."""
    auroc: float | None
    """Of W against those pixels."""
    curve: Sparsification
    depth_rel: float
    """Mean relative depth error of all pixels (pooled, not first by view)."""
    depth_rel_confident_half: float
    """The same of the half with the larger W."""
    share_at_bound: float
    """Share of the pixels with W at its upper bound: of these it says nothing."""
    share_doubted: float
    """Share of the pixels with W < 1."""
    w_far: float | None
    """Mean W of the tenth of the pixels that is farthest away."""
    w_edge: float | None
    """Mean W at jumps of the true depth by more than 10 % within 3 x 3 pixels."""
    w_rest: float | None
    """Mean W of the pixels that are neither."""


def confidence_figures(prediction: Prediction, truth: Truth) -> ConfidenceFigures:
    """Judge W of a prediction; both without batch dimension and on the same pixels.

    Raises:
        UserError: the grids differ, or no pixel has true depth.
    """
    if prediction.depth.shape != truth.depth.shape:
        grids = [" x ".join(map(str, maps.shape)) for maps in (prediction.depth, truth.depth)]
        raise UserError(f"confidence is judged on the prediction's grid {grids[0]}, but the truth has {grids[1]}")
    valid = truth.valid
    if not valid.any():
        raise UserError("no pixel has true depth, so confidence cannot be judged")
    error = depth_errors(prediction, truth)[valid]
    conf, depth = prediction.conf[valid].double(), truth.depth[valid].double()
    curve = sparsification(error, conf)
    far = depth >= depth.kthvalue(min(round((1 - FAR) * len(depth)) + 1, len(depth))).values
    edge = _true_edges(truth)[valid]
    return ConfidenceFigures(
        wrong_share=float((error > WRONG).double().mean()), auroc=auroc(conf, error > WRONG), curve=curve,
        depth_rel=float(error.mean()), depth_rel_confident_half=curve.by_confidence[STEPS // 2],
        share_at_bound=float(share_at_two(conf)), share_doubted=float((conf < 1).double().mean()),
        w_far=_mean(conf[far]), w_edge=_mean(conf[edge]), w_rest=_mean(conf[~(far | edge)]),
    )  # fmt: skip


def depth_errors(prediction: Prediction, truth: Truth) -> Float[Tensor, "v h w"]:
    """|s d - d*| / d* of every pixel, float64, with the scale of the scene that makes it least; 0 where not valid."""
    valid = truth.valid
    depth, true = prediction.depth[valid].double()[:, None], truth.depth[valid].double()[:, None]
    scale = relative_scale(depth, true, view_weights(valid.nonzero()[:, 0]))
    errors = torch.zeros(valid.shape, dtype=torch.float64)
    errors[valid] = relative_error(scale * depth, true)
    return errors


def _true_edges(truth: Truth) -> Bool[Tensor, "v h w"]:
    """Jumps of the true depth; not where it has a hole beside, which says nothing of what is there."""
    hole = functional.max_pool2d((~truth.valid)[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    return depth_edges(torch.where(truth.valid, truth.depth, 1.0), rtol=EDGE) & ~hole


def _mean(values: Float[Tensor, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None
