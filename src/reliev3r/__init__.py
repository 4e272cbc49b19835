"""Reliev3R: training feed-forward 3D reconstruction models without 3D annotation.

This is the door: what people use from Python. ``docs/python.md`` describes each name. Importing it is free: what a name
needs (torch, most of all) is loaded when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reliev3r.core.reconstruction import Reconstruction
    from reliev3r.core.types import Loss, Prediction, PseudoLabels, Tracks, Views
    from reliev3r.runs.api import adapt, evaluate, fit, label, load_capture, load_model, reconstruct, train

    __version__: str

__all__ = [
    # in the order of a day's work
    "load_capture", "load_model", "reconstruct", "label", "fit", "adapt", "train", "evaluate",
    # what losses and tools are written with
    "Views", "Prediction", "Tracks", "PseudoLabels", "Loss", "Reconstruction",
    "__version__",
]  # fmt: skip

_TYPES = {
    "Reconstruction": "reliev3r.core.reconstruction",
    **dict.fromkeys(("Views", "Prediction", "Tracks", "PseudoLabels", "Loss"), "reliev3r.core.types"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'reliev3r' has no attribute {name!r}; it has {', '.join(__all__)}")
    if name == "__version__":
        from importlib.metadata import version

        found: Any = version("reliev3r")
    else:
        found = getattr(importlib.import_module(_TYPES.get(name, "reliev3r.runs.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
