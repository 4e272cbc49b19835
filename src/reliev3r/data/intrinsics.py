"""Where a capture's intrinsics come from: its own file, another file, a field of view, EXIF, or nowhere."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from reliev3r.core.cameras_json import FrameEntry, read_frames, read_shared_intrinsics
from reliev3r.core.errors import UserError
from reliev3r.data.capture import Capture, Frame, resized, tell_rectified, warn_if_off_centre
from reliev3r.data.exif_focal import exif_focal
from reliev3r.data.images import exif_tags
from reliev3r.data.known_cameras import refuse_unused_cameras
from reliev3r.data.lenses import rectification_of_entry
from reliev3r.geometry.camera import K_from_focal, focal_from_fov

logger = logging.getLogger(__name__)

_MAKE, _MODEL, _LENS_MODEL, _FOCAL, _FOCAL_35MM = 271, 272, 42036, 37386, 41989


def with_intrinsics(capture: Capture, spec: str | None = None) -> Capture:
    """The capture with the intrinsics that ``spec`` asks for; ``K_source`` says which.

    ``FILE``: JSON in the format of ``cameras.json`` (matched by frame name) or one shared {"K", "width", "height"}, K
    with integer pixel centres; ``fov:DEG``: *horizontal* field of view of every upright image, square pixels, centred
    principal point; ``exif``: focal length from the images' EXIF; ``estimate``: none, whatever is known. What a file
    says about the lens counts too, and then the frames are rectified; a file without a lens is about a pinhole. By
    default those of the capture's own ``cameras.json``, else EXIF where all images have it, else none; but where a file
    of another tool beside the images knows them, that must be used or refused by name.

    Raises:
        UserError: there is such a file; the given file does not fit the frames, a field of view outside (0, 180),
            images without EXIF focal length.
    """
    if spec is None:
        return _default(capture)
    if is_expert_spec(spec):
        raise UserError(f"--intrinsics {spec}: only where labels are made (fit, label); give a JSON file or fov:DEG")
    if spec == "estimate":
        return _replaced(capture, lambda _: None, None)
    if spec == "exif":
        missing = [frame.file for frame in capture.frames if _exif_K(frame) is None]
        if missing:
            raise UserError(f"{capture.root}: no focal length in the EXIF of {_some(missing)}; give fov:DEG or a file")
        return _from_exif(capture)
    if spec.startswith("fov:"):
        return _from_fov(capture, spec)
    return _from_file(capture, Path(spec))


def is_expert_spec(spec: str | None) -> bool:
    """Whether ``spec`` (``expert`` or ``expert:EXPERT``) asks for an expert; ``labels.estimate_intrinsics`` runs it."""
    return spec is not None and (spec == "expert" or spec.startswith("expert:"))


def _default(capture: Capture) -> Capture:
    if capture.has_K:
        return capture
    refuse_unused_cameras(capture)
    given = [frame.K is not None for frame in capture.frames]
    if any(given):
        logger.warning("%s: %d of %d frames have a K; it is not used", capture.root, sum(given), len(given))
    without = [frame.file for frame in capture.frames if _exif_K(frame) is None]
    if not without:
        return _from_exif(capture)
    if len(without) < len(capture.frames):
        logger.warning("%s: no focal length in the EXIF of %s; that of the others is not used", capture.root,
                       _some(without))  # fmt: skip
    return _replaced(capture, lambda _: None, None)


def _replaced(capture: Capture, K_of: Callable[[Frame], np.ndarray | None], source: str | None) -> Capture:
    frames = tuple(dataclasses.replace(frame, K=K_of(frame)) for frame in capture.frames)
    return dataclasses.replace(capture, frames=frames, K_source=source)


def _from_fov(capture: Capture, spec: str) -> Capture:
    try:
        degrees = float(spec.removeprefix("fov:"))
    except ValueError:
        degrees = math.nan
    if not 0 < degrees < 180:
        raise UserError(f"{spec}: a horizontal field of view lies between 0 and 180 degrees, for instance fov:60")
    if len({frame.width > frame.height for frame in capture.frames}) > 1:
        raise UserError(f"{spec}: {capture.root} mixes upright and wide images; give a file with a K for each frame")
    fov = math.radians(degrees)
    return _replaced(capture, lambda frame: centred_K(frame, focal_from_fov(fov, frame.width)), spec)


def _from_file(capture: Capture, file: Path) -> Capture:
    if not file.is_file():
        choices = "give a JSON file, fov:DEG, exif or estimate, or expert where labels are made"
        raise UserError(f"--intrinsics {file}: no such file; {choices}")
    shared = read_shared_intrinsics(file)
    entries = {} if shared is not None else {entry.name: entry for entry in read_frames(file)}
    missing = [frame.name for frame in capture.frames if shared is None and frame.name not in entries]
    if missing:
        raise UserError(f"{file}: no intrinsics for {_some(missing)}; add them or give one shared K")
    frames = tuple(_fitted(frame, entries[frame.name] if shared is None else shared, file) for frame in capture.frames)
    warn_if_off_centre(frames, file.name)
    tell_rectified(frames, str(file))
    return dataclasses.replace(capture, frames=frames, K_source=file.name)


def _fitted(frame: Frame, entry: FrameEntry, file: Path) -> Frame:
    """With the K and lens of an entry, scaled where they were measured on the same images at another resolution."""
    where = f"{file}: intrinsics of {frame.name}"
    if entry.K is None:
        raise UserError(f"{where}: K is missing; add it, or choose other --intrinsics")
    if entry.width is None or entry.height is None:
        raise UserError(f"{where}: need the image's width and height in pixels")
    size = (frame.width, frame.height)
    other = f"{where}: {frame.file} is {size[0]}x{size[1]}, of another aspect ratio than"
    K = resized((entry.width, entry.height), size, other) @ entry.K
    return dataclasses.replace(frame, K=K, rectification=rectification_of_entry(entry, K, size, where))


def centred_K(frame: Frame, focal: float) -> Float[np.ndarray, "3 3"]:
    """Square pixels and a principal point in the image's centre; ``focal`` in pixels of the upright image."""
    return K_from_focal(torch.tensor(focal, dtype=torch.float64), frame.height, frame.width).numpy()


