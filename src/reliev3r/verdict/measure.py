"""What a network says about a held-out capture, pair of frames by pair of frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.sampling import evenly_spaced, sample_bilinear
from reliev3r.losses.tracks import track_geometry
from reliev3r.model.predict import predict
from reliev3r.training.monitor import Alarms, signs_of_collapse
from reliev3r.verdict.evidence import HeldoutCapture
from reliev3r.verdict.pairs import MIN_MATCHES, camera_errors, depth_errors, off_plane, ray_to_point, rays_of_pair

_MOST_PAIRS = 100
ALLOWED_DEG = 1.0
"""A match this near to its epipolar plane counts as an inlier."""


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """One pair of frames as one prediction has it; None where nothing can be said."""

    frames: tuple[int, int]
    """Positions in the capture; the first was held out of training."""
    angle: float
    """Median over matches, in degrees: the ray that one frame sees against the point that the other predicts."""
    epipolar: float
    """Share of the matches within ``ALLOWED_DEG`` of the epipolar plane of the predicted cameras."""
    rotation: float | None
    """Error in degrees of the relative rotation, by the reference."""
    direction: float | None
    """Error in degrees of the baseline's direction, seen from the first frame; None where there is hardly any."""
    depth: float | None
    """Median relative error of depth at the reference's points, under one scale for all frames of the prediction."""
    labels: float | None
    """``angle`` over the labels' own held-out tracks."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network on a capture."""

    pairs: tuple[PairFigures, ...]
    predictions: tuple[Prediction, ...]
    """One for each of :func:`view_sets`."""
    alarms: tuple[str, ...]
    """Signs of collapse, once for each prediction that shows any."""


def view_sets(capture: HeldoutCapture, views: int, sets: int) -> list[list[int]]:
    """Positions of the frames that go through a network together: a held-out frame and others that it shares matches
    with, from those that share most to those that share least; up to ``sets`` a held-out frame, without overlap in the
    others. A frame that is tied to none has no set."""
    seen = capture.matches.visible.float()
    shared = (seen @ seen.T).fill_diagonal_(0)
    found = []
    for first in capture.frames or range(len(seen)):
        order = shared[first].argsort(descending=True, stable=True).tolist()
        tied = [other for other in order if shared[first, other] >= MIN_MATCHES]
        rounds = max(1, min(sets, len(tied) // max(1, views - 1)))
        for start in range(rounds):
            part = tied[start::rounds]
            found += [[first, *evenly_spaced(part, views - 1)]] if part else []
    return found


def measure(model: nn.Module, capture: HeldoutCapture, views: int, sets: int) -> Measured:
    """Run ``model`` on the view sets of a capture and compare with its evidence.

    Raises:
        FloatingPointError: a prediction is not finite.
    """
    pairs: list[PairFigures] = []
    predictions, alarms = [], []
    for chosen in view_sets(capture, views, sets):
        prediction = predict(model, capture.views.select_views(chosen))
        if not all(bool(x.isfinite().all()) for x in (prediction.depth, prediction.rays, prediction.world_from_cam)):
            raise FloatingPointError("a prediction is not finite")
        pairs += _pairs(prediction, capture, chosen)
        predictions.append(prediction)
        alarm = Alarms(1).advice(signs_of_collapse(prediction, capture.matches.select_views(chosen)))
        alarms += [alarm] if alarm else []
    return Measured(pairs=tuple(pairs), predictions=tuple(predictions), alarms=tuple(alarms))


def _pairs(prediction: Prediction, capture: HeldoutCapture, chosen: list[int]) -> list[PairFigures]:
    """The first frame of a set with each of the others."""
    assert capture.K is not None
    K, matches = capture.K[chosen].double(), capture.matches.select_views(chosen)
    prediction = prediction.to(torch.float64)
    labels = None if capture.labels is None else capture.labels.select_views(chosen)
    sampled = sample_bilinear(prediction.depth, matches.uv.double())
    errors = depth_errors(sampled, capture.reference, capture.matches, chosen)
    angle = _Angles(prediction, matches, K)
    own = None if labels is None else _Angles(prediction, labels, K)
    figures = []
    for other in range(1, len(chosen)):
        both = matches.visible[[0, other]].all(0)
        if both.sum() < MIN_MATCHES:
            continue
        depths = (
            torch.zeros(0) if errors is None else torch.cat([errors[0][v, errors[1][v] & both] for v in (0, other)])
        )
        cameras, frames = prediction.world_from_cam[[0, other]], (chosen[0], chosen[other])
        camera = camera_errors(cameras, capture.reference, frames, capture.matches.visible)
        shared = None if labels is None else labels.visible[[0, other]].all(0)
        figures.append(
            PairFigures(
                frames=frames,
                angle=angle(other, both),
                epipolar=_epipolar(cameras, matches.uv[[0, other]][:, both], K[[0, other]]),
                rotation=None if camera is None else camera[0],
                direction=None if camera is None else camera[1],
                depth=float(depths.median()) if len(depths) >= MIN_MATCHES else None,
                labels=None if own is None or shared is None or shared.sum() < MIN_MATCHES else own(other, shared),
            )
        )
    return figures


class _Angles:
    """Median angle of a prediction's first view and another one, over tracks that both see."""

    def __init__(self, prediction: Prediction, tracks: Tracks, K: Tensor) -> None:
        self.cameras, self.uv, self.K = prediction.world_from_cam, tracks.uv, K
        self.points = track_geometry(prediction, tracks.to(torch.float64)).points_world

    def __call__(self, other: int, both: Bool[Tensor, " m"]) -> float:
        pair = [0, other]
        rays = rays_of_pair(self.cameras[pair], self.uv[pair][:, both], self.K[pair])
        return float(ray_to_point(self.cameras[pair], rays, self.points[pair][:, both]).median())


def _epipolar(world_from_cam: Float[Tensor, "2 4 4"], uv: Float[Tensor, "2 n 2"], K: Float[Tensor, "2 3 3"]) -> float:
    """Share of matches whose rays lie near one plane with the baseline."""
    off = off_plane(world_from_cam, rays_of_pair(world_from_cam, uv, K))
    return float((off < ALLOWED_DEG).double().mean())


def label_agreement(capture: HeldoutCapture) -> float | None:
    """Share of the labels' held-out tracks within ``ALLOWED_DEG`` of the epipolar planes of the reference cameras, the
    median over pairs of frames; None where there is nothing to compare. It needs no network."""
    labels, reference, K = capture.labels, capture.reference, capture.K
    if labels is None or reference is None or K is None:
        return None
    pairs = list(itertools.combinations(reference.reached.nonzero()[:, 0].tolist(), 2))
    shares = []
    for first, second in pairs[:: 1 + len(pairs) // _MOST_PAIRS]:
        ends = [first, second]
        both = labels.visible[ends].all(0)
        if both.sum() >= MIN_MATCHES:
            shares.append(
                _epipolar(reference.world_from_cam[ends].double(), labels.uv[ends][:, both], K[ends].double())
            )
    return float(torch.tensor(shares).median()) if shares else None
