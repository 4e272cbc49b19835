"""Do matches that nobody used contradict a reconstruction? For networks that predict their cameras in one pass."""

from __future__ import annotations

import dataclasses

import torch

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.masks import without_masked
from reliev3r.data.network_views import uv_in_region
from reliev3r.export.write import only_views
from reliev3r.geometry.collapse_signs import BAD_ANGLE_DEG
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.registry import track_expert
from reliev3r.losses.tracks import heldout_angles

MOST_VIEWS = 12
"""Evenly spaced: matching all pairs of more would take longer than the network."""
_LEAST_PAIRS = 100
"""Of observations; with fewer there is nothing to judge by."""


def contradiction(reconstruction: Reconstruction, capture: Capture) -> str | None:
    """A sentence where SIFT's matches between the images disagree with depth and cameras, else None.

    The capture is the one that was reconstructed. The measure and its limit are those of held-out tracks after ``fit``.
    """
    found = reconstruction.found
    there = range(len(capture.frames)) if found is None else found.nonzero()[:, 0].tolist()
    index = evenly_spaced(there, MOST_VIEWS)
    if len(index) < 2:
        return None
    part = dataclasses.replace(capture, frames=tuple(capture.frames[view] for view in index))
    tracks = without_masked(track_expert("sift").track(part), part.masks)
    shown = only_views(reconstruction, list(index))
    angles = heldout_angles(shown.prediction, _on_the_grid(tracks, shown))
    if len(angles) < _LEAST_PAIRS or float(angles.median()) <= BAD_ANGLE_DEG:
        return None
    return (
        f"matches between the images contradict this reconstruction: {float(angles.median()):.1f} degrees in the "
        "median (good is under 1); trust neither cameras nor depth, and take the packaged network or more overlap"
    )


def _on_the_grid(tracks: Tracks, shown: Reconstruction) -> Tracks:
    """Tracks of original pixels in pixels of the maps."""
    size = tuple(shown.prediction.depth.shape[-2:])
    uv = [
        uv_in_region(own, tuple(region), (size[0], size[1]))
        for own, region in zip(tracks.uv, shown.regions.tolist(), strict=True)
    ]
    return dataclasses.replace(tracks, uv=torch.stack(uv).float())
