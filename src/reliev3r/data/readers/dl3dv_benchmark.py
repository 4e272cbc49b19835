"""DL3DV-Benchmark: HASH/nerfstudio/ as DL3DV-10K has it, 140 scenes that are never trained on."""

from __future__ import annotations

from pathlib import Path

from reliev3r.data.benchmark_guard import is_hash
from reliev3r.data.readers._scene import find_scenes
from reliev3r.data.readers.dl3dv import open_folder
from reliev3r.data.scene import Scene


def recognises(root: Path) -> bool:
    """``benchmark-meta.csv``, or folders HASH/nerfstudio."""
    return (root / "benchmark-meta.csv").is_file() or bool(scenes(root))


def scenes(root: Path) -> list[str]:
    """Hashes."""
    return list(_folders(root))


def open_scene(root: Path, name: str, views: int | None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; the lens is rectified."""
    return open_folder(_folders(root)[name] / "nerfstudio", name, views)


def _folders(root: Path) -> dict[str, Path]:
    return find_scenes(root, lambda f: is_hash(f.resolve().name) and (f / "nerfstudio" / "transforms.json").is_file())
