"""Judging cameras by tracks that nothing was adjusted on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import project, transform
from reliev3r.geometry.radial import distort, undistorted
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.triangulate import triangulate, world_rays

_TRIMMED = 0.2
"""Share of the largest held-out errors that the trimmed mean ignores: false matches are held out too."""


@dataclass(frozen=True, kw_only=True)
class HeldoutError:
    """Reprojection error in original pixels of held-out tracks, triangulated with the cameras under judgement."""

    median_px: float
    trimmed_mean_px: float
    """Without the largest fifth."""
    views_px: float
    """Mean over views of the view's median, so that a single spoilt view shows."""

    def not_worse_than(self, other: HeldoutError) -> bool:
        """Whether no figure is above the other's."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(mine <= theirs for mine, theirs in pairs)


def heldout_error(error: Float[Tensor, "v m"], judged: Bool[Tensor, "v m"]) -> HeldoutError:
    """The figures of :func:`observation_errors` (at least one observation)."""
    views = [error[view, judged[view]].median() for view in range(len(error)) if judged[view].any()]
    return HeldoutError(
        median_px=error[judged].median().item(),
        trimmed_mean_px=trimmed_mean(error[judged]),
        views_px=torch.stack(views).mean().item(),
    )


def trimmed_mean(error: Float[Tensor, " n"]) -> float:
    """Without the largest fifth."""
    return error.sort().values[: math.ceil((1 - _TRIMMED) * len(error))].mean().item()


def observation_errors(
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    sizes: Sequence[tuple[int, int]],
    radial: Float[Tensor, " v"] | None = None,
) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]]:
    """Reprojection error in pixels of the stored images (``sizes``: width, height), and which observations count.

    Every observation of a track that is seen twice counts, false ones too; a point behind a camera counts as the
    image's diagonal. ``radial`` is k1 of each view's lens.
    """
    radial = torch.zeros(len(K), dtype=torch.float64) if radial is None else radial.double()
    K, world_from_cam = K.double(), world_from_cam.double()
    straight = undistorted(tracks.to(torch.float64), K, radial)
    points = triangulate(world_rays(straight, K, world_from_cam), world_from_cam[:, :3, 3], tracks.weight.double())
    points_cam = transform(invert(world_from_cam), points.expand(len(K), -1, -1))
    error = (distort(project(points_cam, K), K, radial) - tracks.uv.double()).norm(dim=-1)
    diagonal = torch.tensor([math.hypot(*size) for size in sizes], dtype=error.dtype)[:, None]
    error = torch.where(points_cam[..., 2] > 0, torch.minimum(error, diagonal), diagonal)
    return error, tracks.visible & (tracks.visible.sum(0) >= 2)
