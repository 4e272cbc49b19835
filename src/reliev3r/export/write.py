"""What a folder of results holds (the only list of it), and one file of it by the suffix that a path has."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from pathlib import Path

from reliev3r.core.cameras_json import CAMERAS_JSON, is_result
from reliev3r.core.errors import UserError
from reliev3r.core.files import refuse_links_out
from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture
from reliev3r.export.cameras import write_cameras, write_transforms
from reliev3r.export.colmap import write_colmap
from reliev3r.export.finer import finer
from reliev3r.export.images import IMAGES, write_images
from reliev3r.export.maps import write_maps, write_npz
from reliev3r.export.points import write_glb, write_ply
from reliev3r.export.view import write_view

_log = logging.getLogger(__name__)

TRANSFORMS, VIEW = "transforms.json", "view.html"
CAMERA_FILES = (CAMERAS_JSON, TRANSFORMS, "sparse/0", VIEW)
ARRAYS, MAPS = "scene.npz", "depth"
FINE_FILES = ("scene.ply", "scene.glb", MAPS)
DEPTH_FILES = (*FINE_FILES, ARRAYS)
"""What a folder of results holds (docs/conventions.md); the latter only of systems that predict depth. Fine ones are of
maps upsampled by the photographs (:func:`~reliev3r.export.finer.finer`), the others of what was predicted."""


def export_reconstruction(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    path: Path | str,
    *,
    overwrite: bool = False,
    capture: Capture | Path | str | None = None,
    keep: float = 0.8,
    depth_size: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write one file, or all formats into a folder, and return what was written.

    The suffix decides: ``.ply``, ``.glb``, ``.npz``, ``.html`` (to look around in), ``.json`` (``transforms.json`` is
    nerfstudio's, any other name ours), none: a folder as :func:`write_folder` fills it, which explains the rest.
    ``transforms.json`` too has its ``images/`` beside it. ``progress`` hears of the maps.

    Raises:
        UserError: unknown suffix, a file that exists already and ``overwrite`` is off, the cameras of a capture or
            dataset even so, or nothing to write.
    """
    path = Path(path)
    capture = reconstruction.capture if capture is None else capture
    images = () if capture is None else (IMAGES,)
    refuse_taken(path, (*images, *_contents(reconstruction)), overwrite=overwrite)
    if path.suffix in (".ply", ".glb", ".npz") and not reconstruction.predicts_depth:
        raise UserError(f"{path}: this reconstruction has cameras but no depth; export to .json or a folder")
    if not path.suffix:
        return write_folder(
            reconstruction, tracks, path, capture=capture, keep=keep, depth_size=depth_size, progress=progress
        )
    reconstruction, tracks = found_views(reconstruction, tracks)
    located = _images(reconstruction, capture, path.parent) if path.name == TRANSFORMS else None
    if path.suffix in (".ply", ".glb"):
        reconstruction = finer(reconstruction, capture, depth_size, progress)
    _write(reconstruction, tracks, path, images=located, keep=keep)
    return [path]


def refuse_taken(
    path: Path, contents: Collection[str] = (IMAGES, *CAMERA_FILES, *DEPTH_FILES), *, overwrite: bool = False
) -> None:
    """What is wrong with a place to write to, before any work is done for it; ``contents`` are those of a folder.

    Raises:
        UserError: as :func:`export_reconstruction`.
    """
    if path.suffix not in ("", ".ply", ".glb", ".npz", ".html", ".json"):
        raise UserError(f"{path}: unknown format {path.suffix!r}; use .ply, .glb, .npz, .html, .json or a folder")
    if not path.suffix and path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, not a folder; choose another name or a suffix")
    beside = [path.parent / IMAGES] if path.name == TRANSFORMS and IMAGES in contents else []
    for target in [path, *beside] if path.suffix else [path / name for name in contents]:
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; choose another name, or --overwrite (Python: overwrite=True)")
    _refuse_anothers_cameras(path)


def _refuse_anothers_cameras(path: Path) -> None:
    """Results may replace results; the cameras that a capture or a dataset came with are nowhere else."""
    if path.suffix and path.name != CAMERAS_JSON:
        return
    own = path if path.suffix else path / CAMERAS_JSON
    there = [own] if path.suffix else [path / name for name in CAMERA_FILES if name != VIEW]
    found = [file for file in there if file.exists()]
    if found and not (own.is_file() and is_result(own)):
        raise UserError(f"{found[0]}: is not of an earlier result, so that nothing replaces it; choose another folder")


