"""What a run across scenes is measured on while it trains: views, or at least tracks, that it never trains on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from reliev3r.core.types import Prediction, Tracks, Truth, Views
from reliev3r.data.augment import centred_crop
from reliev3r.data.augment_geometry import moved_tracks, moved_truth
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.losses.tracks import heldout_angles
from reliev3r.model.predict import predict
from reliev3r.synthetic.experts import TrackNoise, simulate_tracks
from reliev3r.synthetic.room_stream import HELDOUT_SEEDS, SyntheticStream
from reliev3r.training.prepared import PreparedCapture

Scorer = Callable[[Prediction, Truth], dict[str, float]]
"""Figures of a prediction against the truth of a scene; for the log alone."""


@dataclass(frozen=True, kw_only=True)
class HeldoutScene:
    """Views that are never trained on, or whose tracks are not."""

    views: Views
    tracks: Tracks
    """They choose the checkpoint."""
    truth: Truth | None = None
    """Of rendered rooms and annotated scenes, for the figures beside them; it chooses nothing."""


def tracked_scene(capture: PreparedCapture, most: int) -> HeldoutScene:
    """At most this many frames of a capture, evenly spread, and its held-out tracks."""
    chosen = evenly_spaced(range(capture.count), most)
    return HeldoutScene(views=capture.views(chosen), tracks=capture.heldout(chosen))


def without_intrinsics(scenes: list[HeldoutScene]) -> list[HeldoutScene]:
    """The same, for networks that are not shown K, as far as a field-of-view head can express it: windows around the
    principal points, of square pixels."""
    return [_hidden(scene) for scene in scenes]


def _hidden(scene: HeldoutScene) -> HeldoutScene:
    views, truth = scene.views, scene.truth
    if views.K is None:
        return scene
    crop = centred_crop(views.size, views.K)
    if crop.is_identity:
        return dataclasses.replace(scene, views=dataclasses.replace(views, K=None))
    return HeldoutScene(
        views=Views(image=crop.image(views.image)),
        tracks=moved_tracks(scene.tracks, crop),
        truth=None if truth is None else moved_truth(truth, crop),
    )


def rooms(stream: SyntheticStream, count: int, *, views: int) -> list[HeldoutScene]:
    """Held-out rooms of the same distribution, at its full width, with exact tracks."""
    scenes = []
    for seed in range(HELDOUT_SEEDS, HELDOUT_SEEDS + count):
        seen, truth = stream.render(seed, views=views)
        tracks = simulate_tracks(truth, TrackNoise(count=128, pixel=0.0, false=0.0), seed)
        scenes.append(HeldoutScene(views=seen.to("cpu"), tracks=tracks.to("cpu"), truth=truth.to("cpu")))
    return scenes


def figures(model: nn.Module, scenes: list[HeldoutScene], scorer: Scorer | None = None) -> dict[str, float]:
    """Means over held-out scenes: the track angle (median in each), and ``scorer``'s figures of those with truth."""
    angles, scores = [], []
    for scene in scenes:
        prediction = predict(model, scene.views)
        angle = heldout_angles(prediction, scene.tracks)
        if angle.numel():  # a scene without tracks judges nothing
            angles.append(angle.median())
        if scene.truth is not None and scorer is not None:
            scores.append(scorer(prediction, scene.truth))
    mean = {name: sum(each[name] for each in scores) / len(scores) for name in (scores[0] if scores else ())}
    return {**({"heldout_deg": float(torch.stack(angles).mean())} if angles else {}), **mean}
