"""A capture and its labels at the network's resolution."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.settings import require
from reliev3r.core.types import DepthLabels, PseudoLabels, Tracks, Views
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import (
    network_views,
    resize_depth,
    uv_in_region,
)
from reliev3r.geometry.camera import K_from_focal, fov_from_focal
from reliev3r.geometry.sampling import inside
from reliev3r.labels.align_depth import RegisterConfig, register_depth
from reliev3r.labels.pipeline import CaptureLabels
from reliev3r.labels.swept import sweep_depth
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig
from reliev3r.sfm.focal import solve_focal
from reliev3r.sfm.solve_cameras import solve_cameras


def network_sample(
    capture: Capture, labels: CaptureLabels, *, long_side: int, patch: int
) -> tuple[Views, PseudoLabels, Float[Tensor, "v 4"]]:
    """:func:`network_views` together with the labels [v ...] on the same pixels.

    Depth is the mean of the valid pixels in each area. Observations outside the region have weight 0; no track is
    removed, so positions in the track axis stay those of ``labels``.
    """
    views, regions = network_views(capture, long_side=long_side, patch=patch)
    height, width = views.size
    depths, masks, uv = [], [], []
    for index, frame in enumerate(capture.frames):
        stored, region = labels.depth(index), tuple(regions[index].tolist())
        depth, valid = resize_depth(stored.depth, stored.valid, region, (frame.width, frame.height), (height, width))
        depths.append(depth)
        masks.append(valid)
        uv.append(uv_in_region(labels.tracks.uv[index], region, (height, width)))
    moved = torch.stack(uv)
    weight = torch.where(inside(moved, height, width), labels.tracks.weight, 0.0)
    depth_labels = DepthLabels(
        depth=torch.from_numpy(np.stack(depths)),
        valid=torch.from_numpy(np.stack(masks)),
        ambiguity=labels.ambiguity,
    )
    return views, PseudoLabels(depth=depth_labels, tracks=Tracks(uv=moved, weight=weight)), regions


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """How labels become supervision."""

    image_size: int = 96
    """Long side of the network's images, rounded to a multiple of the patch."""
    heldout: float = 0.1
    """Share of the tracks that training never sees; they judge the result."""
    solve: bool = True
    """Solve pseudo cameras from the training tracks: teacher of the pose head, start of an unknown focal length."""
    register: bool = True
    """Bend the monocular depth towards the depths that the solved tracks triangulate; trust it by their agreement."""
    sweep: bool = False
    """Sweep depth under the pseudo cameras: the label where views agree, elsewhere the expert's bent towards it."""
    registration: RegisterConfig = field(default_factory=RegisterConfig)
    solver: SolveConfig = field(default_factory=SolveConfig)

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        require(self, image_size=(16, 4096), heldout=(0, 0.9))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One capture ready for training; nothing in it was made from ground truth by this module."""

    views: Views
    """[v ...]; ``K`` is ``None`` where the intrinsics are unknown."""
    labels: PseudoLabels
    """[v ...] at network resolution, tracks without the held-out ones."""
    heldout: Tracks
    """At network resolution."""
    regions: Float[Tensor, "v 4"]
    """(left, top, width, height) in original pixels of what the network sees."""
    train_index: Tensor
    heldout_index: Tensor
    """Positions of both kinds in the stored tracks."""
    raw_depth: Float[Tensor, "v h w"] | None
    """The expert's depth before registration, for the report; ``None`` where there is no expert."""
    focal_over_width: float | None
    """Estimated shared focal length, where the intrinsics are unknown."""
    notes: list[str]


