"""Dense depth of a capture whose cameras are solved: swept where views agree, filled smoothly elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.geometry.sampling import evenly_spaced, inside, sample_bilinear
from reliev3r.sfm.camera_solve import CameraSolve
from reliev3r.sfm.fill_depth import FillConfig, fill_depth
from reliev3r.sfm.plane_sweep import (
    SweepConfig,
    SweptDepth,
    in_directions,
    patch_features,
    plane_sweep,
    principal_directions,
)

CONTINUED = 0.05
"""Confidence W, in (0, 2), of depth that is not swept."""
_SAMPLE = 48
"""Views that principal components are of, and that are projected at once: memory does not grow with the rest."""


@dataclass(frozen=True, kw_only=True)
class SolvedTracks:
    """Tracks under solved cameras, in pixels of the images that are densified."""

    tracks: Tracks
    depth: Float[Tensor, "v m"]
    """z-depth in each view, in the unit of the cameras."""
    certainty: Float[Tensor, "v m"]
    """0 where the observation was not solved."""

    @classmethod
    def of(cls, solve: CameraSolve, tracks: Tracks) -> SolvedTracks:
        """The tracks that ``solve`` is of, in any pixels."""
        depth, certainty = solve.track_depth
        return cls(tracks=tracks, depth=depth, certainty=certainty)

    def select_views(self, index: list[int]) -> SolvedTracks:
        """Of these views."""
        return SolvedTracks(
            tracks=self.tracks.select_views(index), depth=self.depth[index], certainty=self.certainty[index]
        )


@dataclass(frozen=True, kw_only=True)
class DenseDepth:
    """At the size of the images."""

    depth: Float[Tensor, "v h w"]
    """z-depth > 0 in the unit of the cameras."""
    sure: Float[Tensor, "v h w"]
    """In [0, 1]: how sure the sweep and the tracks are; 0 where the surface is only continued."""

    @property
    def confidence(self) -> Float[Tensor, "v h w"]:
        """The same as a W in (0, 2): :data:`CONTINUED` where nothing is sure."""
        return CONTINUED + 1.85 * self.sure


def dense_depth(
    features: Float[Tensor, "v c fh fw"],
    image: Float[Tensor, "v 3 h w"],
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    solved: SolvedTracks,
    prior: Float[Tensor, "v h w"],
    config: SweepConfig | None = None,
    fill: FillConfig | None = None,
    progress: Progress | None = None,
) -> DenseDepth:
    """Sweep all views (of one group), add the solved tracks, and fill the rest.

    Args:
        features: of the images, from the matching branch of a network or ``sfm.plane_sweep.patch_features``.
        image: RGB in [0, 1]; edges of colour are where surfaces may bend.
        K: in pixels of ``image``.
        world_from_cam: solved cameras.
        solved: under these cameras.
        prior: depth > 0 in the unit of the cameras (:func:`in_camera_unit`), right in its coarse form: a network's, an
            expert's, or a constant.
        config: of the sweep.
        fill: how the rest is filled.
        progress: hears of each view.
    """
    size = (image.shape[-2], image.shape[-1])
    ranges = depth_ranges(solved)
    swept = with_tracks(plane_sweep(features, K, world_from_cam, size, ranges, config, progress), solved, size)
    prior = F.interpolate(prior[:, None], size=swept.depth.shape[-2:], mode="area")[:, 0]
    filled = fill_depth(swept.depth, swept.confidence, as_far_as_confirmed(prior, swept), image, fill)
    # A confident depth that the filled surface passes by was outvoted by its surroundings.
    off = (filled / swept.depth).log().abs()
    sure = swept.confidence / (1 + (off / 0.04).square())
    return DenseDepth(depth=_to_size(filled, size), sure=_to_size(sure, size))


def sweep_features(
    learned: Float[Tensor, "v c fh fw"] | None, image: Float[Tensor, "v 3 h w"]
) -> Float[Tensor, "v k fh fw"]:
    """What a sweep compares: plain patches, and a network's features beside them where there are any.

    Patches are the more exact, learned features find more. Each as a few principal components, of equal say; of many
    views they are those of a sample.
    """
    sample = evenly_spaced(range(len(image)), _SAMPLE)
    plain = principal_directions(patch_features(image[sample]), 16)
    own = None if learned is None else principal_directions(learned[sample].to(image.device), 24)
    parts = []
    for index in torch.arange(len(image)).split(_SAMPLE):
        part = [in_directions(patch_features(image[index]), plain)]
        if learned is not None and own is not None:
            part.insert(0, in_directions(learned[index].to(image.device), own))
        parts.append(torch.cat(part, dim=1))
    return torch.cat(parts)


def depth_ranges(
    solved: SolvedTracks, *, near: float = 0.7, far: float = 1.6, share: float = 0.02
) -> Float[Tensor, "v 2"]:
    """Nearest and farthest z-depth that each view's solved tracks suggest: quantiles, with room to both sides."""
    everywhere = solved.depth[solved.certainty > 0]
    if not len(everywhere):
        return torch.tensor([[0.1, 10.0]]).repeat(len(solved.depth), 1)
    ranges = []
    for depth, certainty in zip(solved.depth, solved.certainty, strict=True):
        own = depth[certainty > 0] if int((certainty > 0).sum()) > 5 else everywhere
        ranges.append(torch.stack([own.quantile(share) * near, own.quantile(1 - share) * far]))
    return torch.stack(ranges)


