"""Which lens the tracks speak for: focal length and radial distortion, each with a prior.

Bundle adjustment finds some lens on any scene. On a flat one seen from straight above, focal length and height, or
distortion and a bent ground, do the same to the images, and what is found is the remains of matching errors and of
whatever the model lacks. So what the free adjustment finds is weighed against the prior as one measurement against
another. The covariance of its lens, everything else free to follow, says how far the lens can move before the squared
error rises by as much as unmodelled errors might account for (:data:`_UNMODELLED`): that is the tracks' uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.types import Tracks
from reliev3r.sfm.bundle_pycolmap import Bundle, adjust_bundle, shared_focal
from reliev3r.sfm.held_views import NotAdjusted
from reliev3r.sfm.quarter_turn import QuarterTurn

_UNMODELLED = 0.15
"""Systematic errors as a share of the error: a lens within what they could do is as good."""
_RADIAL_SIGMA = 0.1
"""Prior standard deviation of k1, around 0."""
_WELL_TOLD = 0.85
"""Where the tracks' share in k1 is at least this, scene and cameras hold it fast."""
_EVIDENT = 2.5
"""Standard deviations from 0 that make a k1 evident elsewhere, where a bent ground might stand in for it: false matches
over flat ground alone bring up k1 of 1.7 standard deviations."""
_SETTLED = 0.002
"""A lens within this of another, in the logarithm of its focal length and in k1, is as good as the same."""


@dataclass(frozen=True, kw_only=True)
class LensPrior:
    """What is known of intrinsics that were not measured."""

    camera_of: tuple[int, ...]
    """For each view the first one that the same camera took, at the same zoom and size."""
    focal_sigma: float
    """Standard deviation of the logarithm of the focal lengths."""
    distortion: bool = True
    """Whether the images may still show a lens; not where a known one was taken out."""


@dataclass(frozen=True, kw_only=True)
class CameraLens:
    """What was decided about one camera."""

    view: int
    """The first that it took."""
    views: int
    prior_px: float
    """Focal length that was known before, as ``free_px`` and ``focal_px`` in original pixels."""
    free_px: float | None
    """What the tracks alone would have; None where adjusting it failed, or no track holds a view of the camera."""
    share: float
    """How much of the focal length is the tracks' word and not the prior's, 0 to 1."""
    focal_px: float
    k1: float
    """0 where no distortion is evident."""
    k1_share: float | None = None
    """How much the tracks tell about k1, 0 to 1; None where it was not asked for."""

    @property
    def sentence(self) -> str:
        """What was decided, without a full stop."""
        if self.free_px is None:
            told = f"focal length {self.prior_px:.0f} px kept, the tracks do not tell one"
        elif self.share < 0.5:
            told = (
                f"focal length {self.prior_px:.0f} -> {self.focal_px:.0f} px, near what was known, for the tracks "
                f"hardly tell (alone: {self.free_px:.0f})"
            )
        else:
            told = f"focal length {self.prior_px:.0f} -> {self.focal_px:.0f} px"
        if self.k1:
            return f"{told}, radial distortion k1 = {self.k1:.4f}"
        if self.k1_share is not None and self.k1_share < _WELL_TOLD:
            return (
                f"{told}, distortion taken as none, for the tracks cannot tell it from bent ground (a flat scene seen "
                "straight on?): add oblique photographs, or state the lens by --intrinsics FILE"
            )
        return f"{told}, no distortion"


