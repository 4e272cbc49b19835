"""Points in the frame of a sample's first view, the auxiliary branch that helps a fresh network to tell views apart."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, PseudoLabels
from reliev3r.geometry.camera import transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.statistics import weighted_median
from reliev3r.losses.points import scene_scale


def global_points_loss(
    prediction: Prediction,
    target: Float[Tensor, "*b v h w 3"],
    weight: Float[Tensor, "*b v h w"],
    solver_points: int = 4096,
) -> Float[Tensor, "*b v h w"]:
    """weight * mean over x, y, z of |s * predicted - target|, s the best scale of each sample (no gradient; pi^3).

    ``target`` is in the frame of the sample's first view, in any unit; weights of one over depth make it relative.
    Unreduced; 0 where nothing has weight.

    Raises:
        UserError: the prediction has no global points.
    """
    if prediction.global_points is None:
        raise UserError(
            "the global-point loss needs such points: give the network network.global_points=true and training mode, "
            "or set global_weight to 0"
        )
    with torch.no_grad():
        scale = scene_scale(prediction.global_points, target, weight, solver_points)
    return weight * (scale[..., None, None, None, None] * prediction.global_points - target).abs().mean(-1)


def in_first_view(
    points_cam: Float[Tensor, "*b v h w 3"], world_from_cam: Float[Tensor, "*b v 4 4"]
) -> Float[Tensor, "*b v h w 3"]:
    """Points of each view's camera frame in the frame of the first view; any world frame."""
    first_from_cam = invert(world_from_cam[..., :1, :, :]) @ world_from_cam
    return transform(first_from_cam, points_cam.flatten(-3, -2)).view(points_cam.shape)


def taught_points(
    labels: PseudoLabels, rays: Float[Tensor, "*b v h w 3"]
) -> tuple[Float[Tensor, "*b v h w 3"], Float[Tensor, "*b v h w"]]:
    """Label depth lifted by the pseudo cameras into the first view's frame, and a weight: trust over depth.

    Each view's depth is brought to the cameras' unit by the median factor of its solved track depths (an offset that an
    expert leaves open is not looked for). 0 where depth is not valid, in views that are not tied or without solved
    tracks, and in the whole sample where that holds for its first view. No gradient.

    Raises:
        ValueError: ``labels`` have no cameras or no track depths.
    """
    cameras, tracks, depth = labels.cameras, labels.tracks, labels.depth
    if cameras is None or tracks.depth is None:
        raise ValueError("the labels have no pseudo cameras")
    with torch.no_grad():
        seen = sample_bilinear(depth.depth, tracks.uv)
        solved = (tracks.depth > 0) & tracks.visible & (seen > 0)
        ratio = torch.where(solved, tracks.depth, 1.0).log() - torch.where(solved, seen, 1.0).log()
        factor = weighted_median(ratio, tracks.weight * solved).exp()[..., None, None]
        say = cameras.weight * solved.any(-1)
        say = say * say[..., :1] * (1.0 if depth.trust is None else depth.trust)
        z = factor * torch.where(depth.valid, depth.depth, torch.ones_like(depth.depth))
        return in_first_view(rays * z[..., None], cameras.world_from_cam), say[..., None, None] * depth.valid / z


def own_points(prediction: Prediction) -> tuple[Float[Tensor, "*b v h w 3"], Float[Tensor, "*b v h w"]]:
    """What depth and cameras of a prediction say about the same points, and one over depth as weight. No gradient."""
    prediction = prediction.detach()
    return in_first_view(prediction.points_cam, prediction.world_from_cam), 1 / prediction.depth.clamp_min(1e-8)
