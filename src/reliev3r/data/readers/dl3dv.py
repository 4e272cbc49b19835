"""DL3DV-10K: HASH/transforms.json and a folder of smaller copies of its images; nerfstudio's conventions."""

from __future__ import annotations

from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.data.benchmark_guard import is_hash
from reliev3r.data.images import image_size
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._scene import scene_of
from reliev3r.data.readers.nerfstudio import read_shots
from reliev3r.data.truth import Scene

FOLDERS = ("images_4", "images_8", "images_2", "images")
"""Copies of the images, the first that is there: 960 x 540 is enough for networks and quick to read."""

CAVEATS = (
    "DL3DV: the true poses are COLMAP's (structure from motion), their scale is arbitrary; there is no true depth",
)


# a release (1K/HASH), a part of it, or the scene itself
_LAYOUT = Layout(is_scene=lambda f: is_hash(f.resolve().name) and (f / "transforms.json").is_file(), depth=2)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says; the lens is rectified."""
    return open_folder(_LAYOUT.folder(root, name), name, views)


def open_folder(folder: Path, name: str, views: int | None) -> Scene:
    """The scene whose ``transforms.json`` lies in ``folder``.

    Raises:
        UserError: no folder of images, or as :func:`reliev3r.data.readers.nerfstudio.read_shots`.
    """
    images = next((folder / each for each in FOLDERS if (folder / each).is_dir()), None)
    if images is None:
        raise UserError(f"{folder}: has no folder of images ({', '.join(FOLDERS)}); download one of them too")
    first = next((file for file in sorted(images.iterdir()) if file.suffix.lower() in (".png", ".jpg")), None)
    if first is None:
        raise UserError(f"{images}: is empty; download its images")
    shots = read_shots(
        folder / "transforms.json", lambda file: images / Path(file).name, size=image_size(first, upright=False)
    )
    return scene_of(
        name, folder, shots, views=views, metric=False, ordered=True, K_source="transforms.json", caveats=CAVEATS
    )