def _from_exif(capture: Capture) -> Capture:
    """With EXIF's focal lengths; told in a line where a number may mean two things."""
    crops = [(frame, found) for frame in capture.frames if (found := exif_focal(frame)) and found.picture_px]
    if crops:
        frame, found = crops[0]
        logger.info("%s: %d of %d images (%s) have another shape than their sensor; the 35 mm equivalent is read as "
                    "the whole sensor's: focal length %.0f px (the picture's own: %.0f)", capture.root, len(crops),
                    len(capture.frames), frame.file, found.px, found.picture_px)  # fmt: skip
    return _replaced(capture, _exif_K, "exif")


def _exif_K(frame: Frame) -> Float[np.ndarray, "3 3"] | None:
    found = exif_focal(frame)
    return None if found is None else centred_K(frame, found.px)


def cameras_of(capture: Capture) -> tuple[int, ...]:
    """For each frame the first one that the same camera took, as far as EXIF tells: make, model, lens, zoom and size.

    Portrait or landscape is the same camera, turned by 90 degrees.
    """
    tags = (_MAKE, _MODEL, _LENS_MODEL, _FOCAL, _FOCAL_35MM)
    first: dict[Any, int] = {}
    cameras = []
    for index, frame in enumerate(capture.frames):
        exif = exif_tags(frame.path)
        key = (*sorted((frame.width, frame.height)), *(str(exif.get(tag, "")).strip("\0 ") for tag in tags))
        cameras.append(first.setdefault(key, index))
    return tuple(cameras)


def focal_uncertainty(capture: Capture) -> float | None:
    """Standard deviation of the logarithm of the frames' focal lengths; None where they were measured or stated.

    EXIF says how far it can be believed (:mod:`reliev3r.data.exif_focal`; the least certain frame counts); an expert
    guesses from a picture; a search by the matches alone says little about flat scenes.
    """
    if not capture.has_K:
        return 0.2
    source = capture.K_source or ""
    if source == "exif":
        return max((found.sigma for frame in capture.frames if (found := exif_focal(frame))), default=0.2)
    return 0.1 if source.startswith("expert ") else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
