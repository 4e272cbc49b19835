"""Bundle adjustment of cameras on tracks with pycolmap, from approximate cameras, tolerating false tracks.

For what a network predicted (``sfm.refine``): slow, and as good as the tracks are, the focal length included. Cameras
that are solved to train on are adjusted by ``sfm.bundle_torch`` (few views), in COLMAP's mapper (``sfm.mapper``, many
views) or by ``sfm.bundle_batched`` (many small samples).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.quiet_colmap import quiet_colmap
from reliev3r.core.types import Tracks
from reliev3r.geometry.align import align_cameras
from reliev3r.geometry.radial import undistorted
from reliev3r.geometry.rigid import invert, rigid_from
from reliev3r.sfm.held_views import FLOOR_ANGLE, NotAdjusted, confirmed, median_angle, usable_observations


@dataclass(frozen=True)
class _Stage:
    """How long the rounds of a stage adjust, and when they hand over."""

    iterations: int
    loss_scale: float
    """Of the Cauchy loss, as a multiple of the median residual."""
    gain: float
    """The stage ends when a round leaves more than this of the best median residual."""


_STAGES = (_Stage(iterations=2, loss_scale=1.0, gain=0.9), _Stage(iterations=100, loss_scale=3.0, gain=0.99))
"""Points that wrong cameras triangulate are wrong too: adjusting long on them ends in wrong minima, so first a few
steps at a time under a strict loss; outliers are mostly gone when the fine stage takes its statistically better one."""
_MIN_ROUNDS, _MAX_ROUNDS = 2, 12
"""Of a stage. The first round from a poor start may raise the median residual and still lead to the solution."""
_UNKNOWN = 1e6
"""Variance of a lens that no adjusted view shows, or that the residuals do not determine at all."""
_MOST_RADIAL = 0.5
"""Lenses without a fisheye's name bend less."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Adjusted cameras with the points and observations that they explain."""

    world_from_cam: Float[Tensor, "v 4 4"]
    """In the gauge of the cameras that came in."""
    K: Float[Tensor, "v 3 3"]
    radial: Float[Tensor, " v"]
    """k1 of each view's lens (``geometry.radial``); 0 for a pinhole."""
    points: Float[Tensor, "m 3"]
    kept: Bool[Tensor, "v m"]
    adjusted: Bool[Tensor, " v"]
    """False for views with too few consistent observations: they follow the nearest adjusted view rigidly."""
    lens_covariance: Float[Tensor, "v 2 2"] | None = None
    """Of (logarithm of the focal length, k1) of each view's lens, everything else free to follow: a deviation of one
    such standard deviation doubles the sum of squared residuals. 0 for what was fixed; None where nothing was free."""


