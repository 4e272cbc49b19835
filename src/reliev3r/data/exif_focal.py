"""Focal length from EXIF, and how far it can be believed.

FocalLengthIn35mmFilm is by diagonals (CIPA DCG-001, EXIF 2.3), but of what? By the standard of the picture; cameras
write one number for a lens, whatever shape is chosen, so that it is of the whole sensor. For a 16:9 picture of a 4:3
sensor the two readings are 9 % apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from reliev3r.data.capture import Frame
from reliev3r.data.images import exif_tags, image_size
from reliev3r.geometry.camera import focal_from_35mm

_FOCAL, _FOCAL_35MM, _STORED_WIDTH, _PLANE_RESOLUTION, _PLANE_UNIT = 37386, 41989, 40962, 41486, 41488
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of FocalPlaneResolutionUnit
_TRUSTED = 0.05
"""Standard deviation of the logarithm: EXIF rounds to millimetres and knows neither focusing nor stabilisation."""
_SAME_SHAPE = 0.02
_SMALL, _FOUR_THIRDS = 3.0, (1.9, 2.1)
"""Crop factors (35 mm equivalent over focal length) of sensors that are 4:3: phones, drones and compacts have more."""


@dataclass(frozen=True, kw_only=True)
class ExifFocal:
    """What EXIF says about one picture's focal length."""

    px: float
    """In pixels of the picture, square and of either orientation."""
    sigma: float
    """Standard deviation of the logarithm."""
    picture_px: float | None = None
    """The other reading, where the picture is a crop of the sensor and nothing tells which one the maker meant."""


def exif_focal(frame: Frame) -> ExifFocal | None:
    """From FocalLengthIn35mmFilm, else from FocalLength and the sensor's pixel pitch; None where both are absent.

    A picture of another shape than its sensor is read as the full width (or height) of the sensor, unless pixel pitch
    says otherwise. Where there is no pitch to tell, one maker in four may mean the picture: ``sigma`` has that in it.
    """
    tags = exif_tags(frame.path)
    equivalent, focal = _number(tags.get(_FOCAL_35MM)), _number(tags.get(_FOCAL))
    pitched = _by_pitch(frame, tags, focal)
    if not equivalent:
        return ExifFocal(px=pitched, sigma=_TRUSTED) if pitched else None
    short, long = sorted((frame.width, frame.height))
    picture = focal_from_35mm(equivalent, short, long)
    shape = _sensor_shape(long / short, equivalent / focal if focal else None)
    whole = picture * math.hypot(1, shape) * max(long / shape, short) / math.hypot(short, long)
    gap = math.log(whole / picture)
    if abs(gap) < _SAME_SHAPE:
        return ExifFocal(px=picture, sigma=_TRUSTED)
    nearest = min((whole, picture), key=lambda px: abs(math.log(pitched / px))) if pitched else 0.0
    if pitched and abs(math.log(pitched / nearest)) < _TRUSTED:
        return ExifFocal(px=nearest, sigma=_TRUSTED)
    return ExifFocal(px=whole, sigma=math.hypot(_TRUSTED, gap / 2), picture_px=picture)


def _by_pitch(frame: Frame, tags: dict[int, Any], focal_mm: float) -> float:
    """Focal length in pixels from the one in millimetres; 0 where the pitch is absent."""
    resolution, unit = _number(tags.get(_PLANE_RESOLUTION)), _MM_PER_UNIT.get(tags.get(_PLANE_UNIT, 2))
    if not (focal_mm and resolution and unit):
        return 0.0
    stored_width = image_size(frame.path, upright=False)[0]
    return focal_mm * resolution / unit * stored_width / (_number(tags.get(_STORED_WIDTH)) or stored_width)


def _sensor_shape(shape: float, crop_factor: float | None) -> float:
    """Long over short side of the sensor behind a picture of ``shape``: 4/3 or 3/2."""
    small = crop_factor is not None and crop_factor > _SMALL
    for known in (4 / 3,) if small else (4 / 3, 3 / 2):
        if abs(math.log(shape / known)) < _SAME_SHAPE:
            return known
    large = crop_factor is not None and not small and not _FOUR_THIRDS[0] < crop_factor < _FOUR_THIRDS[1]
    return 3 / 2 if large else 4 / 3


def _number(value: Any) -> float:
    """A positive finite EXIF number, else 0."""
    try:
        found = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0
