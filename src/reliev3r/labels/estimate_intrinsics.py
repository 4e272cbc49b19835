"""Pseudo intrinsics of a capture from what experts see of its lens in single images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.data.capture import Capture, Frame, tell_rectified
from reliev3r.data.intrinsics import centred_K, is_expert_spec, with_intrinsics
from reliev3r.data.lenses import Lens
from reliev3r.geometry.sampling import evenly_spaced
from reliev3r.labels.expert import DepthExpert, LensGuess, LensOfDepth
from reliev3r.labels.pipeline import label_depth
from reliev3r.labels.registry import lens_expert

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
    ``expert:EXPERT`` asks another expert, in depth or in lenses, about up to 16 views of each image size. Images of one
    size (upright or not) are taken to share their lens: the median over their views. Square pixels, centred principal
    point; images are rectified where the expert sees distortion.

    Raises:
        UserError: the expert cannot run, it predicts no field of view, or distortion of images that are rectified
            already.
    """
    if not is_expert_spec(spec):
        return with_intrinsics(capture, spec)
    assert spec is not None
    own = spec == "expert"
    asked = LensOfDepth(expert=depth) if own else lens_expert(spec.removeprefix("expert:"), device=device)
    chosen = _chosen(capture, MOST_VIEWS if not own else None)
    guesses: dict[tuple[int, int], list[LensGuess]] = {}
    for done, index in enumerate(chosen, start=1):
        frame = capture.frames[index]
        if own:
            found = label_depth(capture, index, depth, out).lens(frame)
        else:
            found = asked.lens(capture.image(index), frame, capture)
        if found is not None:
            guesses.setdefault(_size(frame), []).append(found)
        if progress:
            progress(done, len(chosen), "field of view")
    name = str(asked.fingerprint()["name"])
    for frame in capture.frames:
        if _size(frame) not in guesses:
            raise UserError(
                f"{frame.path}: {name} predicts no field of view for images of its size; use --intrinsics "
                "expert:moge-2, expert:depth-pro, expert:anycalib, fov:DEG or estimate"
            )
    lenses = {size: _median(found) for size, found in guesses.items()}
    frames = tuple(_through(frame, lenses[_size(frame)], name) for frame in capture.frames)
    if any(lens.k1 for lens in lenses.values()):
        tell_rectified(frames, f"expert {name}")
    return dataclasses.replace(capture, frames=frames, K_source=f"expert {name}")


def _median(guesses: list[LensGuess]) -> LensGuess:
    return LensGuess(
        focal=float(np.median([guess.focal for guess in guesses])), k1=float(np.median([guess.k1 for guess in guesses]))
    )


def _through(frame: Frame, guess: LensGuess, name: str) -> Frame:
    """The frame with the guess as its intrinsics, rectified where that is no pinhole."""
    K = centred_K(frame, guess.focal)
    if not guess.k1:
        return dataclasses.replace(frame, K=K)
    if frame.rectification is not None:
        raise UserError(
            f"{frame.path}: its lens is known and taken out already; {name} would take out another: choose an expert "
            "without distortion (expert:anycalib), or the --intrinsics that were known"
        )
    lens = Lens(
        model="SIMPLE_RADIAL", width=frame.width, height=frame.height, fx=guess.focal, fy=guess.focal,
        cx=frame.width / 2, cy=frame.height / 2, distortion=(guess.k1,),
    )  # fmt: skip
    return dataclasses.replace(frame, K=K, rectification=lens.rectification())


def _size(frame: Frame) -> tuple[int, int]:
    """A camera that is turned stays the same camera."""
    return min(frame.width, frame.height), max(frame.width, frame.height)


def _chosen(capture: Capture, most: int | None) -> list[int]:
    """Positions of the frames to ask about: up to ``most`` of each size, evenly spaced."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, frame in enumerate(capture.frames):
        groups.setdefault(_size(frame), []).append(index)
    return sorted(index for group in groups.values() for index in evenly_spaced(group, most))
