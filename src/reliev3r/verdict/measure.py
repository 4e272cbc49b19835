"""What a network says about a held-out capture, pair of frames by pair of frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import angle_between, invert, rotation_angle
from reliev3r.geometry.sampling import evenly_spaced, sample_bilinear
from reliev3r.losses.tracks import TrackGeometry, track_geometry
from reliev3r.model.predict import predict
from reliev3r.training.monitor import Alarms, signs_of_collapse
from reliev3r.verdict.evidence import HeldoutCapture

MIN_MATCHES = 8
"""Of a pair that is judged, and of one that two frames must share to be shown to a network together."""
_MOST_PAIRS = 100
LEAST_BASELINE = 0.02
"""Of the depth: a shorter baseline has no direction that matches could tell."""
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
    geometry = track_geometry(prediction, matches.to(torch.float64))
    labels = None if capture.labels is None else capture.labels.select_views(chosen).to(torch.float64)
    label_geometry = None if labels is None else track_geometry(prediction, labels)
    errors = _depth_errors(prediction, capture, chosen)
    figures = []
    for other in range(1, len(chosen)):
        both = matches.visible[0] & matches.visible[other]
        if both.sum() < MIN_MATCHES:
            continue
        depths = (
            torch.zeros(0) if errors is None else torch.cat([errors[0][v, errors[1][v] & both] for v in (0, other)])
        )
        camera = _camera(prediction, capture, chosen[0], chosen[other], other)
        own = None
        if labels is not None and label_geometry is not None:
            shared = labels.visible[0] & labels.visible[other]
            own = _angle(prediction, label_geometry, labels, K, other, shared) if shared.sum() >= MIN_MATCHES else None
        figures.append(
            PairFigures(
                frames=(chosen[0], chosen[other]),
                angle=_angle(prediction, geometry, matches, K, other, both),
                epipolar=_epipolar(
                    prediction.world_from_cam[[0, other]], matches.uv[[0, other]][:, both], K[[0, other]]
                ),
                rotation=None if camera is None else camera[0],
                direction=None if camera is None else camera[1],
                depth=float(depths.median()) if len(depths) >= MIN_MATCHES else None,
                labels=own,
            )
        )
    return figures


def _angle(
    prediction: Prediction, geometry: TrackGeometry, tracks: Tracks, K: Tensor, other: int, both: Bool[Tensor, " m"]
) -> float:
    angles = []
    for here, there in ((0, other), (other, 0)):
        pose = prediction.world_from_cam[here]
        ray = rays_from_uv(tracks.uv[here, both].double(), K[here]) @ pose[:3, :3].mT
        angles.append(angle_between(ray, geometry.points_world[there, both] - pose[:3, 3]))
    return float(torch.cat(angles).median().rad2deg())


def _epipolar(world_from_cam: Float[Tensor, "2 4 4"], uv: Float[Tensor, "2 n 2"], K: Float[Tensor, "2 3 3"]) -> float:
    """Share of matches whose rays lie near one plane with the baseline: the greater angle of both to it counts."""
    baseline = normalize(world_from_cam[1, :3, 3] - world_from_cam[0, :3, 3], dim=0)
    a, b = normalize(rays_from_uv(uv.double(), K) @ world_from_cam[:, :3, :3].mT, dim=-1)
    off = torch.maximum(_off_plane(a, b, baseline), _off_plane(b, a, baseline))
    return float((off.rad2deg() < ALLOWED_DEG).double().mean())


def _off_plane(ray: Tensor, spanning: Tensor, baseline: Tensor) -> Tensor:
    """Angle of each ray to the plane that the baseline spans with the other ray."""
    normal = normalize(torch.linalg.cross(spanning, baseline.expand_as(spanning)), dim=-1)
    return (ray * normal).sum(-1).abs().clamp_max(1).asin()


def _camera(
    prediction: Prediction, capture: HeldoutCapture, first: int, second: int, other: int
) -> tuple[float, float | None] | None:
    """Errors of rotation and direction of frames ``first`` and ``second``, 0 and ``other`` of the prediction."""
    reference = capture.reference
    if reference is None or not bool(reference.reached[first] & reference.reached[second]):
        return None
    own = invert(prediction.world_from_cam[0]) @ prediction.world_from_cam[other]
    pose = reference.world_from_cam.double()
    solved = invert(pose[first]) @ pose[second]
    rotation = float(rotation_angle(own[:3, :3].mT @ solved[:3, :3]).rad2deg())
    depth, certainty = (each[first] for each in reference.track_depth)
    known = depth[(certainty > 0) & capture.matches.visible[first]]
    if len(known) == 0 or solved[:3, 3].norm() < LEAST_BASELINE * known.median():
        return rotation, None
    return rotation, float(angle_between(own[:3, 3], solved[:3, 3]).rad2deg())


def _depth_errors(
    prediction: Prediction, capture: HeldoutCapture, chosen: list[int]
) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]] | None:
    """|s d - d*| / d* at the matches, s by the median over the set, and where the reference knows d*."""
    if capture.reference is None:
        return None
    solved, certainty = (each[chosen].double() for each in capture.reference.track_depth)
    known = (certainty > 0) & capture.matches.visible[chosen]
    if known.sum() < MIN_MATCHES:
        return None
    ratio = sample_bilinear(prediction.depth, capture.matches.uv[chosen].double()) / solved
    return (ratio / ratio[known].median() - 1).abs(), known


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
