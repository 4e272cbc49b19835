"""DL3DV-10K: HASH/transforms.json and a folder of smaller copies of its images; nerfstudio's conventions.

The sample on Hugging Face keeps both in HASH/colmap/, or the file there and the images beside it.
"""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.data.benchmark_guard import is_hash
from reliev3r.data.images import image_size
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._scene import scene_of
from reliev3r.data.readers.nerfstudio import read_shots
from reliev3r.data.truth import NO_DEPTH, Scene

FOLDERS = ("images_4", "images_8", "images_2", "images")
"""Copies of the images, the first that is there: 960 x 540 is enough for networks and quick to read."""

CAVEATS = (
    "DL3DV: the true poses are COLMAP's (structure from motion), their scale is arbitrary",
    NO_DEPTH,
)


def _cameras(folder: Path) -> Path | None:
    """The folder of a scene's ``transforms.json``: the release's or the sample's."""
    places = (folder, folder / "colmap") if is_hash(folder.resolve().name) else ()
    return next((place for place in places if (place / "transforms.json").is_file()), None)


# a release (1K/HASH), a part of it, or the scene itself
_LAYOUT = Layout(is_scene=lambda folder: _cameras(folder) is not None, depth=2)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; the lens is rectified."""
    folder = _LAYOUT.folder(root, name)
    cameras = _cameras(folder)
    assert cameras is not None  # it is a scene
    return open_folder(folder, name, views, cameras=cameras)


def open_folder(folder: Path, name: str, views: int | None, *, cameras: Path | None = None) -> Scene:
    """The scene in ``folder``, whose ``transforms.json`` lies in ``cameras`` (there by default), images in either.

    Raises:
        UserError: no folder of images, or as :func:`reliev3r.data.readers.nerfstudio.read_shots`.
    """
    cameras = cameras or folder
    found = (place / each for place in (cameras, folder) for each in FOLDERS if (place / each).is_dir())
    images = next(found, None)
    if images is None:
        raise UserError(f"{folder}: has no folder of images ({', '.join(FOLDERS)}); download one of them too")
    first = next((file for file in sorted(images.iterdir()) if file.suffix.lower() in (".png", ".jpg")), None)
    if first is None:
        raise UserError(f"{images}: is empty; download its images")
    shots = read_shots(
        cameras / "transforms.json", lambda file: images / Path(file).name, size=image_size(first, upright=False)
    )
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=True, K_source="transforms.json", caveats=CAVEATS
    )