def prepare_capture(
    capture: Capture, labels: CaptureLabels, config: PrepareConfig, *, patch: int, progress: Progress | None = None
) -> Prepared:
    """Sample, split and enrich the labels of one capture; a pure function of its arguments.

    ``progress`` hears of what takes long: the search for an unknown focal length, the solve, and the sweep.
    """
    views, pseudo, regions = network_sample(capture, labels, long_side=config.image_size, patch=patch)
    seen = pseudo.tracks.visible
    tied = seen[:, seen.sum(0) > 1].any(1)  # of other views the labels' verdict tells
    train_index, heldout_index = split_tracks(pseudo.tracks, config.heldout)
    heldout = pseudo.tracks.select_tracks(heldout_index)
    pseudo = dataclasses.replace(pseudo, tracks=pseudo.tracks.select_tracks(train_index))
    raw_depth = pseudo.depth.depth if bool(pseudo.depth.valid.any()) else None
    notes: list[str] = []
    solve, focal = _solve(views, pseudo, config, notes, progress)
    if solve is not None:
        depth, certainty = solve.track_depth
        solved = dataclasses.replace(pseudo.tracks, depth=depth * (certainty > 0))
        pseudo = dataclasses.replace(pseudo, cameras=solve.labels, tracks=solved)
        if focal is not None:
            height, width = views.size
            K = K_from_focal(torch.tensor(focal * width), height, width).expand(len(depth), 3, 3)
            pseudo = dataclasses.replace(pseudo, K=K)
        if config.register and bool(pseudo.depth.valid.any()):
            registered = register_depth(pseudo.depth, pseudo.tracks.uv, depth, certainty, config.registration)
            pseudo = dataclasses.replace(pseudo, depth=registered)
        unreached = [frame.name for frame, weak in zip(capture.frames, (tied & ~solve.reached).tolist()) if weak]
        if unreached:
            notes.append(
                f"too few matches tie {', '.join(unreached)} to the other images: their cameras are the least certain; "
                "more images between them and the rest would help"
            )
    if config.sweep:
        pseudo = _with_swept_depth(capture, views.K, pseudo, solve, config, patch, notes, progress)
    return Prepared(
        views=views, labels=pseudo, heldout=heldout, regions=regions, train_index=train_index,
        heldout_index=heldout_index, raw_depth=raw_depth, focal_over_width=focal, notes=notes,
    )  # fmt: skip


def _with_swept_depth(
    capture: Capture, K: Tensor | None, pseudo: PseudoLabels, solve: CameraSolve | None, config: PrepareConfig,
    patch: int, notes: list[str], progress: Progress | None,
) -> PseudoLabels:  # fmt: skip
    """Swept where they can be; with a weight for each pixel in any case, so that samples of captures can be stacked."""
    depth, why = pseudo.depth, "there are no pseudo cameras"
    K = K if pseudo.K is None else pseudo.K
    if solve is not None and K is not None:
        depth, why = sweep_depth(
            capture, depth, pseudo.tracks, solve, K, long_side=config.image_size, patch=patch, solver=config.solver,
            progress=progress,
        )  # fmt: skip
    if why:
        notes.append(f"depth is not swept: {why}; the labels stay as they are")
    if depth.weight is None:
        depth = dataclasses.replace(depth, weight=depth.valid.float())
    return dataclasses.replace(pseudo, depth=depth)


def split_tracks(tracks: Tracks, share: float) -> tuple[Tensor, Tensor]:
    """(training, held-out) indices of tracks [v, m]; always the same for the same number of tracks."""
    count = tracks.weight.shape[-1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    heldout = math.floor(share * count)
    return order[heldout:].sort().values, order[:heldout].sort().values


def _solve(
    views: Views, pseudo: PseudoLabels, config: PrepareConfig, notes: list[str], progress: Progress | None
) -> tuple[CameraSolve | None, float | None]:
    """Pseudo cameras, and the focal length in image widths where it had to be estimated."""
    if views.K is not None:
        solve = solve_cameras(pseudo.tracks, views.K, config.solver, progress) if config.solve else None
        focal = None
    else:
        found = solve_focal(pseudo.tracks, [views.size] * len(views.image), config=config.solver, progress=progress)
        if found is None:
            notes.append("the focal length could not be estimated from the matches; 58 degrees is where it starts")
            return None, None
        focal, solve = found
        fov = math.degrees(fov_from_focal(focal))
        notes.append(f"intrinsics estimated: the matches alone suggest a horizontal field of view of {fov:.0f} degrees")
        solve = solve if config.solve else None
    if config.solve and solve is None and not any("focal" in note for note in notes):
        notes.append("no two images share enough matches to solve cameras from; training starts without a teacher")
    return solve, focal
