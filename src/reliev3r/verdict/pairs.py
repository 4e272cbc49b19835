"""How far a prediction is off for two of its views, match by match: what adaptations and rankings are judged by."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import angle_between, invert, rotation_angle
from reliev3r.sfm.camera_solve import CameraSolve

MIN_MATCHES = 8
"""Of a pair that is judged, and of one that two frames must share to be shown to a network together."""
LEAST_BASELINE = 0.02
"""Of the depth: a shorter baseline has no direction that matches could tell."""


def rays_of_pair(
    world_from_cam: Float[Tensor, "2 4 4"], uv: Float[Tensor, "2 n 2"], K: Float[Tensor, "2 3 3"]
) -> Float[Tensor, "2 n 3"]:
    """World rays through the matches of two views, float64, with z = 1 in their cameras."""
    return rays_from_uv(uv.double(), K.double()) @ world_from_cam[:, :3, :3].mT


def ray_to_point(
    world_from_cam: Float[Tensor, "2 4 4"], rays: Float[Tensor, "2 n 3"], points: Float[Tensor, "2 n 3"]
) -> Float[Tensor, " n2"]:
    """Degrees between the ray of one view and the point that the other predicts, first against second and back."""
    centre = world_from_cam[:, None, :3, 3]
    return torch.cat([angle_between(rays[i], points[1 - i] - centre[i]) for i in (0, 1)]).rad2deg()


def off_plane(world_from_cam: Float[Tensor, "2 4 4"], rays: Float[Tensor, "2 n 3"]) -> Float[Tensor, " n"]:
    """Degrees by which the rays of a match leave one plane with the baseline; the greater of both counts."""
    baseline = normalize(world_from_cam[1, :3, 3] - world_from_cam[0, :3, 3], dim=0)
    a, b = normalize(rays, dim=-1)
    return torch.maximum(_angle_to_plane(a, b, baseline), _angle_to_plane(b, a, baseline)).rad2deg()


def _angle_to_plane(ray: Tensor, spanning: Tensor, baseline: Tensor) -> Tensor:
    """Angle of each ray to the plane that the baseline spans with the other ray."""
    normal = normalize(torch.linalg.cross(spanning, baseline.expand_as(spanning)), dim=-1)
    return (ray * normal).sum(-1).abs().clamp_max(1).asin()


def short_of_meeting(world_from_cam: Float[Tensor, "2 4 4"], rays: Float[Tensor, "2 n 3"]) -> Float[Tensor, " n"]:
    """Degrees by which the rays of a match fail to meet in front of both cameras: out of one plane, or apart in it.

    Two cameras at one place have no plane: their rays must agree. A baseline that is turned round has the same planes,
    but its rays part in front of the cameras, by the parallax of the match.
    """
    baseline = world_from_cam[1, :3, 3] - world_from_cam[0, :3, 3]
    if not baseline.any():
        return angle_between(rays[0], rays[1]).rad2deg()
    first, second = (angle_between(ray, baseline.expand_as(ray)) for ray in rays)
    return torch.maximum(off_plane(world_from_cam, rays), (first - second).clamp_min(0).rad2deg())


def points_apart(world_from_cam: Float[Tensor, "2 4 4"], points: Float[Tensor, "2 n 3"]) -> Float[Tensor, " n"]:
    """Distance between the points that both views predict for a match, over their mean distance from both cameras."""
    distance = (points[:, None] - world_from_cam[None, :, None, :3, 3]).norm(dim=-1).mean((0, 1))
    return (points[0] - points[1]).norm(dim=-1) / distance.clamp_min(1e-12)


def camera_errors(
    world_from_cam: Float[Tensor, "2 4 4"], reference: CameraSolve | None, pair: tuple[int, int], seen: Tensor
) -> tuple[float, float | None] | None:
    """Degrees of error of relative rotation and of the baseline's direction (seen from the first view), against the
    cameras solved from the matches; None where there are none, or hardly any baseline. ``seen`` [v m] of the matches.
    """
    first, second = pair
    if reference is None or not bool(reference.reached[first] & reference.reached[second]):
        return None
    own = invert(world_from_cam[0]) @ world_from_cam[1]
    pose = reference.world_from_cam.double()
    solved = invert(pose[first]) @ pose[second]
    rotation = float(rotation_angle(own[:3, :3].mT @ solved[:3, :3]).rad2deg())
    depth, certainty = (each[first] for each in reference.track_depth)
    known = depth[(certainty > 0) & seen[first]]
    if len(known) == 0 or solved[:3, 3].norm() < LEAST_BASELINE * known.median():
        return rotation, None
    return rotation, float(angle_between(own[:3, 3], solved[:3, 3]).rad2deg())


def depth_errors(
    depth: Float[Tensor, "v m"], reference: CameraSolve | None, matches: Tracks, views: list[int]
) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]] | None:
    """|s d - d*| / d* at the matches of some views, and where d* is known: ``depth`` as predicted there, d* of the
    points solved from the matches, s by the median over these views. None: hardly any is known."""
    if reference is None:
        return None
    solved, certainty = (each[views].double() for each in reference.track_depth)
    known = (certainty > 0) & matches.visible[views]
    if known.sum() < MIN_MATCHES:
        return None
    ratio = depth / solved
    return (ratio / ratio[known].median() - 1).abs(), known