def with_tracks(swept: SweptDepth, solved: SolvedTracks, size: tuple[int, int]) -> SweptDepth:
    """Cells in which a track was solved get its depth: it is more exact than a plane, and as certain as either says."""
    depth, confidence = swept.depth.clone(), swept.confidence.clone()
    rows, columns = depth.shape[-2:]
    for view in range(len(depth)):
        uv, certainty = solved.tracks.uv[view], solved.certainty[view].float()
        usable = (certainty > 0) & inside(uv, *size)
        x = (uv[usable, 0] * columns / size[1]).long().clamp_max(columns - 1)
        y = (uv[usable, 1] * rows / size[0]).long().clamp_max(rows - 1)
        depth[view, y, x] = solved.depth[view, usable].float()
        confidence[view, y, x] = torch.maximum(confidence[view, y, x], certainty[usable])
    return SweptDepth(depth=depth, confidence=confidence)


def in_camera_unit(depth: Float[Tensor, "v h w"], solved: SolvedTracks) -> Float[Tensor, "v h w"]:
    """Depth of any unit a view, each view multiplied by the median ratio of solved to own depth at its tracks.

    Views with fewer than four solved tracks get the median of the others.
    """
    own = sample_bilinear(depth, solved.tracks.uv)
    ratio = (solved.depth / own.clamp_min(1e-9)).masked_fill(solved.certainty <= 0, torch.nan)
    enough = (solved.certainty > 0).sum(-1) > 3
    factor = torch.where(enough, ratio.nanmedian(-1).values, torch.nan)
    usual = torch.nan_to_num(factor.nanmedian(), nan=1.0)
    return depth * torch.where(factor.isnan(), usual, factor)[:, None, None]


def as_far_as_confirmed(prior: Float[Tensor, "v fh fw"], swept: SweptDepth, *, least: float = 0.35) -> Tensor:
    """The prior with as much of its relief as the known depths of its view confirm.

    log depth = s log prior + c, fitted to the confident depths (least squares, re-weighted), s within [0, 1]: a prior
    that says nothing about this scene becomes a constant, a good one stays as it is. Views in which nothing is known
    keep theirs.
    """
    weight = (swept.confidence * (swept.confidence > least)).flatten(1)
    x, y = prior.log().flatten(1), swept.depth.log().flatten(1)
    say = weight
    for _ in range(5):
        total = say.sum(-1, keepdim=True).clamp_min(1e-9)
        x_mean, y_mean = (say * x).sum(-1, keepdim=True) / total, (say * y).sum(-1, keepdim=True) / total
        spread = (say * (x - x_mean).square()).sum(-1, keepdim=True)
        relief = ((say * (x - x_mean) * (y - y_mean)).sum(-1, keepdim=True) / spread.clamp_min(1e-9)).clamp(0, 1)
        fitted = y_mean + relief * (x - x_mean)
        say = weight / (1 + ((y - fitted) / 0.15).square())
    known = weight.sum(-1, keepdim=True) > 0
    return torch.where(known, fitted, x).exp().view(prior.shape)


def _to_size(maps: Float[Tensor, "v fh fw"], size: tuple[int, int]) -> Float[Tensor, "v h w"]:
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
