"""Depth experts by name."""

from __future__ import annotations

from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.labels.depth.depth_anything_v2 import DepthAnythingV2
from reliev3r.labels.depth.depth_pro import DepthPro
from reliev3r.labels.depth.folder import FolderDepth
from reliev3r.labels.depth.none import NoDepth
from reliev3r.labels.depth.simulated import SimulatedDepth
from reliev3r.labels.expert import DepthExpert

DEPTH_EXPERTS = (
    "depth-anything-v2-small[:DIR]",
    "depth-pro[:DIR]",
    "folder:PATH",
    "folder-disparity:PATH",
    "simulated",
    "none",
)


def depth_expert(spec: str, *, device: str = "cpu") -> DepthExpert:
    """The expert that ``spec`` names, of the form NAME or NAME:ARGUMENT; weights are read at its first use only.

    Raises:
        UserError: no such expert, or an argument is missing, superfluous or no folder.
    """
    name, _, argument = spec.partition(":")
    if name == "depth-anything-v2-small":
        return DepthAnythingV2(weights=argument or None, device=device)
    if name == "depth-pro":
        return DepthPro(weights=argument or None, device=device)
    if name in ("folder", "folder-disparity") and argument:
        return FolderDepth(folder=Path(argument), disparity=name == "folder-disparity")
    if spec == "simulated":
        return SimulatedDepth()
    if spec == "none":
        return NoDepth()
    raise UserError(f"depth expert {spec!r}: choose one of {', '.join(DEPTH_EXPERTS)}")
