"""Focal length against a given one, for networks that predict it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from reliev3r.types import Prediction

SHORTEST = 0.01
"""Of the given focal length."""


def focal_loss(prediction: Prediction, K: Float[Tensor, "*b v 3 3"]) -> Float[Tensor, "*b v"]:
    """|log f / f*| of each view's horizontal focal length. 0, without gradient, where the network was given K.

    Rays that fit no camera (an untrained network's) can have a focal length below 0: it counts as ``SHORTEST``.
    """
    return (prediction.K[..., 0, 0] / K[..., 0, 0]).clamp_min(SHORTEST).log().abs()
