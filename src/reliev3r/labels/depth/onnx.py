"""Any monocular depth network as an ONNX file, with a declaration of what goes in and what comes out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from reliev3r.data.capture import Capture, Frame
from reliev3r.errors import UserError
from reliev3r.files import file_hash
from reliev3r.labels.depth.onnx_declaration import OnnxDeclaration
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.pretrained import first_line
from reliev3r.types import Ambiguity

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
