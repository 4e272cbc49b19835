"""Intrinsics that lie beside images in a file of another tool: seen here, so that nobody goes on without them."""

from __future__ import annotations

import re
from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON
from reliev3r.core.errors import UserError
from reliev3r.data.benchmark_guard import is_hash
from reliev3r.data.capture import Capture

MODELS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap", ".")
"""Where a COLMAP model lies in a scene's folder; the first that is there."""


def refuse_unused_cameras(capture: Capture) -> None:
    """Stop where a nerfstudio file, a COLMAP model or a ``cameras.json`` beside the images knows their cameras.

    It counts as theirs where it names the first image. Those files know the lens too, which must be taken out of the
    images before a K means anything: ``reliev3r convert`` does both.

    Raises:
        UserError: there is one, with the command to run.
    """
    first = capture.frames[0]
    name = re.compile(rb"(?<![\w-])" + re.escape(first.path.stem.encode()) + rb"(?![\w-])")
    for folder in dict.fromkeys((first.path.parent, first.path.parent.parent, capture.root)):
        for file, remedy in _candidates(folder):
            if _has_cameras(file, capture) and name.search(file.read_bytes()):
                raise UserError(
                    f"{capture.root}: {file} knows the images' cameras, and would not be used; {remedy}; or say "
                    "--intrinsics exif, estimate, ... to go on without it"
                )


def _has_cameras(file: Path, capture: Capture) -> bool:
    """A ``cameras.json`` counts with a K alone; the capture's own was read already, and has none."""
    if file.name != CAMERAS_JSON:
        return file.is_file()
    return file.parent != capture.root and file.is_file() and re.search(rb'"K":\s*\[', file.read_bytes()) is not None


def _candidates(folder: Path) -> list[tuple[Path, str]]:
    """(a file that may name images, what to do then) for each layout, told without opening any."""

    def convert(kind: str, scene: Path) -> str:
        return f"run `reliev3r convert {kind}:{scene} --out CAPTURE` and give CAPTURE"

    found = [(folder / CAMERAS_JSON, f"give {folder}")]
    for place in ("", "colmap", "nerfstudio"):
        found.append((folder / place / "transforms.json", convert(*_scene_of_transforms(folder / place))))
    for place in MODELS:
        if any((folder / place / f"cameras{kind}").is_file() for kind in (".bin", ".txt")):
            found += [(folder / place / f"images{kind}", convert("colmap", folder)) for kind in (".bin", ".txt")]
    return found


def _scene_of_transforms(folder: Path) -> tuple[str, Path]:
    """(format, scene) of a folder with ``transforms.json``: DL3DV's scenes are called by hashes."""
    if is_hash(folder.resolve().name):
        return "dl3dv", folder
    if is_hash(folder.resolve().parent.name):
        return ("dl3dv-benchmark" if folder.name == "nerfstudio" else "dl3dv"), folder.parent
    return "nerfstudio", folder
