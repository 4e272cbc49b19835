"""Depth labels from many views: a plane sweep under the pseudo cameras, filled by the expert where it is not sure.

It reads images, tracks and what was solved from them, and the network of the package for its features: no ground truth.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.progress import Progress
from reliev3r.core.types import DepthLabels, Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import network_views
from reliev3r.model.load import PACKAGED, load_network
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig, believed
from reliev3r.sfm.dense_depth import SolvedTracks, dense_depth, in_camera_unit, sweep_features
from reliev3r.sfm.fill_depth import FillConfig

_FINER = 2
"""Long side of the swept images over the network's: the features have half the resolution of their image."""
_EXPLAINED = 2 / 3
"""Share of the observations that the cameras must explain, as of labels that are not unusable."""
_UNSURE = 0.5
"""Weight of an expert's depth where the sweep is not sure."""
_LEAST = 0.1
"""Certainty below which a swept depth is no label where no expert speaks."""
_EXPERT = FillConfig(prior=0.15)
"""An expert's depth is a better prior than a network's own or none."""


def sweep_depth(
    capture: Capture,
    labels: DepthLabels,
    tracks: Tracks,
    solve: CameraSolve,
    K: Float[Tensor, "v 3 3"],
    *,
    long_side: int,
    patch: int,
    solver: SolveConfig,
    progress: Progress | None = None,
) -> tuple[DepthLabels, str]:
    """Labels whose depth is swept in the views that the solve reached; or as they were, and why.

    Where several views find the same depth it is the label, in the unit of the cameras; elsewhere the expert's, bent
    towards it. ``weight`` rises with the agreement; where no expert speaks it is 0 without any. Views whose cameras too
    few observations support stay as they are.

    Args:
        capture: of the labels.
        labels: registered, or without any valid pixel (no expert).
        tracks: that ``solve`` is of, in pixels of the labels.
        solve: label-side.
        K: in pixels of the labels.
        long_side: of the labels' images, as ``network_views`` takes it.
        patch: likewise.
        solver: settings of the solve.
        progress: hears of each view.
    """
    seen = (tracks.weight > 0) & solve.reached[:, None]
    explained = float(solve.inlier.sum() / seen.sum().clamp_min(1))
    solve = believed(solve, tracks, K, solver)
    views = solve.reached.nonzero()[:, 0].tolist()
    if len(views) < 2:
        return labels, "too few matches tie the views"
    if explained < _EXPLAINED:
        return labels, f"the pseudo cameras explain only {explained:.0%} of the matches"
    swept, certain = _swept(capture, labels, tracks, solve, K, views, _FINER * long_side, _FINER * patch, progress)
    trust = torch.ones(len(labels.depth)) if labels.trust is None else labels.trust
    expert = labels.valid * _UNSURE * trust[:, None, None]
    depth, valid, weight = labels.depth.clone(), labels.valid.clone(), labels.valid.float()
    depth[views] = swept
    valid[views] |= certain > _LEAST
    weight[views] = valid[views] * (expert[views] + (1 - expert[views]) * certain)
    trust = trust.index_fill(0, torch.tensor(views), 1.0)  # theirs is in the weight
    return dataclasses.replace(labels, depth=depth, valid=valid, weight=weight, trust=trust), ""


def _swept(
    capture: Capture, labels: DepthLabels, tracks: Tracks, solve: CameraSolve, K: Tensor, index: list[int],
    long_side: int, patch: int, progress: Progress | None,
) -> tuple[Float[Tensor, "k h w"], Float[Tensor, "k h w"]]:  # fmt: skip
    """(depth, certainty) of the views ``index`` at the size of the labels."""
    image = network_views(capture, long_side=long_side, patch=patch)[0].image[index]
    solved = SolvedTracks.of(solve, dataclasses.replace(tracks, uv=_FINER * tracks.uv)).select_views(index)
    prior = F.interpolate(_without_holes(labels)[index, None], size=image.shape[-2:], mode="bilinear")[:, 0]
    features = sweep_features(load_network(PACKAGED).eval().image_features(image), image)
    finer = torch.tensor([_FINER, _FINER, 1.0])
    found = dense_depth(
        features, image, finer[:, None] * K[index], solve.world_from_cam[index].float(), solved,
        in_camera_unit(prior, solved), fill=_EXPERT if bool(labels.valid.any()) else None, progress=progress,
    )  # fmt: skip
    depth, sure = (F.avg_pool2d(maps[:, None], _FINER)[:, 0] for maps in (found.depth, found.sure))
    return depth, sure


def _without_holes(labels: DepthLabels) -> Float[Tensor, "v h w"]:
    """The depth, with the view's median (1 where all is unknown) where it is not valid."""
    known = labels.depth.masked_fill(~labels.valid, torch.nan)
    usual = torch.nan_to_num(known.flatten(1).nanmedian(1).values, nan=1.0)
    return torch.where(labels.valid, labels.depth, usual[:, None, None])