def write_folder(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    folder: Path,
    *,
    capture: Capture | Path | str | None = None,
    keep: float = 0.8,
    without: Collection[str] = (),
    copy_images: bool = False,
    depth_size: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write ``images/``, :data:`CAMERA_FILES` and :data:`DEPTH_FILES` except ``without``, over what is there; returns
    their paths.

    ``tracks`` [v, m] in original pixels give the COLMAP model its points; the photographs are those of ``capture``
    (:func:`~reliev3r.export.images.write_images`), by default of the one that is open, as copies where
    ``copy_images`` says so; ``keep`` is the share of pixels in the point clouds; ``depth_size`` is the long side
    of the maps that :data:`FINE_FILES` show (``progress`` hears of them). Views without a camera are left out.

    Raises:
        UserError: no camera was found, the folder cannot be written, or a link in it leads elsewhere.
    """
    refuse_links_out(folder)
    reconstruction, tracks = found_views(reconstruction, tracks)
    names = [name for name in _contents(reconstruction) if name not in without]
    points = "scene.ply" if "scene.ply" in names else None
    images = _images(reconstruction, capture, folder, copy=copy_images)
    fine = finer(reconstruction, reconstruction.capture if capture is None else capture, depth_size, progress)
    for name in names:
        shown = fine if name in FINE_FILES else reconstruction
        _write(shown, tracks, folder / name, images=images, keep=keep, points=points)
    return [folder / name for name in ([IMAGES] if images else []) + names]


def _images(
    reconstruction: Reconstruction, capture: Capture | Path | str | None, folder: Path, *, copy: bool = False
) -> tuple[str, ...] | None:
    """Where the photographs are, relative to ``folder``; None where nobody says which capture it was."""
    capture = reconstruction.capture if capture is None else capture
    if capture is None:
        _log.warning("%s: without the capture no images/ is written; photographs that EXIF turns do not fit", folder)
        return None
    return write_images(capture, reconstruction.names, folder, copy=copy)


def _contents(reconstruction: Reconstruction) -> tuple[str, ...]:
    return CAMERA_FILES + (DEPTH_FILES if reconstruction.predicts_depth else ())


def found_views(reconstruction: Reconstruction, tracks: Tracks | None) -> tuple[Reconstruction, Tracks | None]:
    """The views with cameras: the others' mean nothing and must not reach other programs."""
    found = reconstruction.prediction.world_from_cam.isfinite().flatten(1).all(1)
    if reconstruction.found is not None:
        found &= reconstruction.found
    if found.all():
        return reconstruction, tracks
    index = found.nonzero()[:, 0].tolist()
    if not index:
        raise UserError("no camera was found, so there is nothing to export")
    return only_views(reconstruction, index), None if tracks is None else tracks.select_views(index)


def only_views(reconstruction: Reconstruction, index: list[int]) -> Reconstruction:
    """Some of its views, all of them with cameras."""
    return dataclasses.replace(
        reconstruction,
        prediction=reconstruction.prediction.select_views(index),
        names=tuple(reconstruction.names[i] for i in index),
        image_files=tuple(reconstruction.image_files[i] for i in index),
        image=reconstruction.image[index],
        sizes=tuple(reconstruction.sizes[i] for i in index),
        regions=reconstruction.regions[index],
        radial=None if reconstruction.radial is None else tuple(reconstruction.radial[i] for i in index),
        found=None,
    )


def _write(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    target: Path,
    *,
    images: tuple[str, ...] | None,
    keep: float,
    points: str | None = None,
) -> None:
    if target.suffix == ".ply":
        write_ply(reconstruction, target, keep=keep)
    elif target.suffix == ".glb":
        write_glb(reconstruction, target, keep=keep)
    elif target.suffix == ".html":
        write_view(reconstruction, target)
    elif target.suffix == ".npz":
        write_npz(reconstruction, target)
    elif target.name == TRANSFORMS:
        write_transforms(reconstruction, target, images=images, points=points)
    elif target.suffix == ".json":
        write_cameras(reconstruction, target, images=images)
    elif target.name == MAPS:
        write_maps(reconstruction, target)
    else:
        write_colmap(reconstruction, tracks, target, images=images)
