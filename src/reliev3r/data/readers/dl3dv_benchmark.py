"""DL3DV-Benchmark: HASH/nerfstudio/ as DL3DV-10K has it, 140 scenes that are never trained on."""

from __future__ import annotations

from pathlib import Path

from reliev3r.data.benchmark_guard import is_hash
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers.dl3dv import open_folder
from reliev3r.data.truth import Scene

_LAYOUT = Layout(is_scene=lambda f: is_hash(f.resolve().name) and (f / "nerfstudio" / "transforms.json").is_file())
scenes = _LAYOUT.scenes


def recognises(root: Path) -> bool:
    """``benchmark-meta.csv``, or folders HASH/nerfstudio."""
    return (root / "benchmark-meta.csv").is_file() or _LAYOUT.recognises(root)


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; the lens is rectified."""
    return open_folder(_LAYOUT.folder(root, name) / "nerfstudio", name, views)
