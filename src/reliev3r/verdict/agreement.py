"""How far a reconstruction agrees with the images, pair of frames by pair of frames; what it does not give is missed.

A match counts by how close it comes: the share of six thresholds, each twice the one before, that its error stays
below. That is a logarithmic scale with both ends cut off: errors below what matches can tell are as good as none, and
nothing that is given is worse than what is not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.network_views import uv_in_region
from reliev3r.geometry.radial import undistort
from reliev3r.geometry.sampling import inside, sample_bilinear
from reliev3r.losses.tracks import track_geometry
from reliev3r.verdict.evidence import Evidence
from reliev3r.verdict.pairs import MIN_MATCHES, depth_errors, points_apart, rays_of_pair, short_of_meeting

ANGLES_DEG = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Limits of how far rays miss each other."""
RELATIVE_ERRORS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Limits of the distance of points and of depth, relative to how far away they are."""
_TOLD = 0.05
"""Share of the matches outside of a system's maps that is worth a remark."""
_OTHER_FOCAL = 0.02
"""Relative difference of a predicted focal length that is worth a remark: half a degree for rays at 30 degrees."""


@dataclass(frozen=True, kw_only=True)
class PairAgreement:
    """One pair of frames; shares in [0, 1], 0 where a view or the quantity is missing."""

    frames: tuple[int, int]
    """Positions in the capture."""
    scene: float
    """Cameras and depth together: whether both frames predict the same point for a match."""
    cameras: float
    """Cameras alone: whether the rays of a match meet."""
    depth: float | None
    """Depth alone, at points solved from the matches, under one scale; None where these are too few."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A system on a capture."""

    pairs: tuple[PairAgreement, ...]
    """Of :func:`tied_pairs`, in their order: the same for every system."""
    remarks: tuple[str, ...]
    """What it did not give, in plain words."""


def tied_pairs(evidence: Evidence) -> list[tuple[int, int]]:
    """The pairs of frames that share enough matches to say something."""
    seen = evidence.matches.visible.float()
    shared = (seen @ seen.T).triu(1)
    return [(first, second) for first, second in (shared >= MIN_MATCHES).nonzero().tolist()]


def nothing(evidence: Evidence, why: str) -> Agreement:
    """The agreement of a system that gave nothing: every match is missed."""
    depth = _has_depth(evidence)
    pairs = (
        PairAgreement(frames=pair, scene=0.0, cameras=0.0, depth=0.0 if depth[pair] else None)
        for pair in tied_pairs(evidence)
    )
    return Agreement(pairs=tuple(pairs), remarks=(why,))


def agreement(reconstruction: Reconstruction, evidence: Evidence) -> Agreement:
    """Compare a reconstruction with the evidence of the same frames, which is in original pixels, with known K.

    Raises:
        ValueError: the evidence has no K.
    """
    if evidence.K is None:
        raise ValueError("evidence without intrinsics says nothing")
    given = _Given(reconstruction, evidence)
    depth, known = _has_depth(evidence), given.depth_errors()
    pairs = []
    for first, second in tied_pairs(evidence):
        pair = [first, second]
        scene = cameras = 0.0
        own = None if not depth[first, second] else 0.0
        if given.usable[pair].all():
            both = evidence.matches.visible[pair].all(0)
            poses = given.cameras[pair]
            rays = rays_of_pair(poses, given.uv[pair][:, both], evidence.K[pair])
            cameras = _graded(short_of_meeting(poses, rays), ANGLES_DEG)
            scene = given.scene(pair, both)
            if own is not None and known is not None:
                own = _graded(torch.cat([known[0][v, known[1][v] & both] for v in pair]), RELATIVE_ERRORS)
        pairs.append(PairAgreement(frames=(first, second), scene=scene, cameras=cameras, depth=own))
    return Agreement(pairs=tuple(pairs), remarks=tuple(given.remarks()))


