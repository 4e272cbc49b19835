"""What networks and reconstructions are judged by: the images, matched anew when they are judged.

Held-out tracks share the labels' errors, so wrong labels pass their own test. We therefore match the images again
(SIFT, MAGSAC++ for each pair, union-find), and solve cameras and points from those matches. Nobody who is judged takes
part in any of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks, Views
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import network_views, uv_in_region
from reliev3r.geometry.camera import K_from_focal
from reliev3r.geometry.sampling import evenly_spaced, inside
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.tracks.pairwise import PairwiseTracks
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.sfm.camera_solve import CameraSolve
from reliev3r.sfm.focal import solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras

MOST_FRAMES = 48
"""Of a capture: matching all pairs of more would take longer than the training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the images of a capture say, whatever anybody predicts of it."""

    name: str
    matches: Tracks
    """[v m] found anew in the images."""
    K: Float[Tensor, "v 3 3"] | None
    """Intrinsics to measure with, known or estimated from ``matches``; all who are compared are measured with the
    same. None: unknown, and too few matches to tell."""
    reference: CameraSolve | None
    """Cameras and points solved from ``matches``; None where there were too few."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldoutCapture(Evidence):
    """A capture that two networks are compared on; ``matches`` and ``K`` are in pixels of ``views``."""

    views: Views
    """[v ...] as the networks get them."""
    frames: tuple[int, ...]
    """Positions of the views that were never trained on; empty where none was trained on (a replay capture)."""
    labels: Tracks | None = None
    """[v n] the labels' tracks that were held out of training: shown with the rest, and checked against ``matches``."""


def gather_evidence(
    capture: Capture,
    *,
    long_side: int,
    patch: int,
    frames: Sequence[int] = (),
    labels: Tracks | None = None,
    expert: TrackExpert | None = None,
    hide_intrinsics: bool = False,
    name: str | None = None,
) -> HeldoutCapture:
    """Match the images of a capture anew and solve cameras from the matches.

    Args:
        capture: Intrinsics included where they are known.
        long_side: Of the networks' images, in pixels.
        patch: Their sizes are multiples of it.
        frames: Positions of the frames that were held out of training.
        labels: Held-out tracks [v m] of the labels, in pixels of the networks' images.
        expert: Where SIFT finds nothing (footage without texture): the matcher to be used instead.
        hide_intrinsics: The networks have to predict them.
        name: As it is shown; by default that of the folder.

    Raises:
        UserError: unreadable images.
    """
    chosen = _chosen(len(capture.frames), frames)
    part = dataclasses.replace(capture, frames=tuple(capture.frames[index] for index in chosen))
    views, regions = network_views(part, long_side=long_side, patch=patch)
    found = _matches(part, expert, None)
    uv = torch.stack(
        [uv_in_region(each, tuple(region), views.size) for each, region in zip(found.uv, regions.tolist())]
    )
    matches = Tracks(uv=uv.float(), weight=torch.where(inside(uv, *views.size), found.weight, 0.0))
    K, reference = _solved(matches, views.K, [views.size] * len(views.image))
    return HeldoutCapture(
        name=name or capture.root.name,
        views=dataclasses.replace(views, K=None if hide_intrinsics or K is None else K.float()),
        frames=tuple(chosen.index(frame) for frame in frames if frame in chosen),
        matches=matches,
        K=K,
        reference=reference,
        labels=None if labels is None else labels.select_views(chosen),
    )


def image_evidence(
    capture: Capture, *, expert: TrackExpert | None = None, name: str | None = None, progress: Progress | None = None
) -> Evidence:
    """Match all images of a capture anew and solve cameras from the matches, in original pixels.

    Args:
        capture: intrinsics included where they are known.
        expert: another matcher than SIFT.
        name: as it is shown; by default that of the folder.
        progress: of the matching.

    Raises:
        UserError: unreadable images.
    """
    matches = _matches(capture, expert, progress)
    known = [torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None]
    sizes = [(frame.height, frame.width) for frame in capture.frames]
    K, reference = _solved(matches, torch.stack(known).float() if len(known) == len(sizes) else None, sizes)
    return Evidence(name=name or capture.root.name, matches=matches, K=K, reference=reference)


def _matches(capture: Capture, expert: TrackExpert | None, progress: Progress | None) -> Tracks:
    return (expert or PairwiseTracks(matcher=SiftMatcher(features=2000), long_side=800)).track(capture, progress)


def _solved(
    matches: Tracks, known: Tensor | None, sizes: Sequence[tuple[int, int]]
) -> tuple[Tensor | None, CameraSolve | None]:
    """(K, reference) of matches in images of ``sizes`` (height, width), by their own K where none is known."""
    if matches.weight.shape[-1] == 0:
        return known, None
    if known is not None:
        return known, solve_cameras(matches, known)
    found = solve_focal(matches, sizes)
    if found is None:
        return None, None
    own = [K_from_focal(torch.tensor(found[0] * width), height, width) for height, width in sizes]
    return torch.stack(own), found[1]


def _chosen(count: int, frames: Sequence[int]) -> list[int]:
    """Positions in order: all, or held-out frames and as many others, each evenly spaced."""
    if count <= MOST_FRAMES:
        return list(range(count))
    others = [index for index in range(count) if index not in set(frames)]
    held = evenly_spaced(sorted(frames), MOST_FRAMES // 2)
    return sorted([*held, *evenly_spaced(others, MOST_FRAMES - len(held))])
