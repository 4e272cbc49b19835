"""Our own capture folder (docs/conventions.md) as a scene: what ``reliev3r synth`` and ``reliev3r convert`` write."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON, read_about
from reliev3r.data.capture import load_capture
from reliev3r.data.readers._layout import Layout
from reliev3r.data.truth import CameraFile, Scene

# converted datasets keep the folders of theirs: DL3DV's 1K/HASH, TartanAir's ENV/Easy/P000
_LAYOUT = Layout(is_scene=lambda folder: (folder / CAMERAS_JSON).is_file(), depth=4)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; a capture without poses is a scene without truth."""
    folder = _LAYOUT.folder(root, name)
    capture, truth = load_capture(folder, views=views), CameraFile(folder)
    caveats = read_about(folder / CAMERAS_JSON).caveats
    return Scene(name=name, capture=capture, truth=truth if truth.has_poses else None, caveats=caveats)