class _Given:
    """A reconstruction at the matches, in float64."""

    def __init__(self, reconstruction: Reconstruction, evidence: Evidence) -> None:
        self.reconstruction, self.evidence, matches = reconstruction, evidence, evidence.matches
        poses = reconstruction.prediction.world_from_cam.double()
        self.usable = poses.isfinite().flatten(1).all(1)
        if reconstruction.found is not None:
            self.usable &= reconstruction.found
        self.views = self.usable.nonzero()[:, 0].tolist()
        self.cameras = torch.where(self.usable[:, None, None], poses, torch.eye(4, dtype=torch.float64))
        self.uv = self._pinhole(matches)
        self.points = torch.zeros(*matches.uv.shape[:2], 3, dtype=torch.float64)
        self.sampled = torch.zeros(matches.uv.shape[:2], dtype=torch.float64)
        self.covered = torch.zeros(matches.uv.shape[:2], dtype=torch.bool)
        if reconstruction.predicts_depth and self.views:
            self._look_up()

    def _pinhole(self, matches: Tracks) -> Tensor:
        """The matches without the lens that refinement took out of this reconstruction: k1 and its own focal length."""
        uv = matches.uv.double().clone()
        if self.reconstruction.radial is not None and self.views:
            k1 = torch.tensor(self.reconstruction.radial, dtype=torch.float64)[self.views]
            uv[self.views] = undistort(uv[self.views], self.reconstruction.K_original[self.views].double(), k1)
        return uv

    def _look_up(self) -> None:
        """Points and depth that it predicts at the matches, where its maps cover them; a view at a time, for maps in
        float64 are several times as large as all that is kept."""
        regions, weight = self.reconstruction.regions.tolist(), self.evidence.matches.weight.double()
        for view in self.views:
            prediction = self.reconstruction.prediction.select_views([view]).to(torch.float64)
            size = (prediction.depth.shape[-2], prediction.depth.shape[-1])
            uv = uv_in_region(self.uv[view], tuple(regions[view]), size)[None]
            points = track_geometry(prediction, Tracks(uv=uv, weight=weight[view, None])).points_world[0]
            finite = points.isfinite().all(-1)
            self.points[view] = torch.where(finite[..., None], points, 0.0)
            self.sampled[view] = sample_bilinear(prediction.depth, uv)[0].nan_to_num(0.0, 0.0, 0.0)
            self.covered[view] = inside(uv[0], *size) & finite

    def scene(self, pair: list[int], both: Bool[Tensor, " m"]) -> float:
        apart = points_apart(self.cameras[pair], self.points[pair][:, both])
        covered = self.covered[pair][:, both].all(0)
        return _graded(torch.where(covered, apart, torch.inf), RELATIVE_ERRORS)

    def depth_errors(self) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]] | None:
        """Of the usable views, in the order of the capture; what the maps do not cover is infinitely wrong."""
        if not self.reconstruction.predicts_depth or not self.views:
            return None
        matches, reference = self.evidence.matches, self.evidence.reference
        found = depth_errors(self.sampled[self.views], reference, matches, self.views)
        if found is None:
            return None
        errors = torch.full(matches.uv.shape[:2], torch.inf, dtype=torch.float64)
        known = torch.zeros(matches.uv.shape[:2], dtype=torch.bool)
        errors[self.views] = torch.where(self.covered[self.views], found[0], torch.inf)
        known[self.views] = found[1]
        return errors, known

    def remarks(self) -> list[str]:
        remarks, names = [], self.reconstruction.names
        missing = [name for name, usable in zip(names, self.usable.tolist(), strict=True) if not usable]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            remarks.append(
                f"no camera for {len(missing)} of {len(names)} views ({some}): their matches count as missed"
            )
        groups = self.reconstruction.meta.get("groups")
        if isinstance(groups, list) and len(groups) > 1:
            remarks.append(f"its views fall into {len(groups)} groups that nothing ties: only one of them counts")
        if not self.reconstruction.predicts_depth:
            remarks.append("gives cameras and no depth: every match counts as missed where depth is needed")
        elif self.views:
            seen = self.evidence.matches.visible[self.views]
            outside = 1 - float(self.covered[self.views][seen].double().mean()) if seen.any() else 0.0
            if outside > _TOLD:
                remarks.append(f"its maps leave out {outside:.0%} of the matches: they count as missed")
        if self.views and self.evidence.K is not None:
            ratio = self.reconstruction.K_original[self.views, 0, 0] / self.evidence.K[self.views, 0, 0].double()
            if abs(float(ratio.median()) - 1) > _OTHER_FOCAL:
                remarks.append(
                    f"its focal length is {float(ratio.median()):.2f} times the one that all rays are measured with: "
                    "one of them is wrong, and it loses where its own is right (--intrinsics gives another)"
                )
        return remarks


def _has_depth(evidence: Evidence) -> Bool[Tensor, "v v"]:
    """The pairs of frames at whose matches the solved points say enough of depth."""
    views = len(evidence.matches.uv)
    if evidence.reference is None:
        return torch.zeros(views, views, dtype=torch.bool)
    seen = evidence.matches.visible.double()
    known = ((evidence.reference.track_depth[1] > 0) & evidence.matches.visible).double()
    return (known @ seen.T) + (seen @ known.T) >= MIN_MATCHES


def _graded(errors: Float[Tensor, " n"], thresholds: Sequence[float]) -> float:
    """Mean over matches of the share of thresholds that the error is below."""
    return float((errors[:, None] < errors.new_tensor(thresholds)).double().mean())
