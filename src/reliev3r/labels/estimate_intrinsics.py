"""Pseudo intrinsics of a capture from the fields of view that a depth expert predicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.data.capture import Capture, Frame
from reliev3r.data.intrinsics import centred_K, is_expert_spec, with_intrinsics
from reliev3r.geometry.camera import focal_from_fov
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.pipeline import label_depth
from reliev3r.labels.registry import depth_expert

MOST_VIEWS = 16
"""Views of one image size that an expert is asked about which is not the run's depth expert: enough for a median."""


def resolve_intrinsics(
    capture: Capture,
    spec: str | None,
    *,
    depth: DepthExpert,
    out: Path,
    device: str = "auto",
    progress: Progress | None = None,
) -> Capture:
    """The capture with the intrinsics that ``spec`` asks for: ``expert``, ``expert:EXPERT`` or what ``data`` knows.

    ``expert`` asks ``depth``, whose maps are stored below ``out`` on the way, where ``label_capture`` finds them;
    ``expert:EXPERT`` asks another depth expert about up to 16 views of each image size. Images of one size (upright
    or not) are taken to share their focal length: the median over their views. Square pixels, centred principal point.

    Raises:
        UserError: the expert cannot run, or it predicts no field of view.
    """
    if not is_expert_spec(spec):
        return with_intrinsics(capture, spec)
    assert spec is not None
    own = spec == "expert"
    asked = depth if own else depth_expert(spec.removeprefix("expert:"), device=device)
    chosen = _chosen(capture, MOST_VIEWS if not own else None)
    focals: dict[tuple[int, int], list[float]] = {}
    for done, index in enumerate(chosen, start=1):
        frame = capture.frames[index]
        found = label_depth(capture, index, asked, out) if own else asked.predict(capture.image(index), frame, capture)
        if found.fov is not None:
            focals.setdefault(_size(frame), []).append(focal_from_fov(found.fov, frame.width))
        if progress:
            progress(done, len(chosen), "field of view")
    name = str(asked.fingerprint()["name"])
    for frame in capture.frames:
        if _size(frame) not in focals:
            raise UserError(
                f"{frame.path}: {name} predicts no field of view for images of its size; use --intrinsics "
                "expert:moge-2, expert:depth-pro, fov:DEG or estimate"
            )
    focal = {size: float(np.median(values)) for size, values in focals.items()}
    frames = tuple(dataclasses.replace(frame, K=centred_K(frame, focal[_size(frame)])) for frame in capture.frames)
    return dataclasses.replace(capture, frames=frames, K_source=f"expert {name}")


def _size(frame: Frame) -> tuple[int, int]:
    """A camera that is turned stays the same camera."""
    return min(frame.width, frame.height), max(frame.width, frame.height)


def _chosen(capture: Capture, most: int | None) -> list[int]:
    """Positions of the frames to ask about: up to ``most`` of each size, evenly spaced."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, frame in enumerate(capture.frames):
        groups.setdefault(_size(frame), []).append(index)
    return sorted(index for group in groups.values() for index in evenly_spaced(group, most))
