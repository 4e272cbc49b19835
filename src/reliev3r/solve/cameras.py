"""Cameras of a whole capture from tracks: by groups of views that see something in common, never as one guess.

Two track experts compete, SIFT and the matching branch of the network; the cameras that explain most observations of
both are kept. No ground truth takes part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.progress import Progress, Report, silent, staged
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.masks import without_masked
from reliev3r.geometry.camera import K_from_focal
from reliev3r.labels.expert import TrackExpert
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig, believed, explained_by
from reliev3r.sfm.focal import solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras

_EVIDENCE_ANGLE = 0.004
"""Residual, in radians, within which an observation is explained; the same for the tracks of all experts."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Tracks of one expert, in original pixels, and how exact they are."""

    expert: str
    tracks: Tracks
    inlier_angle: float
    """Largest residual of an observation that counts in the solve, in radians."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Views that are solved together; another group has another world frame and another unit."""

    solve: CameraSolve
    """Of all views; those of the group are ``reached``."""

    @property
    def views(self) -> list[int]:
        """Positions of its views."""
        return self.solve.reached.nonzero()[:, 0].tolist()


@dataclass(frozen=True, kw_only=True)
class CaptureCameras:
    """Cameras of a capture, by groups; the largest first."""

    groups: tuple[Group, ...]
    K: Float[Tensor, "v 3 3"]
    """In original pixels; known, or of the focal length that was found."""
    candidate: Candidate
    """The tracks that they were solved from."""
    explained: dict[str, int]
    """Observations of all experts that the cameras solved from each expert's tracks explain."""

    @property
    def alone(self) -> list[int]:
        """Views that belong to no group."""
        tied = {view for group in self.groups for view in group.views}
        return [view for view in range(len(self.K)) if view not in tied]


def solve_capture(
    capture: Capture, experts: Sequence[tuple[str, TrackExpert, float]], report: Report | None = None
) -> CaptureCameras | None:
    """Cameras of a capture; ``None`` where no two views share enough.

    Args:
        capture: with or without intrinsics; unknown ones are searched for, one focal length in image widths for all.
        experts: name, expert and inlier angle in radians of each.
        report: hears of the tracks of each expert and of the cameras.
    """
    report = report or silent
    candidates = [
        Candidate(
            expert=name, inlier_angle=angle,
            tracks=without_masked(expert.track(capture, staged(report, f"tracks of {name}")), capture.masks),
        )
        for name, expert, angle in experts
    ]  # fmt: skip
    K = known_K(capture) if capture.has_K else _searched_K(capture, candidates, staged(report, "focal length"))
    if K is None:
        return None
    found: dict[str, tuple[Group, ...]] = {}
    for each in candidates:
        placed = staged(report, f"cameras by {each.expert}")
        placed(0, len(K), "")
        found[each.expert] = solve_groups(each, K, placed)
        placed(len(K), len(K), "")
    explained = {
        name: sum(explained_observations(groups, each.tracks, K) for each in candidates)
        for name, groups in found.items()
    }
    best = max(candidates, key=lambda each: explained[each.expert])
    groups = found[best.expert]
    return CaptureCameras(groups=groups, K=K, candidate=best, explained=explained) if groups else None


def known_K(capture: Capture) -> Float[Tensor, "v 3 3"]:
    """Intrinsics of all frames, in original pixels, float64."""
    return torch.stack([torch.from_numpy(frame.K).double() for frame in capture.frames if frame.K is not None])


def _searched_K(capture: Capture, candidates: Sequence[Candidate], progress: Progress) -> Float[Tensor, "v 3 3"] | None:
    """The focal length under which the tracks of the first expert that ties anything explain most."""
    sizes = [(frame.height, frame.width) for frame in capture.frames]
    for each in candidates:
        config = SolveConfig(inlier_angle=each.inlier_angle)
        found = solve_focal(each.tracks, sizes, config=config, progress=progress)
        if found is not None:
            focal = torch.tensor([found[0] * width for _, width in sizes], dtype=torch.float64)
            return torch.stack([K_from_focal(f, *size) for f, size in zip(focal, sizes, strict=True)])
    return None


def solve_groups(
    candidate: Candidate, K: Float[Tensor, "v 3 3"], progress: Progress | None = None
) -> tuple[Group, ...]:
    """Solve, leave out whom too little ties, and go on with the rest until nothing ties it; the largest group first."""
    config = SolveConfig(inlier_angle=candidate.inlier_angle)
    left = torch.ones(len(K), dtype=torch.bool)
    groups = []
    while int(left.sum()) > 1:
        tracks = _within(candidate.tracks, left)
        solve = solve_cameras(tracks, K, config, progress) if tracks.weight.shape[-1] else None
        if solve is None:
            break
        solve = believed(solve, tracks, K, config)
        if int(solve.reached.sum()) < 2:
            break
        groups.append(Group(solve=solve))
        left = left & ~solve.reached
    return tuple(sorted(groups, key=lambda group: -len(group.views)))


def _within(tracks: Tracks, views: Bool[Tensor, " v"]) -> Tracks:
    """The tracks that two of these views see, with weight 0 elsewhere; all positions stay."""
    weight = tracks.weight * views[:, None]
    return dataclasses.replace(tracks, weight=weight * ((weight > 0).sum(0) > 1))


def explained_observations(groups: Sequence[Group], tracks: Tracks, K: Float[Tensor, "v 3 3"]) -> int:
    """Observations that agree with the cameras of their view's group and a point of their own."""
    config = SolveConfig(inlier_angle=_EVIDENCE_ANGLE)
    return sum(
        int(explained_by(group.solve.world_from_cam, group.solve.reached, tracks, K, config).sum()) for group in groups
    )
