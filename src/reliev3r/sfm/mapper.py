"""Cameras of many views by COLMAP's incremental mapper (Schoenberger & Frahm 2016), on tracks of our own.

No image is read and no feature found: a database in memory gets the rays of the tracks as keypoints of one camera, and
what two views share as their verified matches. Known intrinsics, one thread, fixed seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.quiet_colmap import quiet_colmap
from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.sfm.camera_solve import CameraSolve, SolveConfig, growing_tracks, solve_under
from reliev3r.sfm.seed_pairs import can_start

if TYPE_CHECKING:
    import pycolmap

_INLIER_PIXELS = 4.0
"""COLMAP's own threshold of an observation that counts: the focal length is chosen so that it is ours."""
_GROWTH = 2.0
"""All is adjusted whenever views or points have become so many times more; in between only what is near a new view."""
_NEAR = 4
"""So many views are adjusted with a new one."""


def solve_by_mapper(
    tracks: Tracks, K: Float[Tensor, "v 3 3"], config: SolveConfig, progress: Progress | None = None
) -> CameraSolve | None:
    """As :func:`~reliev3r.sfm.solve_cameras.solve_cameras`: the largest model of those that the mapper makes."""
    import pycolmap

    grown = growing_tracks(tracks, config)
    if not can_start(grown, K, config):  # COLMAP would try for minutes
        return None
    models = pycolmap.ReconstructionManager()
    with quiet_colmap():
        database = _database(grown, K, config)
        pipeline = pycolmap.IncrementalPipeline(_options(config), database, models)
        if progress is not None:
            _report_views(pipeline, len(K), progress)
        pipeline.run()
    found = [models.get(index) for index in range(models.size())]
    if not found:
        return None
    cameras, reached = _cameras(max(found, key=lambda model: model.compute_num_observations()), len(K))
    return solve_under(cameras, reached, tracks, K, config)


def _report_views(pipeline: pycolmap.IncrementalPipeline, views: int, progress: Progress) -> None:
    """How many views the model at work has; another one begins anew with two."""
    from pycolmap import IncrementalPipelineCallback as Callback

    placed = 0

    def begun() -> None:
        nonlocal placed
        placed = 2
        progress(placed, views, "cameras placed")

    def one_more() -> None:
        nonlocal placed
        placed = min(placed + 1, views)
        progress(placed, views, "cameras placed")

    pipeline.add_callback(int(Callback.INITIAL_IMAGE_PAIR_REG_CALLBACK), begun)
    pipeline.add_callback(int(Callback.NEXT_IMAGE_REG_CALLBACK), one_more)


def _database(tracks: Tracks, K: Tensor, config: SolveConfig) -> pycolmap.Database:
    """All views as images of one camera; image ids are view + 1."""
    import pycolmap

    seen = tracks.visible.numpy()
    focal = _INLIER_PIXELS / config.inlier_angle
    uv = focal * rays_from_uv(tracks.uv.double(), K.double())[..., :2].numpy()
    middle = np.ceil(np.abs(uv[seen]).max(initial=1.0))
    size = int(2 * middle)
    database = pycolmap.Database.open(":memory:")
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_PINHOLE", width=size, height=size, params=[focal, middle, middle]
    )
    camera.has_prior_focal_length = True
    database.write_camera(camera, use_camera_id=True)
    for view, own in enumerate(seen):
        image = pycolmap.Image(name=f"{view:06d}", camera_id=1, image_id=view + 1)
        database.write_image(image, use_image_id=True)
        database.write_keypoints(view + 1, (uv[view, own] + middle).astype(np.float32))
    slot = np.cumsum(seen, axis=1) - 1
    shared = seen.astype(np.float32) @ seen.T.astype(np.float32)
    for first, second in zip(*np.nonzero(np.triu(shared, 1) >= config.min_resection), strict=True):
        both = seen[first] & seen[second]
        matches = np.stack([slot[first, both], slot[second, both]], axis=1).astype(np.uint32)
        verified = pycolmap.TwoViewGeometry(
            config=pycolmap.TwoViewGeometryConfiguration.CALIBRATED, inlier_matches=matches
        )
        database.write_two_view_geometry(int(first) + 1, int(second) + 1, verified)
    return database


def _options(config: SolveConfig) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's defaults, but for small captures and sparse tracks."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = 1
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.extract_colors = False
    options.min_model_size = 2
    options.min_num_matches = config.min_resection
    options.max_num_models = config.seeds
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    options.ba_global_frames_ratio = options.ba_global_points_ratio = _GROWTH
    options.ba_global_max_refinements = 2
    options.mapper.ba_local_num_images = _NEAR
    options.mapper.abs_pose_min_num_inliers = config.min_resection
    return options


def _cameras(model: pycolmap.Reconstruction, views: int) -> tuple[Float[Tensor, "v 4 4"], Bool[Tensor, " v"]]:
    """world_from_cam (identity where there is none) and which views have one."""
    cameras = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    reached = torch.zeros(views, dtype=torch.bool)
    for image in model.images.values():
        if image.has_pose:
            cameras[image.image_id - 1, :3] = torch.from_numpy(image.cam_from_world().inverse().matrix())
            reached[image.image_id - 1] = True
    return cameras, reached
