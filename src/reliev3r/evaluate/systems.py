"""Systems by name: what stands on the command line becomes a reconstruction, and several become one table."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch

from reliev3r.baselines.colmap import reconstruct_colmap
from reliev3r.data.capture import Capture, load_capture
from reliev3r.errors import UserError
from reliev3r.evaluate.protocol import evaluate_reconstruction
from reliev3r.evaluate.report import Table, make_row
from reliev3r.evaluate.scores import Protocol
from reliev3r.geometry.camera import K_of_crop_resize, ray_map
from reliev3r.reconstruction import Reconstruction
from reliev3r.types import Prediction

KNOWN = "known are fit:RUN, fit:RUN@refined and colmap"
_THUMBNAIL = 64
"""Long side of the images that a cameras-only system carries along."""


def system_from_spec(
    spec: str, capture_root: Path | str, *, names: Sequence[str] | None = None, views: int | None = None
) -> Reconstruction:
    """The reconstruction that ``spec`` names: ``fit:RUN``, ``fit:RUN@refined`` or ``colmap``.

    ``fit:`` reads what the run predicted (its own frames). ``colmap`` runs on the capture's images, on the frames
    ``names`` or else on ``views`` evenly spaced ones.

    Raises:
        UserError: an unknown name, a run without the reconstruction asked for, or images without intrinsics.
    """
    kind, _, argument = spec.partition(":")
    if kind == "fit" and argument:
        return _of_run(argument)
    if spec == "colmap":
        capture = load_capture(capture_root, views=None if names is not None else views)
        return _of_colmap(capture if names is None else _only(capture, names))
    raise UserError(f"unknown system '{spec}'; {KNOWN}")


def evaluate_systems(
    specs: Sequence[str],
    capture_root: Path | str,
    protocol: Protocol = "strict",
    *,
    views: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Table:
    """Score several systems on one capture. Those that must first be run get the frames of the first ``fit:``.

    Raises:
        UserError: see :func:`system_from_spec` and ``protocol.evaluate_reconstruction``.
    """
    if not specs:
        raise UserError(f"name at least one system to evaluate; {KNOWN}")
    ready = {spec: system_from_spec(spec, capture_root) for spec in specs if spec.startswith("fit:")}
    names = next((system.names for system in ready.values()), None)
    rows = []
    for index, spec in enumerate(specs):
        if progress is not None:
            progress(index, len(specs), spec)
        system = ready.get(spec) or system_from_spec(spec, capture_root, names=names, views=views)
        rows.append(make_row(spec, system, evaluate_reconstruction(system, capture_root, protocol)))
    return Table(protocol=protocol, capture=str(capture_root), rows=tuple(rows))


def _of_run(argument: str) -> Reconstruction:
    refined = argument.endswith("@refined")
    run = Path(argument.removesuffix("@refined"))
    if not run.is_dir():
        raise UserError(f"{run}: no such run; make one with `reliev3r fit CAPTURE --out {run}`")
    folder = run / ("refined" if refined else "prediction")
    if not (folder / "prediction.json").is_file():
        remedy = "fit with --refine (its log says if it was rejected)" if refined else "finish the run with --resume"
        raise UserError(f"{run}: holds no {'refined' if refined else 'predicted'} reconstruction; {remedy}")
    return Reconstruction.load(folder)


def _only(capture: Capture, names: Sequence[str]) -> Capture:
    """The capture restricted to the frames ``names``, in that order."""
    frames = {frame.name: frame for frame in capture.frames}
    missing = [name for name in names if name not in frames]
    if missing:
        raise UserError(f"{capture.root}: has no frame '{missing[0]}'; name the capture that the run was made from")
    return dataclasses.replace(capture, frames=tuple(frames[name] for name in names))


def _of_colmap(capture: Capture) -> Reconstruction:
    for frame in capture.frames:
        if frame.K is None:
            raise UserError(f"{frame.path}: colmap is compared with known intrinsics; give them in cameras.json")
    start = time.monotonic()
    K = torch.stack([torch.as_tensor(frame.K, dtype=torch.float64) for frame in capture.frames])
    world_from_cam, registered = reconstruct_colmap(capture, K)
    seconds = time.monotonic() - start

    first = capture.frames[0]
    shrink = _THUMBNAIL / max(first.width, first.height)
    height, width = max(1, round(first.height * shrink)), max(1, round(first.width * shrink))
    images = [cv2.resize(capture.image(i), (width, height), interpolation=cv2.INTER_AREA) for i in range(len(K))]
    small_K = [
        K_of_crop_resize(k, offset=(0.0, 0.0), scale=(width / frame.width, height / frame.height))
        for k, frame in zip(K, capture.frames)
    ]
    rays = ray_map(torch.stack(small_K), height, width).float()
    ones = torch.ones(rays.shape[:-1])
    return Reconstruction(
        prediction=Prediction(depth=ones, rays=rays, conf=ones, world_from_cam=world_from_cam.float()),
        names=tuple(frame.name for frame in capture.frames),
        image_files=tuple(frame.file for frame in capture.frames),
        image=torch.stack([torch.from_numpy(image) for image in images]),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames),
        regions=torch.tensor([[0.0, 0.0, frame.width, frame.height] for frame in capture.frames]),
        found=registered,
        predicts_depth=False,
        meta={"system": "colmap", "seconds": round(seconds, 1), "intrinsics": "known"},
    )
