"""COLMAP's dense workspaces: ``images/``, ``sparse/`` (pinholes), ``stereo/depth_maps/NAME.geometric.bin``.

A map's file is "WIDTH&HEIGHT&1&" and float32 rows from the top; 0 is unknown. Depth is z in the unit of the model.
Only maps that were checked against their neighbours (geometric) are read.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.data.depth_truth.stored import StoredDepth, StoredScene
from reliev3r.data.readers._depth import known
from reliev3r.data.readers._layout import existing
from reliev3r.data.readers.colmap import pose_of, read_model

PLACES = (".", "dense", "dense/0")
"""Where a workspace lies in a scene's folder; the first that is there."""


def read_scene(folder: Path) -> StoredScene:
    """The maps of the workspace in ``folder``.

    Raises:
        UserError: no workspace, no geometric maps, a damaged model, or a lens that is no pinhole.
    """
    places = (folder / place for place in PLACES)
    workspace = next((place for place in places if (place / "stereo" / "depth_maps").is_dir()), None)
    if workspace is None:
        raise UserError(f"{folder}: has no stereo/depth_maps; run COLMAP's patch_match_stereo, or give another folder")
    sparse = workspace / "sparse"
    model = read_model(sparse / "0" if (sparse / "0").is_dir() else sparse)
    frames = {}
    for image in model.images.values():
        file = workspace / "stereo" / "depth_maps" / f"{image.name}.geometric.bin"
        if not image.has_pose or not file.is_file():
            continue
        camera = model.cameras[image.camera_id]
        if camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
            raise UserError(f"{sparse}: a lens is {camera.model.name}; depth maps belong to COLMAP's undistorted model")
        frames[Path(image.name).stem] = StoredDepth(
            K=np.array(camera.calibration_matrix(), np.float64),
            size=(camera.width, camera.height),
            world_from_cam=pose_of(image, f"{sparse}: image {image.name}"),
            read=functools.partial(read_map, file),
        )
    if not frames:
        raise UserError(f"{workspace / 'stereo' / 'depth_maps'}: has no *.geometric.bin of an image of the model")
    caveat = "depth: COLMAP's dense stereo (geometric), with holes where nothing matched"
    return StoredScene(folder=workspace, frames=frames, caveats=(caveat,))


def read_map(file: Path) -> Float[np.ndarray, "h w"]:
    """A depth map of COLMAP's, float32, 0 where unknown.

    Raises:
        UserError: missing, damaged or truncated.
    """
    content = existing(file).read_bytes()
    header = re.match(rb"(\d+)&(\d+)&1&", content)
    if header is None or len(content) - header.end() != 4 * int(header[1]) * int(header[2]):
        raise UserError(f"{file}: not a whole depth map of COLMAP's; run patch_match_stereo again")
    return known(np.frombuffer(content, "<f4", offset=header.end()).reshape(int(header[2]), int(header[1])), file)
