"""Focal length against a given one, for networks that predict it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from reliev3r.types import Prediction


def focal_loss(prediction: Prediction, K: Float[Tensor, "*b v 3 3"]) -> Float[Tensor, "*b v"]:
    """|log f / f*| of each view's horizontal focal length. 0, without gradient, where the network was given K."""
    return (prediction.K[..., 0, 0] / K[..., 0, 0]).log().abs()
