"""Which lens the tracks speak for: focal length with a prior, and radial distortion where it is evident.

Bundle adjustment finds some focal length on any scene. On a flat one seen from straight above, focal length and height
(or a bent ground) do the same to the images, and what is found is the remains of matching errors and of whatever the
model lacks. So the tracks have a say by how much *held-out* tracks care: the squared error is a parabola in the
logarithm of the focal length, known at two places, that of the prior and the one that adjustment finds. The deviation
that raises the error as much as unmodelled errors might (:data:`_UNMODELLED`) is the tracks' standard deviation;
theirs and the prior's are weighed as two measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.types import Tracks
from reliev3r.sfm.bundle_pycolmap import Bundle, NotAdjusted, adjust_bundle, shared_focal
from reliev3r.sfm.heldout_error import observation_errors
from reliev3r.sfm.quarter_turn import QuarterTurn

_UNMODELLED = 0.2
"""Systematic errors as a share of the held-out error: a focal length within what they could do is as good."""
_EVIDENT = 0.97
"""A lens is distorted where distortion lowers the held-out error of its views to this share, or less."""
_FALSE = 4.0
"""Held-out observations beyond this many medians are taken for false matches: they would drown every difference."""
_MIN_JUDGES = 20
"""A camera with fewer held-out observations keeps its prior, and has no distortion."""


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
    """What the tracks alone would have; None where adjusting it failed."""
    share: float
    """Weight of the tracks against the prior, 0 to 1."""
    focal_px: float
    k1: float
    """0 where no distortion is evident."""

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
        return f"{told}, {f'radial distortion k1 = {self.k1:.4f}' if self.k1 else 'no distortion'}"


def adjust_with_lens(
    tracks: Tracks,
    judges: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    sizes: Sequence[tuple[int, int]],
    prior: LensPrior,
) -> tuple[Bundle, tuple[CameraLens, ...]]:
    """Bundle adjustment on ``tracks``, with the lens that ``judges`` (both [v, m] in original pixels) speak for.

    Views that lie across (portrait among landscape pictures of one camera) share its lens. ``K`` is the prior's. Up to
    seven adjustments, each from the last one's cameras.

    Raises:
        NotAdjusted: as :func:`~reliev3r.sfm.bundle_pycolmap.adjust_bundle`, under the prior itself.
    """
    turn = QuarterTurn.of(sizes, prior.camera_of)
    shared = shared_focal(turn.K(K.double()), prior.camera_of)
    search = _Search(turn.tracks(tracks), turn.tracks(judges), shared, turn.turned_sizes, prior)
    world_from_cam = turn.cameras(world_from_cam)
    plain = search.at_prior_and_free(world_from_cam, [])
    found = plain
    if prior.distortion:
        cameras = list(dict.fromkeys(prior.camera_of))
        bent = search.at_prior_and_free(plain.at_prior.world_from_cam, cameras)
        evident = [camera for camera in cameras if search.is_evident(camera, bent, plain)]
        if evident == cameras:
            found = bent
        elif evident:
            found = search.at_prior_and_free(bent.at_prior.world_from_cam, evident)
    bundle, lenses = search.weighed(found)
    return turn.back(bundle), lenses


@dataclass(frozen=True)
class _Pair:
    """Two adjustments of one model, and the held-out errors [v, m] under both."""

    at_prior: Bundle
    known: Tensor
    free: Bundle | None
    """None where it failed."""
    found: Tensor | None
    distorted: tuple[int, ...]


class _Search:
    """Adjustments of one problem."""

    def __init__(
        self, tracks: Tracks, judges: Tracks, K: Tensor, sizes: tuple[tuple[int, int], ...], prior: LensPrior
    ) -> None:
        self.tracks, self.judges, self.K, self.sizes, self.prior = tracks, judges, K, sizes, prior
        self.members = {
            camera: [view for view, own in enumerate(prior.camera_of) if own == camera] for camera in prior.camera_of
        }

    def at_prior_and_free(self, cameras: Tensor, distorted: Sequence[int]) -> _Pair:
        """With the focal lengths of the prior, then with free ones."""
        at_prior = self._adjusted(self.K, cameras, distorted)
        try:
            free = self._adjusted(self.K, at_prior.world_from_cam, distorted, at_prior.radial, free_focal=True)
        except NotAdjusted:
            free = None
        found = None if free is None else self._errors(free)
        return _Pair(at_prior, self._errors(at_prior), free, found, tuple(distorted))

    def is_evident(self, camera: int, bent: _Pair, plain: _Pair) -> bool:
        """Whether distortion explains a camera's held-out observations clearly better, each model at its best."""
        with_it, without = self._root_mean_squares(camera, self._better(camera, bent), self._better(camera, plain))
        return with_it <= _EVIDENT * without

    def weighed(self, pair: _Pair) -> tuple[Bundle, tuple[CameraLens, ...]]:
        """The adjustment with each camera's focal length between the prior's and the free one."""
        shares = {camera: self._share(pair, camera) for camera in self.members}
        if pair.free is None or max(shares.values()) < 0.01:
            bundle = pair.at_prior
        elif min(shares.values()) > 0.99:
            bundle = pair.free
        else:
            K = self.K.clone()
            for camera, members in self.members.items():
                known, found = self.K[camera, 0, 0], pair.free.K[camera, 0, 0]
                K[members, 0, 0] = K[members, 1, 1] = known * (found / known) ** shares[camera]
            start = pair.free if min(shares.values()) > 0.5 else pair.at_prior
            bundle = self._adjusted(K, start.world_from_cam, pair.distorted, start.radial)
        lenses = [
            CameraLens(
                view=camera, views=len(members), prior_px=float(self.K[camera, 0, 0]),
                free_px=None if pair.free is None else float(pair.free.K[camera, 0, 0]), share=shares[camera],
                focal_px=float(bundle.K[camera, 0, 0]), k1=float(bundle.radial[camera]),
            )
            for camera, members in self.members.items()
        ]  # fmt: skip
        return bundle, tuple(lenses)

    def _share(self, pair: _Pair, camera: int) -> float:
        if pair.free is None or pair.found is None:
            return 0.0
        known, found = self._root_mean_squares(camera, pair.known, pair.found)
        if not found < known:
            return 0.0
        change = float((pair.free.K[camera, 0, 0] / self.K[camera, 0, 0]).log())
        if abs(change) < 1e-6:
            return 0.0
        sigma = change**2 * (_UNMODELLED * found) ** 2 / (known**2 - found**2)  # squared, that of the tracks
        return self.prior.focal_sigma**2 / (self.prior.focal_sigma**2 + sigma)

    def _adjusted(
        self, K: Tensor, cameras: Tensor, distorted: Sequence[int], radial: Tensor | None = None, *,
        free_focal: bool = False,
    ) -> Bundle:  # fmt: skip
        return adjust_bundle(
            self.tracks, K, cameras, self.sizes, camera_of=self.prior.camera_of, free_focal=free_focal,
            distorted=distorted, radial=radial,
        )  # fmt: skip

    def _errors(self, bundle: Bundle) -> Tensor:
        """Of all held-out observations."""
        errors, _ = observation_errors(self.judges, bundle.K, bundle.world_from_cam, self.sizes, bundle.radial)
        return errors

    def _better(self, camera: int, pair: _Pair) -> Tensor:
        if pair.found is None:
            return pair.known
        known, found = self._root_mean_squares(camera, pair.known, pair.found)
        return pair.found if found < known else pair.known

    def _root_mean_squares(self, camera: int, a: Tensor, b: Tensor) -> tuple[float, float]:
        """Of the errors under two adjustments, over the same true matches in a camera's views: those that either of
        the two explains. NaN, which no comparison accepts, where too few judge."""
        judged = self.judges.visible[self.members[camera]]
        a, b = a[self.members[camera]][judged], b[self.members[camera]][judged]
        if len(a) < _MIN_JUDGES:
            return math.nan, math.nan
        least = torch.minimum(a, b)
        true = least <= _FALSE * least.median()
        return float(a[true].square().mean().sqrt()), float(b[true].square().mean().sqrt())
