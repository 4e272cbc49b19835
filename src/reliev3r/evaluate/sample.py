"""A prediction and its truth brought side by side, in float64, before any protocol looks at them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.errors import UserError
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import invert
from reliev3r.types import Prediction, Truth


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Predicted and true cameras of one set of views, each with the first found camera as the world frame."""

    predicted: Float[Tensor, "v 4 4"]
    """Identity where not found."""
    true: Float[Tensor, "v 4 4"]
    found: Bool[Tensor, " v"]

    def centres(self) -> tuple[Float[Tensor, "f 3"], Float[Tensor, "f 3"]]:
        """Predicted and true centres of the cameras that were found."""
        return self.predicted[self.found, :3, 3], self.true[self.found, :3, 3]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The valid pixels of all views: z-depth, and points in view 0's camera frame."""

    view: Int[Tensor, " n"]
    depth: Float[Tensor, "n 1"]
    true_depth: Float[Tensor, "n 1"]
    points: Float[Tensor, "n 3"]
    true_points: Float[Tensor, "n 3"]


def cameras_of(prediction: Prediction, truth: Truth, found: Bool[Tensor, " v"] | None) -> Cameras:
    """Cameras in the first found one's frame; a camera with a non-finite entry counts as not found."""
    predicted, true = prediction.world_from_cam.double(), truth.world_from_cam.double()
    finite = predicted.isfinite().flatten(1).all(1)
    found = finite if found is None else finite & found
    anchor = int(found.int().argmax())
    if found.any():
        predicted = invert(predicted[anchor]) @ predicted
    predicted = torch.where(found[:, None, None], predicted, torch.eye(4, dtype=torch.float64))
    return Cameras(predicted=predicted, true=invert(true[anchor]) @ true, found=found)


def pixels_of(prediction: Prediction, truth: Truth, cameras: Cameras) -> Pixels | None:
    """Valid pixels on the grid that both share; ``None`` where the truth has no depth or a camera is missing.

    A missing camera leaves its view's points without a place, so point and depth figures of such a set would not be
    comparable with those of other systems.

    Raises:
        UserError: the prediction has non-finite depth.
    """
    if not truth.valid.any() or not cameras.found.all():
        return None
    if not (prediction.depth.isfinite().all() and prediction.rays.isfinite().all()):
        raise UserError("the prediction has depth or rays that are not finite; predict again")
    valid = truth.valid
    rays = ray_map(truth.K.double(), *truth.depth.shape[-2:])
    true = Prediction(
        depth=truth.depth.double(),
        rays=rays,
        conf=torch.ones_like(truth.depth),
        world_from_cam=cameras.true,
    )
    own = Prediction(
        depth=prediction.depth.double(),
        rays=prediction.rays.double(),
        conf=prediction.conf,
        world_from_cam=cameras.predicted,
    )
    return Pixels(
        view=valid.nonzero()[:, 0],
        depth=own.depth[valid][:, None],
        true_depth=true.depth[valid][:, None],
        points=own.points_world[valid],
        true_points=true.points_world[valid],
    )
