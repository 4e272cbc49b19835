"""Scoring a prediction against ground truth under a named protocol; never runs a model, never trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxtyping import Bool
from torch import Tensor

from reliev3r.data.truth import TruthSource, load_truth
from reliev3r.errors import UserError
from reliev3r.evaluate.mapanything import score_mapanything
from reliev3r.evaluate.pi3 import score_pi3
from reliev3r.evaluate.sample import cameras_of, pixels_of
from reliev3r.evaluate.scores import Protocol, Scores
from reliev3r.evaluate.strict import score_strict
from reliev3r.geometry.sampling import resize_linear
from reliev3r.reconstruction import Reconstruction
from reliev3r.types import Prediction, Truth

LONG_SIDE = 640
"""Longest side, in pixels, of the grid on which ``strict`` and ``pi3`` compare maps."""

_SCORERS = {"strict": score_strict, "mapanything": score_mapanything, "pi3": score_pi3}


def score(
    prediction: Prediction,
    truth: Truth,
    protocol: Protocol,
    *,
    found: Bool[Tensor, " v"] | None = None,
    predicts_depth: bool = True,
) -> Scores:
    """Figures of ``prediction`` under ``protocol`` (see the modules ``strict``, ``mapanything`` and ``pi3``).

    Neither argument has a batch dimension; both cover the same part of the images. ``strict`` and ``pi3`` resize the
    prediction to the truth's pixels; ``mapanything`` scores on the prediction's own, so the truth must have them.
    ``found`` marks the views whose camera the system found (default all); ``predicts_depth=False`` says that the maps
    mean nothing and only cameras are scored.

    Raises:
        UserError: the grids differ under ``mapanything``, or the predicted maps are not finite.
    """
    if predicts_depth and prediction.depth.shape != truth.depth.shape:
        if protocol == "mapanything":
            grids = [" x ".join(map(str, maps.shape)) for maps in (prediction.depth, truth.depth)]
            raise UserError(f"mapanything scores on the prediction's grid {grids[0]}, but the truth has {grids[1]}")
        prediction = _resized(prediction, *truth.depth.shape[-2:])
    cameras = cameras_of(prediction, truth, found)
    pixels = pixels_of(prediction, truth, cameras) if predicts_depth else None
    return _SCORERS[protocol](cameras, pixels)


def evaluate_reconstruction(
    reconstruction: Reconstruction, source: TruthSource | Path | str, protocol: Protocol = "strict"
) -> Scores:
    """Score a reconstruction against the ground truth of the scene (or capture folder) it was made from.

    The truth is looked up where the prediction's pixels lie in the original images (``reconstruction.regions``).

    Raises:
        UserError: the capture has no ground truth, or not for these frames, or its images have another size.
    """
    height, width = reconstruction.prediction.depth.shape[-2:]
    if protocol != "mapanything":
        longest = min(LONG_SIDE, round(float(reconstruction.regions[:, 2:].max())))
        scale = longest / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    truth = load_truth(
        source,
        reconstruction.names,
        regions=reconstruction.regions,
        size=(height, width),
        image_sizes=reconstruction.sizes,
    )
    return score(
        reconstruction.prediction,
        truth,
        protocol,
        found=reconstruction.found,
        predicts_depth=reconstruction.predicts_depth,
    )


def _resized(prediction: Prediction, height: int, width: int) -> Prediction:
    """The prediction on another grid over the same area: bilinear depth, rays continued linearly at the border."""
    return dataclasses.replace(
        prediction,
        depth=resize_linear(prediction.depth[..., None].double(), height, width)[..., 0],
        rays=resize_linear(prediction.rays.double(), height, width, extrapolate=True),
        conf=resize_linear(prediction.conf[..., None], height, width)[..., 0],
    )
