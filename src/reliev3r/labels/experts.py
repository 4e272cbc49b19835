"""All experts at a glance, without importing the packages that they need."""

from __future__ import annotations

import importlib.util

from reliev3r.labels.depth.registry import DEPTH_EXPERT_INFO
from reliev3r.labels.expert import ExpertInfo
from reliev3r.labels.fov import FOV_EXPERT_INFO
from reliev3r.labels.tracks.registry import TRACK_EXPERT_INFO

_HEADINGS = {
    "depth": "depth experts (--depth)",
    "tracks": "track experts (--tracks)",
    "fov": "field of view experts (--intrinsics)",
}


def all_experts() -> tuple[ExpertInfo, ...]:
    """Of all kinds, in the order in which they are shown."""
    return (*DEPTH_EXPERT_INFO, *TRACK_EXPERT_INFO, *FOV_EXPERT_INFO)


def is_installed(info: ExpertInfo) -> bool:
    """Whether the expert's package can be imported; it is only looked for."""
    try:
        return not info.package or importlib.util.find_spec(info.package) is not None
    except (ImportError, ValueError):  # a broken or half-removed package
        return False


def expert_table(kind: str = "all") -> str:
    """The experts of one kind ("depth", "tracks", "fov") or of all, as plain text for any terminal."""
    blocks = []
    for heading in _HEADINGS if kind == "all" else (kind,):
        blocks.append(_HEADINGS[heading])
        blocks += [_entry(info) for info in all_experts() if info.kind == heading]
    return "\n\n".join(blocks)


def _entry(info: ExpertInfo) -> str:
    package = f" ({info.package})" if info.package else ""
    state = f"installed{package}" if is_installed(info) else f"not installed: {info.install}"
    lines = {"licence": info.licence, "weights": info.weights, "looked for": info.looked_for, "package": state}
    return "\n".join([f"  {info.name}", *(f"    {name:<11} {text}" for name, text in lines.items() if text)])
