"""ScanNet++: undistorted DSLR images, COLMAP poses in the frame of the laser scan's mesh, depth rendered from the mesh.

K is that of ``transforms_undistorted.json`` (pixel corners). Its poses are in another world than COLMAP's, which are
taken because the mesh lies in theirs. Frames that the dataset calls bad are left out.
"""

from __future__ import annotations

import functools
from pathlib import Path

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.data.readers._layout import Layout
from reliev3r.data.readers._mesh import depth_of_mesh
from reliev3r.data.readers._scene import Shot, scene_of
from reliev3r.data.readers.colmap import find_model, pose_of, read_model
from reliev3r.data.readers.nerfstudio import read_shots
from reliev3r.data.truth import Scene

CAMERAS = "dslr/nerfstudio/transforms_undistorted.json"
MESH = "scans/mesh_aligned_0.05.ply"
CAVEATS = (
    "ScanNet++: true depth is rendered from the laser scan's simplified mesh; glass and thin things are missing",
)

_LAYOUT = Layout(is_scene=lambda folder: (folder / "dslr" / "nerfstudio").is_dir())


def recognises(root: Path) -> bool:
    """``dslr/nerfstudio`` in the folder, one below, or below ``data``."""
    return _LAYOUT.recognises(_inner(root))


def scenes(root: Path) -> list[str]:
    """Scene ids."""
    return _LAYOUT.scenes(_inner(root))


def open_scene(root: Path, name: str, views: int | None = None) -> Scene:
    """As :meth:`reliev3r.data.readers.Reader.open` says."""
    folder = _LAYOUT.folder(_inner(root), name)
    images, file, mesh = folder / "dslr" / "resized_undistorted_images", folder / CAMERAS, folder / MESH
    if not file.is_file() or not images.is_dir():
        raise UserError(f"{folder}: needs {CAMERAS} and {images.name}; run the undistortion of ScanNet++'s toolbox")
    if not mesh.is_file():
        raise UserError(f"{mesh}: not found; download the scene's mesh, true depth is rendered from it")
    bad = _bad_frames(file)
    poses = _poses(folder)
    shots = []
    for shot in read_shots(file, lambda path: images / Path(path).name, lists=("frames", "test_frames")):
        if shot.image.name in bad:
            continue
        if shot.rectification is not None or shot.K is None or shot.stored_size is None:
            raise UserError(f"{file}: its lens is not a pinhole; give the file that the undistortion wrote")
        pose = poses.get(shot.image.name)
        if pose is None:
            raise UserError(f"{folder / 'dslr' / 'colmap'}: has no image {shot.image.name}, which {file.name} has")
        depth = functools.partial(depth_of_mesh, mesh, shot.K, pose, shot.stored_size)
        shots.append(
            Shot(
                name=shot.name, image=shot.image, K=shot.K, world_from_cam=pose, depth=depth,
                stored_size=shot.stored_size,
            )
        )  # fmt: skip
    return scene_of(name, folder, shots, views=views, metric=True, ordered=True, K_source=file.name, caveats=CAVEATS)


def _inner(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def _bad_frames(file: Path) -> set[str]:
    """File names of the frames that the dataset marks as blurred or wrongly exposed."""
    content = read_json(file)
    entries = [entry for key in ("frames", "test_frames") for entry in content.get(key) or []]
    return {Path(entry["file_path"]).name for entry in entries if entry.get("is_bad")}


def _poses(folder: Path) -> dict:
    """world_from_cam by the name of the image's file, in the frame of the mesh."""
    place = find_model(folder / "dslr")
    if place is None:
        raise UserError(f"{folder / 'dslr' / 'colmap'}: has no COLMAP model; download it, the mesh lies in its frame")
    model = read_model(place)
    return {Path(i.name).name: pose_of(i, f"{place}: image {i.name}") for i in model.images.values() if i.has_pose}
