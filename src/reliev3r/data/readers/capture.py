"""Our own capture folder (docs/conventions.md) as a scene: what ``reliev3r synth`` and ``reliev3r convert`` write."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.capture import load_capture
from reliev3r.data.readers._layout import Layout
from reliev3r.data.truth import CameraFile, Scene

FILE = "cameras.json"

_LAYOUT = Layout(is_scene=lambda folder: (folder / FILE).is_file())
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; a capture without poses is a scene without truth."""
    folder = _LAYOUT.folder(root, name)
    capture = load_capture(folder, views=views)
    content = read_json(folder / FILE)
    truth = CameraFile(folder) if any(frame.get("cam_to_world") is not None for frame in content["frames"]) else None
    caveats = content.get("caveats") or ()
    if not isinstance(caveats, list | tuple) or not all(isinstance(text, str) for text in caveats):
        raise UserError(f'{folder / FILE}: "caveats" must be a list of sentences')
    return Scene(name=name, capture=capture, truth=truth, caveats=tuple(caveats))
