"""One call to write a reconstruction in the format that a path's suffix names."""

from __future__ import annotations

from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.export.cameras import write_cameras
from reliev3r.export.colmap import write_colmap
from reliev3r.export.glb import write_glb
from reliev3r.export.maps import write_maps
from reliev3r.export.nerfstudio import write_transforms
from reliev3r.export.npz import write_npz
from reliev3r.export.ply import write_ply
from reliev3r.reconstruction import Reconstruction
from reliev3r.types import Tracks

FOLDER_CONTENTS = ("cameras.json", "transforms.json", "scene.ply", "scene.glb", "scene.npz", "maps", "sparse/0")
"""What a folder export writes."""


def export_reconstruction(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    path: Path | str,
    *,
    overwrite: bool = False,
    capture: Path | str | None = None,
    keep: float = 0.8,
) -> list[Path]:
    """Write one file, or all formats into a folder, and return what was written.

    The suffix decides: ``.ply``, ``.glb``, ``.npz``, ``.json`` (``transforms.json`` is nerfstudio's, any other name
    ours), none: a folder with all of them, ``maps/`` and a COLMAP model in ``sparse/0``. ``tracks`` [v, m] in original
    pixels give the COLMAP model its points; ``capture`` lets nerfstudio find the images; ``keep`` is the share of
    pixels in the point clouds.

    Raises:
        UserError: unknown suffix, or a file that exists already and ``overwrite`` is off.
    """
    path = Path(path)
    if path.suffix not in ("", ".ply", ".glb", ".npz", ".json"):
        raise UserError(f"{path}: unknown format {path.suffix!r}; use .ply, .glb, .npz, .json or a folder")
    targets = [path] if path.suffix else [path / name for name in FOLDER_CONTENTS]
    if not path.suffix and path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, not a folder; choose another name or a suffix")
    for target in targets:
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; choose another name or allow overwriting")
    reconstruction, tracks = _found_views(reconstruction, tracks)
    points = None if path.suffix else "scene.ply"
    for target in targets:
        _write(reconstruction, tracks, target, capture=capture, keep=keep, points=points)
    return targets


def _write(
    reconstruction: Reconstruction,
    tracks: Tracks | None,
    target: Path,
    *,
    capture: Path | str | None,
    keep: float,
    points: str | None,
) -> None:
    if target.suffix == ".ply":
        write_ply(reconstruction, target, keep=keep)
    elif target.suffix == ".glb":
        write_glb(reconstruction, target, keep=keep)
    elif target.suffix == ".npz":
        write_npz(reconstruction, target)
    elif target.name == "transforms.json":
        write_transforms(reconstruction, target, capture=capture, points=points)
    elif target.suffix == ".json":
        write_cameras(reconstruction, target)
    elif target.name == "maps":
        write_maps(reconstruction, target)
    else:
        write_colmap(reconstruction, tracks, target)
