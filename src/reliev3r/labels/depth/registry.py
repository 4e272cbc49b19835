"""Depth experts by name."""

from __future__ import annotations

from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.labels.depth.depth_anything_v2 import DepthAnythingV2
from reliev3r.labels.depth.depth_pro import DepthPro
from reliev3r.labels.depth.folder import FolderDepth
from reliev3r.labels.depth.moge2 import INSTALL as INSTALL_MOGE
from reliev3r.labels.depth.moge2 import MoGe2
from reliev3r.labels.depth.none import NoDepth
from reliev3r.labels.depth.onnx import OnnxDepth
from reliev3r.labels.depth.simulated import SimulatedDepth
from reliev3r.labels.expert import DepthExpert, ExpertInfo

_HUB = "DIR, else the Hugging Face cache, else its hub"
_TRANSFORMERS = "pip install 'reliev3r[experts]'"

DEPTH_EXPERT_INFO = (
    ExpertInfo(
        name="depth-anything-v2-small[:DIR]",
        kind="depth",
        licence="Apache-2.0 (base and large: CC-BY-NC-4.0)",
        weights="depth-anything/Depth-Anything-V2-Small-hf",
        looked_for=_HUB,
        install=_TRANSFORMERS,
        package="transformers",
    ),
    ExpertInfo(
        name="depth-pro[:DIR]",
        kind="depth",
        licence="code Apache-2.0, weights: Apple's own licence",
        weights="apple/DepthPro-hf",
        looked_for=_HUB,
        install=_TRANSFORMERS,
        package="transformers",
    ),
    ExpertInfo(
        name="moge-2[:FILE or DIR]",
        kind="depth",
        licence="MIT",
        weights="model.pt of Ruicheng/moge-2-vitl",
        looked_for="FILE, DIR/model.pt, else the Hugging Face cache, else its hub",
        install=INSTALL_MOGE,
        package="moge",
    ),
    ExpertInfo(
        name="onnx:FILE",
        kind="depth",
        licence="the network's own",
        weights="any depth network as FILE, declared in FILE.json",
        looked_for="FILE",
        install="pip install 'reliev3r[onnx]'",
        package="onnxruntime",
    ),
    ExpertInfo(
        name="folder:PATH",
        kind="depth",
        licence="the maps' own",
        weights="none: one depth map an image",
        looked_for="PATH/NAME.png, .npy or .npz",
    ),
    ExpertInfo(
        name="folder-disparity:PATH",
        kind="depth",
        licence="the maps' own",
        weights="none: one inverse depth map an image",
        looked_for="PATH/NAME.png, .npy or .npz",
    ),
    ExpertInfo(
        name="simulated",
        kind="depth",
        licence="Apache-2.0",
        weights="none: degraded ground truth, synthetic captures only",
        looked_for="CAPTURE/depth",
    ),
    ExpertInfo(name="none", kind="depth", licence="Apache-2.0", weights="none", looked_for="-"),
)
DEPTH_EXPERTS = tuple(info.name for info in DEPTH_EXPERT_INFO)


def depth_expert(spec: str, *, device: str = "cpu") -> DepthExpert:
    """The expert that ``spec`` names, of the form NAME or NAME:ARGUMENT; weights are read at its first use only.

    Raises:
        UserError: no such expert, an argument is missing or superfluous, or an ONNX file is not declared.
    """
    name, _, argument = spec.partition(":")
    if name == "depth-anything-v2-small":
        return DepthAnythingV2(weights=argument or None, device=device)
    if name == "depth-pro":
        return DepthPro(weights=argument or None, device=device)
    if name == "moge-2":
        return MoGe2(weights=argument or None, device=device)
    if name == "onnx" and argument:
        return OnnxDepth.open(Path(argument), device=device)
    if name in ("folder", "folder-disparity") and argument:
        return FolderDepth(folder=Path(argument), disparity=name == "folder-disparity")
    if spec == "simulated":
        return SimulatedDepth()
    if spec == "none":
        return NoDepth()
    raise UserError(f"depth expert {spec!r}: choose one of {', '.join(DEPTH_EXPERTS)}")