def adjust_with_lens(
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    sizes: Sequence[tuple[int, int]],
    prior: LensPrior,
    progress: Progress | None = None,
) -> tuple[Bundle, tuple[CameraLens, ...]]:
    """Bundle adjustment on ``tracks`` [v, m] (original pixels), with the lens that they and the prior speak for.

    Views that lie across (portrait among landscape pictures of one camera) share its lens. ``K`` is the prior's. Up to
    three adjustments, each from the last one's cameras: under the prior, with free lenses, and, unless one of these is
    what they are weighed to, under the outcome. ``progress`` hears of the rounds of each.

    Raises:
        NotAdjusted: as :func:`~reliev3r.sfm.bundle_pycolmap.adjust_bundle`, under the prior itself.
    """
    camera_of, turn = prior.camera_of, QuarterTurn.of(sizes, prior.camera_of)
    tracks, world_from_cam, sizes = turn.tracks(tracks), turn.cameras(world_from_cam), turn.turned_sizes
    cameras = list(dict.fromkeys(camera_of))
    K = shared_focal(turn.K(K.double()), camera_of)
    known = adjust_bundle(tracks, K, world_from_cam, sizes, camera_of=camera_of, progress=progress)
    try:
        free = adjust_bundle(
            tracks, K, known.world_from_cam, sizes, camera_of=camera_of, free_focal=True,
            free_radial=prior.distortion, near=True, progress=progress,
        )  # fmt: skip
    except NotAdjusted:
        free = None
    weighed = {camera: _weighed(camera, K, free, prior) for camera in cameras}
    bundle = _settled(tracks, K, sizes, prior, known, free, weighed)
    lenses = tuple(
        CameraLens(
            view=camera, views=camera_of.count(camera), prior_px=float(K[camera, 0, 0]),
            free_px=weighed[camera].free_px, share=weighed[camera].share, focal_px=float(bundle.K[camera, 0, 0]),
            k1=float(bundle.radial[camera]),
            k1_share=None if weighed[camera].free_px is None or not prior.distortion else weighed[camera].k1_share,
        )
        for camera in cameras
    )  # fmt: skip
    return turn.back(bundle), lenses


@dataclass(frozen=True, kw_only=True)
class _Weighed:
    """A camera's lens between the prior's and the tracks' own."""

    log_zoom: float
    """Logarithm of its focal length over the prior's."""
    k1: float
    share: float
    k1_share: float
    free_px: float | None


def _weighed(camera: int, K: Tensor, free: Bundle | None, prior: LensPrior) -> _Weighed:
    """The mean of two measurements of (log focal, k1); its mean given k1 = 0 where no distortion is evident."""
    members = [view for view, own in enumerate(prior.camera_of) if own == camera]
    if free is None or free.lens_covariance is None or not free.adjusted[members].any():
        return _Weighed(log_zoom=0.0, k1=0.0, share=0.0, k1_share=0.0, free_px=None)
    found = torch.stack([(free.K[camera, 0, 0] / K[camera, 0, 0]).log(), free.radial[camera]])
    known = torch.tensor([prior.focal_sigma**2, _RADIAL_SIGMA**2 if prior.distortion else 0.0]).double().diag()
    tracks = _UNMODELLED**2 * free.lens_covariance[camera]
    gain = known @ torch.linalg.pinv(known + tracks)
    mean, covariance = gain @ found, known - gain @ known
    log_zoom, k1 = mean.tolist()
    least = _SETTLED if gain[1, 1] >= _WELL_TOLD else _EVIDENT * math.sqrt(max(float(covariance[1, 1]), 0.0))
    if prior.distortion and abs(k1) < least:
        log_zoom, k1 = log_zoom - k1 * float(covariance[0, 1] / covariance[1, 1]), 0.0
    return _Weighed(
        log_zoom=log_zoom,
        k1=k1,
        share=float(gain[0, 0]),
        k1_share=float(gain[1, 1]),
        free_px=float(free.K[camera, 0, 0]),
    )


def _settled(
    tracks: Tracks, K: Tensor, sizes: Sequence[tuple[int, int]], prior: LensPrior, known: Bundle, free: Bundle | None,
    weighed: dict[int, _Weighed],
) -> Bundle:  # fmt: skip
    """The adjustment under the weighed lenses, if need be a new one."""
    wanted = K.clone()
    zoom = torch.tensor([math.exp(weighed[camera].log_zoom) for camera in prior.camera_of], dtype=K.dtype)
    wanted[:, [0, 1], [0, 1]] *= zoom[:, None]
    radial = torch.tensor([weighed[camera].k1 for camera in prior.camera_of], dtype=K.dtype)

    def is_it(bundle: Bundle) -> bool:
        other = (bundle.K[:, 0, 0] / wanted[:, 0, 0]).log().abs() > _SETTLED
        bent = (bundle.radial - radial).abs() > torch.where(radial == 0, 0.0, _SETTLED)
        return not bool((other | bent).any())

    for done in (known, free):
        if done is not None and is_it(done):
            return done
    share = min(lens.share for lens in weighed.values())
    start = known if free is None or share < 0.5 else free
    return adjust_bundle(
        tracks, wanted, start.world_from_cam, sizes, camera_of=prior.camera_of, radial=radial, near=True
    )
