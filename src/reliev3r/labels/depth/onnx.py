"""What a user declares about an ONNX depth network: the file ``FILE.json`` beside it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from reliev3r.core.errors import UserError, first_line
from reliev3r.core.files import file_hash, read_json
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.depth.depth_anything_v2 import depth_from_disparity
from reliev3r.labels.expert import DepthMap

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


_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_EXTERNAL = (".data", "_data")  # where exporters put weights beyond protobuf's 2 GB


@dataclass(frozen=True, kw_only=True)
class OnnxDepth:
    """``onnx:FILE`` through onnxruntime; ``FILE.json`` declares its input and output (:class:`OnnxDeclaration`)."""

    file: Path
    declaration: OnnxDeclaration
    device: str = "cpu"

    @staticmethod
    def open(file: Path, *, device: str = "cpu") -> OnnxDepth:
        """The expert of a file and of the declaration beside it; the network itself is read at its first use.

        Raises:
            UserError: either is missing, or the declaration is wrong.
        """
        if not file.is_file():
            raise UserError(f"{file}: no such ONNX file")
        return OnnxDepth(
            file=file, declaration=OnnxDeclaration.read(file.with_name(file.name + ".json")), device=device
        )

    @property
    def ambiguity(self) -> Ambiguity:
        """As declared."""
        return self.declaration.ambiguity

    @cached_property
    def _hashes(self) -> dict[str, str]:
        external = [self.file.with_name(self.file.name + suffix) for suffix in _EXTERNAL]
        return {path.name: file_hash(path) for path in (self.file, *external) if path.is_file()}

    @cached_property
    def _session(self) -> Any:
        return _open_session(self.file, self.device)

    def fingerprint(self) -> dict[str, Any]:
        """Hashes of the network's files, the declaration and the version of onnxruntime."""
        declared = {name: str(value) for name, value in dataclasses.asdict(self.declaration).items()}
        hashes = {f"sha256 {name}": value for name, value in self._hashes.items()}
        return {"name": "onnx", "version": 1, "onnxruntime": _runtime().__version__, **hashes, **declared}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth at the resolution of the network's output, which covers the whole image."""
        declared, node = self.declaration, self._session.get_inputs()[0]
        pixels = self._prepared(declared.resized(image), node.type)
        self._check_shape(node.shape, pixels.shape)
        try:
            output = self._session.run([self._output_name()], {node.name: pixels})[0]
        except Exception as error:  # onnxruntime has its own exceptions, one for each status code
            raise UserError(f"{self.file}: failed on {frame.file} ({first_line(error)})") from error
        # [1, 1, h, w], [1, h, w, 1] and [1, h, w] are all one map
        kept = [side for side in output.shape if side != 1]
        if len(kept) != 2:
            raise UserError(
                f"{self.file}: its output is of shape {list(output.shape)}, not one map; name it output_name"
            )
        return DepthMap.from_values(declared.to_depth(output.reshape(kept).astype(np.float64)))

    def _prepared(self, rgb: UInt8[np.ndarray, "h w 3"], kind: str) -> np.ndarray:
        """The network's input tensor."""
        declared = self.declaration
        if kind not in _DTYPES:
            raise UserError(f"{self.file}: its input is {kind}; float, float16 and uint8 are supported")
        pixels: np.ndarray = rgb
        if kind != "tensor(uint8)":
            mean, std = np.array(declared.mean, np.float32), np.array(declared.std, np.float32)
            pixels = ((rgb.astype(np.float32) / 255 - mean) / std).astype(_DTYPES[kind])
        if declared.channels == "bgr":
            pixels = pixels[..., ::-1]
        if declared.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[None])

    def _check_shape(self, wanted: list[Any], given: tuple[int, ...]) -> None:
        fits = len(wanted) == len(given) and all(not isinstance(a, int) or a == b for a, b in zip(wanted, given))
        if not fits:
            raise UserError(
                f"{self.file}: takes {wanted} but its declaration makes {list(given)} of this image; correct size, "
                f"short_side, multiple or layout in {self.file.name}.json"
            )

    def _output_name(self) -> str:
        names = [node.name for node in self._session.get_outputs()]
        wanted = self.declaration.output_name
        if wanted is None and len(names) == 1:
            return names[0]
        if wanted is None or wanted not in names:
            raise UserError(f"{self.file}.json: output_name must be one of {', '.join(names)}")
        return wanted


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnx: this depth expert needs onnxruntime: pip install 'reliev3r[onnx]'") from error
    return onnxruntime


def _open_session(file: Path, device: str) -> Any:
    """The network on the device, with as many threads as torch uses."""
    runtime = _runtime()
    providers: list[Any] = ["CPUExecutionProvider"]
    target = torch.device(device)
    if target.type == "cuda":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise UserError(f"{file}: this onnxruntime has no GPU support; pip install onnxruntime-gpu, or use the CPU")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": target.index or 0}))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its fused int8 kernels saturate on some processors: FastDepth was off by up to 15 steps of 255 with them.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3  # its warnings are about the graph; errors are raised
    try:
        session = runtime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # onnxruntime has its own exceptions, one for each status code
        raise UserError(f"{file}: not readable as an ONNX network ({first_line(error)})") from error
    if target.type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():  # it goes on without a word
        raise UserError(f"{file}: onnxruntime cannot use the GPU here (CUDA or cuDNN is missing); use the CPU")
    if len(session.get_inputs()) != 1:
        raise UserError(f"{file}: takes {len(session.get_inputs())} inputs; a depth expert takes the image alone")
    return session