def adjust_bundle(
    tracks: Tracks,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    sizes: Sequence[tuple[int, int]],
    *,
    camera_of: Sequence[int] | None = None,
    free_focal: bool = False,
    free_radial: bool = False,
    radial: Float[Tensor, " v"] | None = None,
    near: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Alternate triangulation, outlier filter and bundle adjustment (Cauchy loss) until the residuals stop falling.

    Only what is :func:`~reliev3r.sfm.held_views.confirmed` is adjusted on; ``points`` and ``kept`` are of all tracks.
    Every round triangulates anew and keeps what is within a few medians of the residual angle, so the
    filter tightens by itself as the cameras improve and takes tracks back in that have become consistent. Starts may
    be off by several degrees. ``tracks`` in original pixels of images of ``sizes`` (width, height). Each connected part
    of the track graph is brought back to the incoming cameras by a similarity of its own.

    Intrinsics are fixed, unless ``camera_of`` says for each view which view's intrinsics it shares (fx = fy): with
    ``free_focal`` one focal length a camera is adjusted, with ``free_radial`` k1; ``radial`` is what it starts from, or
    stays. Cameras that are ``near`` the solution already are spared the coarse rounds. ``progress`` hears of each
    round, of as many as there can be.

    Raises:
        NotAdjusted: too few consistent tracks, a solver failure, or a focal length or distortion that runs away.
    """
    K, reference = K.double(), world_from_cam.double()
    radial = torch.zeros(len(K), dtype=torch.float64) if radial is None else radial.double()
    if camera_of is not None:
        K = shared_focal(K, camera_of)
    problem = _Problem(
        tracks=confirmed(tracks), sizes=tuple(sizes), camera_of=tuple(camera_of or range(len(sizes))), focal=free_focal,
        radial=free_radial, square_pixels=camera_of is not None, reference=reference,
    )  # fmt: skip
    best = _State(median_angle(undistorted(problem.tracks, K, radial), K, reference), reference, K, radial)
    stages = _STAGES[-1:] if near else _STAGES
    for number, stage in enumerate(stages):
        current = best
        for done in range(_MAX_ROUNDS):
            current = _round(problem, current, stage)
            stalled = current.pixels > stage.gain * best.pixels
            if current.pixels < 1.01 * best.pixels:  # of equals the later one has converged further
                best = current
            if progress is not None:
                told = f"adjusting: {current.pixels:.2f} pixels"
                progress(number * _MAX_ROUNDS + done + 1, len(stages) * _MAX_ROUNDS, told)
            if stalled and done + 1 >= _MIN_ROUNDS:
                break
    if not ((best.K[:, 0, 0] / K[:, 0, 0]).log().abs() < math.log(2)).all():
        raise NotAdjusted("the focal length ran away (it changed by more than a factor of two)")
    if not (best.radial.abs() < _MOST_RADIAL).all():
        raise NotAdjusted("the distortion of the lens ran away")
    straight = undistorted(tracks, best.K, best.radial)
    residual = median_angle(straight, best.K, best.cameras)
    points, kept, _ = usable_observations(straight, best.K, best.cameras, residual)
    return Bundle(
        world_from_cam=best.cameras, K=best.K, radial=best.radial, points=points, kept=kept, adjusted=kept.any(1),
        lens_covariance=best.covariance,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What stays the same over the rounds."""

    tracks: Tracks
    sizes: tuple[tuple[int, int], ...]
    camera_of: tuple[int, ...]
    focal: bool
    radial: bool
    square_pixels: bool
    reference: Tensor


@dataclass(frozen=True)
class _State:
    """What a round makes better."""

    residual: float
    """Median angle."""
    cameras: Tensor
    K: Tensor
    radial: Tensor
    covariance: Tensor | None = None
    """As ``Bundle.lens_covariance``."""

    @property
    def pixels(self) -> float:
        """The same in pixels: longer lenses have smaller angles and are no better for it."""
        return self.residual * float(self.K[:, 0, 0].mean())


def _round(problem: _Problem, state: _State, stage: _Stage) -> _State:
    """After one more triangulation, filter and adjustment."""
    K, cameras = state.K, state.cameras
    points, kept, parts = usable_observations(undistorted(problem.tracks, K, state.radial), K, cameras, state.residual)
    model = build_model(
        [str(view) for view in range(len(cameras))],
        problem.sizes,
        K,
        cameras,
        problem.tracks,
        points,
        kept,
        camera_of=problem.camera_of,
        square_pixels=problem.square_pixels,
        radial={
            camera: float(state.radial[camera])
            for camera in set(problem.camera_of)
            if problem.radial or state.radial[camera] != 0
        },
    )
    loss_scale_px = stage.loss_scale * max(state.residual, FLOOR_ANGLE / 4) * float(K[:, 0, 0].mean())
    covariance = _solve(model, parts, problem, loss_scale_px=loss_scale_px, iterations=stage.iterations)
    cameras, K, radial = _read(model, K, problem)
    cameras = _in_gauge(cameras, problem.reference, parts)
    residual = median_angle(undistorted(problem.tracks, K, radial), K, cameras)
    return _State(residual, cameras, K, radial, covariance)


def shared_focal(K: Float[Tensor, "v 3 3"], camera_of: Sequence[int]) -> Float[Tensor, "v 3 3"]:
    """Intrinsics with one focal length and principal point for all views that share a camera: their medians."""
    index = torch.tensor(list(camera_of))
    shared = K.clone()
    for camera in set(camera_of):
        members = K[index == camera]
        shared[index == camera] = members.median(0).values
        shared[index == camera, 0, 0] = shared[index == camera, 1, 1] = members[:, [0, 1], [0, 1]].median()
    return shared


def _solve(
    model: Any, parts: list[list[int]], problem: _Problem, *, loss_scale_px: float, iterations: int
) -> Tensor | None:
    """Adjust the poses (and what is free of the lenses) of the views that belong to a part, in place.

    Returns the covariance of the lenses, where they are free.
    """
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=problem.focal, refine_principal_point=False, refine_extra_params=problem.radial,
        print_summary=False,
    )  # fmt: skip
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale_px
    free = problem.focal or problem.radial  # the valley between focal length and distance is flat and long
    options.ceres.solver_options.function_tolerance = 1e-9 if free else 1e-6
    options.ceres.solver_options.max_num_iterations = iterations
    config = pycolmap.BundleAdjustmentConfig()
    for view in sorted(view for part in parts for view in part):
        config.add_image(view + 1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    with quiet_colmap():  # else a warning for every rejected step
        adjuster: Any = pycolmap.create_default_ceres_bundle_adjuster(options, config, model)
        summary = adjuster.solve()
        if not summary.is_solution_usable():
            raise NotAdjusted(f"the solver failed ({summary.brief_report()})")
        return _lens_covariance(model, adjuster, problem, 2 * summary.ceres_summary.final_cost) if free else None


def _lens_covariance(model: Any, adjuster: Any, problem: _Problem, squares: float) -> Tensor:
    """As ``Bundle.lens_covariance``, of a problem whose residuals' squares sum up to ``squares``."""
    import pycolmap

    found = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model, adjuster)
    covariance = torch.zeros(len(problem.sizes), 2, 2, dtype=torch.float64)
    for view, camera in enumerate(problem.camera_of):
        params = model.camera(camera + 1).params  # (focal, cx, cy[, k1])
        free = torch.tensor([problem.focal, problem.radial]).nonzero()[:, 0]
        unit = torch.tensor([1 / params[0], 1.0], dtype=torch.float64)[free]
        own = None if found is None else found.get_other_params_cov(params)
        block = _UNKNOWN * torch.eye(len(free)).double() if own is None else squares * torch.from_numpy(own)
        covariance[view].index_put_((free[:, None], free), unit[:, None] * block * unit)
    return covariance


