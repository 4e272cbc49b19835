"""What a user declares about an ONNX depth network: the file ``FILE.json`` beside it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.errors import UserError
from reliev3r.files import read_json
from reliev3r.labels.depth.depth_anything_v2 import depth_from_disparity
from reliev3r.types import Ambiguity

_CHOICES = {
    "output": ("depth", "disparity", "log-depth"),
    "ambiguity": ("metric", "scale", "scale+shift"),
    "resize": ("bicubic", "area"),
    "layout": ("nchw", "nhwc"),
    "channels": ("rgb", "bgr"),
}


@dataclass(frozen=True, kw_only=True)
class OnnxDeclaration:
    """What ``FILE.json`` beside an ONNX file says; a name that is not here is an error."""

    output: Literal["depth", "disparity", "log-depth"]
    """What the network's output is: z-depth, inverse depth, or the natural logarithm of depth."""
    ambiguity: Ambiguity
    """What the output leaves open. Of a disparity "scale+shift" means an unknown offset *of the disparity*."""
    size: tuple[int, int] | None = None
    """(height, width) that every image is stretched to; else ``short_side`` and ``multiple``."""
    short_side: int | None = None
    """Length of the input's short side in pixels, aspect kept."""
    multiple: int = 1
    """Both sides are rounded to multiples of this."""
    resize: Literal["bicubic", "area"] = "bicubic"
    """How the input is made (both filter as they shrink): as the network was trained, where that is known."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """RGB in [0, 1] goes in as (rgb - mean) / std; bytes where the network's input is uint8."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the channels that go in (``mean`` and ``std`` stay in the order R, G, B)."""
    output_name: str | None = None
    """Which output is the depth, where there are several."""
    floor: float = 0.05
    """Of a disparity with unknown offset: depth is 1 / (disparity / its 99th percentile + floor)."""

    @staticmethod
    def read(file: Path) -> OnnxDeclaration:
        """The checked declaration.

        Raises:
            UserError: missing, or something in it is unknown, absent or out of range; says what and where.
        """
        content = read_json(file) if file.is_file() else None
        if not isinstance(content, dict):
            raise UserError(
                f'{file}: an ONNX depth expert needs this file, such as {{"output": "disparity", "ambiguity": '
                '"scale+shift", "short_side": 518, "multiple": 14}; docs/experts.md lists what it may say'
            )
        known = {field.name for field in dataclasses.fields(OnnxDeclaration)}
        for name in sorted(set(content) - known):
            raise UserError(f"{file}: unknown {name!r}; choose from {', '.join(sorted(known))}")
        for name in ("output", "ambiguity"):
            if name not in content:
                raise UserError(f"{file}: {name!r} is missing; say what the network's output is")
        values: dict[str, Any] = {}
        for name, value in content.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        _check(values, file)
        return OnnxDeclaration(**values)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the network's input for an image of this size."""
        if self.size is not None:
            return self.size
        assert self.short_side is not None
        scale = self.short_side / min(height, width)
        rounded = [max(1, round(side * scale / self.multiple)) * self.multiple for side in (height, width)]
        return rounded[0], rounded[1]

    def resized(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """The image at the network's input size."""
        height, width = self.input_size(*image.shape[:2])
        if self.resize == "area":
            return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))

    def to_depth(self, values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        """z-depth of the network's output; not positive or not finite where there is none."""
        if self.output == "depth":
            return values
        if self.output == "log-depth":
            with np.errstate(over="ignore"):
                return np.exp(values)
        if self.ambiguity == "scale+shift":
            known = np.isfinite(values)
            return np.where(known, depth_from_disparity(np.where(known, values, 0), floor=self.floor), 0)
        return np.divide(1, values, out=np.zeros_like(values), where=values > 0)


def _check(values: dict[str, Any], file: Path) -> None:
    """Refuse what the fields do not mean, before anything is made of it."""
    for name, allowed in _CHOICES.items():
        if name in values and values[name] not in allowed:
            raise UserError(f"{file}: {name} is {values[name]!r}; choose {', '.join(allowed)}")
    for name, length in (("mean", 3), ("std", 3), ("size", 2)):
        if name in values and not _are_numbers(values[name], length, positive=name != "mean", whole=name == "size"):
            kind = {"mean": "numbers", "std": "positive numbers", "size": "positive whole numbers"}[name]
            raise UserError(f"{file}: {name} is {values[name]!r}; give a list of {length} {kind}")
    for name in ("short_side", "multiple", "floor"):
        if name in values and not _are_numbers((values[name],), 1, positive=True, whole=name != "floor"):
            kind = "number" if name == "floor" else "whole number"
            raise UserError(f"{file}: {name} is {values[name]!r}; give a positive {kind}")
    if ("size" in values) == ("short_side" in values):
        raise UserError(f'{file}: give either "size": [height, width] or "short_side" (with "multiple")')
    if not isinstance(values.get("output_name", ""), str):
        raise UserError(f"{file}: output_name is {values['output_name']!r}; give the name of an output")
    if values["output"] == "log-depth" and values["ambiguity"] == "scale+shift":
        raise UserError(f'{file}: an offset of log-depth is a factor of depth; its ambiguity is "scale"')


def _are_numbers(values: Any, length: int, *, positive: bool, whole: bool) -> bool:
    if not isinstance(values, tuple) or len(values) != length:
        return False
    kinds = int if whole else (int, float)
    return all(
        isinstance(x, kinds) and not isinstance(x, bool) and math.isfinite(x) and (x > 0 or not positive)
        for x in values
    )
