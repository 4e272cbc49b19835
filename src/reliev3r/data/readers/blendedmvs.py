"""BlendedMVS (low resolution): photographs blended with renderings of the mesh that was reconstructed from them.

Cameras are camera-from-world in OpenCV axes; depth is z, in the unit of the reconstruction. K's pixel convention is not
documented; it is taken for corners (half a pixel at most).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from reliev3r.core.errors import UserError
from reliev3r.data.images import image_size
from reliev3r.data.readers._depth import known, read_pfm
from reliev3r.data.readers._layout import Layout, existing, files_in
from reliev3r.data.readers._scene import Shot, matrix, scene_of
from reliev3r.data.truth import Scene, checked_pose

_LAYOUT = Layout(is_scene=lambda folder: all((folder / part).is_dir() for part in ("blended_images", "cams")), depth=2)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One scene; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    images = files_in(folder / "blended_images", "*[0-9].jpg")  # without *_masked.jpg
    caveats = (
        "the scale is arbitrary",
        "depth is rendered from a mesh reconstructed from the same photographs; it has holes (sky, glass)",
    )
    return scene_of(
        name,
        folder,
        [_shot(folder, image) for image in images],
        views=views,
        metric=False,
        ordered=False,
        K_source="cams of BlendedMVS",
        caveats=caveats,
    )


def _shot(folder: Path, image: Path) -> Shot:
    file = folder / "cams" / f"{image.stem}_cam.txt"
    K, cam_from_world = _camera(file)
    finite = np.isfinite(cam_from_world).all()
    pose = np.linalg.inv(checked_pose(cam_from_world, str(file))) if finite else cam_from_world
    depth_file = folder / "rendered_depth_maps" / f"{image.stem}.pfm"
    return Shot(
        name=image.stem, image=image, K=K, world_from_cam=pose, depth=functools.partial(_depth, depth_file, image)
    )


def _camera(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(K, cam_from_world) of "extrinsic" and 16 numbers, "intrinsic" and 9 numbers, and a range of depth."""
    words = existing(file).read_text(encoding="utf8", errors="replace").split()
    if len(words) < 27 or words[0] != "extrinsic" or words[17] != "intrinsic":
        raise UserError(f"{file}: not 'extrinsic' with 16 and 'intrinsic' with 9 numbers; restore it")
    rows = [words[1 + 4 * i : 5 + 4 * i] for i in range(4)]
    return matrix([words[18 + 3 * i : 21 + 3 * i] for i in range(3)], str(file), (3, 3)), matrix(rows, str(file))


def _depth(file: Path, image: Path) -> np.ndarray:
    return known(
        read_pfm(file), file, size=image_size(image, upright=False)
    )  # K would not fit an image of another size