def _read(model: Any, K: Tensor, problem: _Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Cameras, intrinsics and k1 of a solved model."""
    cam_from_world = [model.image(view + 1).cam_from_world().matrix() for view in range(len(K))]
    matrices = torch.stack([torch.from_numpy(matrix) for matrix in cam_from_world])
    lenses = [model.camera(camera + 1) for camera in problem.camera_of]
    K = K.clone()
    if problem.focal:
        K[:, 0, 0] = K[:, 1, 1] = torch.tensor([lens.focal_length for lens in lenses], dtype=K.dtype)
    k1 = [float(lens.params[-1]) if lens.model_name == "SIMPLE_RADIAL" else 0.0 for lens in lenses]
    return invert(rigid_from(matrices[:, :, :3], matrices[:, :, 3])), K, torch.tensor(k1, dtype=K.dtype)


def _in_gauge(world_from_cam: Tensor, reference: Tensor, parts: list[list[int]]) -> Tensor:
    """Each part moved onto the reference by a similarity; left-out views put where their neighbour's motion takes them.

    The similarity takes its rotation from the cameras' rotations, so that cameras along a line are no special case.
    """
    moved = reference.clone()
    left_out = torch.ones(len(reference), dtype=torch.bool)
    for members in parts:
        left_out[members] = False
        scale, rotation, translation = align_cameras(world_from_cam[members], reference[members])
        moved[members, :3, :3] = rotation @ world_from_cam[members, :3, :3]
        moved[members, :3, 3] = scale * world_from_cam[members, :3, 3] @ rotation.T + translation
    adjusted = (~left_out).nonzero()[:, 0]
    for view in left_out.nonzero()[:, 0]:
        distance = (reference[adjusted, :3, 3] - reference[view, :3, 3]).norm(dim=-1)
        neighbour = adjusted[distance.argmin()]
        moved[view] = moved[neighbour] @ invert(reference[neighbour]) @ reference[view]
    return moved


def build_model(
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    tracks: Tracks,
    points: Float[Tensor, "m 3"],
    kept: Bool[Tensor, "v m"],
    *,
    camera_of: Sequence[int],
    colours: UInt8[Tensor, "m 3"] | None = None,
    square_pixels: bool = False,
    radial: Mapping[int, float] | None = None,
) -> Any:
    """A ``pycolmap.Reconstruction``; image ids are view + 1, camera ids ``camera_of[view]`` + 1, point ids track + 1.

    Our pixels and axes are COLMAP's; only the direction of the pose differs (COLMAP stores cam_from_world).
    ``camera_of`` is the view whose intrinsics a view uses. ``square_pixels`` makes the cameras SIMPLE_PINHOLE with
    fx = fy, else they are PINHOLE; cameras that ``radial`` gives a k1 are SIMPLE_RADIAL.
    """
    import pycolmap

    model = pycolmap.Reconstruction()
    cam_from_world = invert(world_from_cam.double()).numpy()
    visible = tracks.visible
    slot = visible.long().cumsum(1) - 1  # index of a track's observation among the 2D points of its image
    for view, (name, (width, height)) in enumerate(zip(names, sizes, strict=True)):
        camera_id = camera_of[view] + 1
        if not model.exists_camera(camera_id):
            fx, fy, cx, cy = (K[view, row, column].item() for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
            kind, params = ("SIMPLE_PINHOLE", [fx, cx, cy]) if square_pixels else ("PINHOLE", [fx, fy, cx, cy])
            if radial and camera_of[view] in radial:
                kind, params = "SIMPLE_RADIAL", [fx, cx, cy, radial[camera_of[view]]]
            camera = pycolmap.Camera(camera_id=camera_id, model=kind, width=width, height=height, params=params)
            model.add_camera_with_trivial_rig(camera)
        keypoints = tracks.uv[view, visible[view]].double().numpy()
        image = pycolmap.Image(name=name, keypoints=keypoints, camera_id=camera_id, image_id=view + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(cam_from_world[view, :3]))
    for track in kept.any(0).nonzero()[:, 0].tolist():
        views = kept[:, track].nonzero()[:, 0].tolist()
        elements = [pycolmap.TrackElement(view + 1, slot[view, track].item()) for view in views]
        point = pycolmap.Point3D(xyz=points[track].double().numpy(), track=pycolmap.Track(elements))
        if colours is not None:
            point.color = colours[track].numpy()
        model.add_point3D_with_id(track + 1, point)
    return model


def shared_cameras(
    K: Float[Tensor, "v 3 3"], sizes: Sequence[tuple[int, int]], *, tolerance_px: float = 0.01
) -> list[int]:
    """For each view the first view of the same size with the same intrinsics (float32 rays blur them a little)."""

    def same(a: int, b: int) -> bool:
        return sizes[a] == sizes[b] and bool((K[a] - K[b]).abs().max() < tolerance_px)

    return [next(other for other in range(view + 1) if same(view, other)) for view in range(len(sizes))]
