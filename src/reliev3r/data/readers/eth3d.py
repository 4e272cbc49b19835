"""ETH3D, high-resolution multi-view: photographs of a DSLR, registered to a laser scan.

A scene has its photographs twice, each time with a COLMAP model in text (camera-from-world, metres, pixel corners): as
taken (THIN_PRISM_FISHEYE, rectified here as other lenses of COLMAP are) and undistorted by the dataset (PINHOLE).
``ground_truth_depth/dslr_images/NAME.JPG`` is no JPEG: float32 z in metres, row by row without a header, infinite where
the scan has nothing. It has the size and the lens of the photographs *as taken*, so it is rectified with them; the
undistorted ones have none. Format: https://www.eth3d.net/documentation.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.readers._depth import known
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._scene import Shot, scene_of
from reliev3r.data.readers.colmap import shots_of
from reliev3r.data.truth import NO_DEPTH, Scene

_DEPTH = "ground_truth_depth/dslr_images"


@dataclass(frozen=True, kw_only=True)
class _Photographs:
    """One of the two sets."""

    images: str
    model: str

    def are_in(self, folder: Path) -> bool:
        return (folder / self.images).is_dir() and (folder / self.model / "images.txt").is_file()


_AS_TAKEN = _Photographs(images="images/dslr_images", model="dslr_calibration_jpg")
_UNDISTORTED = _Photographs(images="images/dslr_images_undistorted", model="dslr_calibration_undistorted")

SCAN = "true depth is the laser scan's: holes, and nothing beyond its reach"
DEPTH_IS_ELSEWHERE = (
    f"poses only: the true depth in {_DEPTH} belongs to the photographs as taken, of which {_AS_TAKEN.images} or "
    f"{_AS_TAKEN.model} is not here"
)

_LAYOUT = Layout(
    is_scene=lambda folder: any((folder / kind.model).is_dir() for kind in (_AS_TAKEN, _UNDISTORTED)), depth=2
)
recognises, scenes = _LAYOUT.recognises, _LAYOUT.scenes


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """One scene, as taken where it has depth or nothing else; see :class:`reliev3r.data.readers.Reader`."""
    folder = _LAYOUT.folder(root, name)
    has_depth = (folder / _DEPTH).is_dir()
    kinds = (_AS_TAKEN, _UNDISTORTED) if has_depth else (_UNDISTORTED, _AS_TAKEN)
    there = [kind for kind in kinds if kind.are_in(folder)]
    if not there:
        pairs = " or ".join(f"{kind.images} with {kind.model}/images.txt" for kind in kinds)
        raise UserError(f"{folder}: needs {pairs}; restore them from the dataset")
    shots, caveat = shots_of(folder / there[0].model, folder / "images"), NO_DEPTH
    if has_depth:
        caveat = SCAN if there[0] is _AS_TAKEN else DEPTH_IS_ELSEWHERE
    if caveat is SCAN:
        shots = [_with_depth(shot, folder / _DEPTH / shot.image.name) for shot in shots]
    return scene_of(
        name, folder, shots, views=views, metric=True, ordered=False, K_source=there[0].model, caveats=(caveat,)
    )


def _with_depth(shot: Shot, file: Path) -> Shot:
    """With the map in ``file``; a photograph that the scan's registration left out has none."""
    return dataclasses.replace(shot, depth=functools.partial(_depth, file, shot)) if file.is_file() else shot


def _depth(file: Path, shot: Shot) -> Float[np.ndarray, "h w"]:
    """z of the pinhole image."""
    assert shot.stored_size is not None  # every model states it
    width, height = shot.stored_size
    if file.stat().st_size != 4 * width * height:
        raise UserError(
            f"{file}: has {file.stat().st_size} bytes, not the 4 x {width} x {height} of a raw float32 map; restore it"
        )
    stored = np.fromfile(file, dtype="<f4")
    depth = known(stored.reshape(height, width), file)
    return depth if shot.rectification is None else shot.rectification.values(depth)
