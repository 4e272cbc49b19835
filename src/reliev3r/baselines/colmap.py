"""COLMAP's structure from motion, incremental or global, through pycolmap: what people pick instead. Cameras only."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.quiet_colmap import quiet_colmap
from reliev3r.data.capture import Capture

if TYPE_CHECKING:
    import pycolmap

_log = logging.getLogger(__name__)


_DATABASE = 4_000_000
"""Bytes that an image's features and matches take in COLMAP's database, at the most."""
Mapper = Literal["incremental", "global"]
SYSTEMS: dict[str, Mapper] = {"colmap": "incremental", "colmap-global": "global"}
"""Names of systems and what maps in them."""


def reconstruct_colmap(
    capture: Capture, K: Float[Tensor, "v 3 3"], *, mapper: Mapper = "incremental", threads: int = 1
) -> tuple[Float[Tensor, "v 4 4"], Bool[Tensor, " v"]]:
    """world_from_cam of all frames (identity where not registered) and which frames were registered.

    SIFT, exhaustive matching and incremental or global mapping (GLOMAP; Pan et al. 2024) with COLMAP's defaults, on the
    upright images; the intrinsics ``K`` (original pixels, corner convention, which is COLMAP's own) stay fixed. If
    COLMAP splits the images into several models, the largest one counts. float64, seeded.

    Raises:
        UserError: the disk of temporary files has no room for COLMAP's copies and database.
    """
    import pycolmap

    pycolmap.set_random_seed(0)
    with quiet_colmap(), tempfile.TemporaryDirectory(prefix="reliev3r-colmap-") as folder:
        _refuse_full_disk(Path(folder), capture)
        images, database, models = Path(folder) / "images", Path(folder) / "database.db", Path(folder) / "models"
        images.mkdir()
        models.mkdir()
        names = [f"{index:05d}.png" for index in range(len(capture.frames))]
        for index, name in enumerate(names):
            cv2.imwrite(str(images / name), cv2.cvtColor(capture.image(index), cv2.COLOR_RGB2BGR))
        _match(database, images, K, names, threads)
        if mapper == "global":
            found = pycolmap.global_mapping(database, images, models, _global_options(threads))
        else:
            found = pycolmap.incremental_mapping(database, images, models, _incremental_options(threads))
        world_from_cam = torch.eye(4, dtype=torch.float64).repeat(len(names), 1, 1)
        registered = torch.zeros(len(names), dtype=torch.bool)
        if found:
            model = max(found.values(), key=lambda model: model.num_reg_images())
            for image in model.images.values():
                if image.has_pose:
                    index = names.index(image.name)
                    world_from_cam[index, :3] = torch.from_numpy(image.cam_from_world().inverse().matrix())
                    registered[index] = True
    _log.info("COLMAP registered %d of %d images", int(registered.sum()), len(names))
    return world_from_cam, registered


def _refuse_full_disk(folder: Path, capture: Capture) -> None:
    """COLMAP's own threads end the whole process where its database cannot grow, so that nobody could tell why."""
    wanted = sum(3 * frame.width * frame.height + _DATABASE for frame in capture.frames)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(wanted)  # fails where a file may not be so large
        room = shutil.disk_usage(folder).free
    except OSError:
        room = 0
    if room < wanted:
        raise UserError(
            f"{folder.parent}: COLMAP may need {wanted / 1e6:.0f} MB of temporary files; make room, or let TMPDIR name "
            "another folder"
        )


def _match(database: Path, images: Path, K: Tensor, names: list[str], threads: int) -> None:
    """Features, intrinsics and verified matches into COLMAP's database."""
    import pycolmap

    extraction, matching = pycolmap.FeatureExtractionOptions(), pycolmap.FeatureMatchingOptions()
    extraction.use_gpu = matching.use_gpu = False
    extraction.num_threads = matching.num_threads = threads
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "PINHOLE"
    pycolmap.extract_features(
        database, images, names, pycolmap.CameraMode.PER_IMAGE, reader, extraction, pycolmap.Device.cpu
    )
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            camera = opened.read_camera(image.camera_id)
            k = K[names.index(image.name)].double()
            camera.params = [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])]
            camera.has_prior_focal_length = True
            opened.update_camera(camera)
    pycolmap.match_exhaustive(database, matching, device=pycolmap.Device.cpu)


def _incremental_options(threads: int) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's defaults with fixed intrinsics; small models are kept."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = threads
    options.random_seed = 0
    options.min_model_size = 2
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    options.extract_colors = False
    return options


def _global_options(threads: int) -> pycolmap.GlobalPipelineOptions:
    """COLMAP's defaults on the CPU with fixed intrinsics; small models are kept."""
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = options.mapper.num_threads = threads
    options.min_model_size = 2
    mapper = options.mapper
    for seeded in (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation):
        seeded.random_seed = 0
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    mapper.bundle_adjustment.refine_focal_length = mapper.bundle_adjustment.refine_principal_point = False
    mapper.bundle_adjustment.refine_extra_params = False
    return options
