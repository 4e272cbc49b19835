"""A capture without training: cameras solved, depth swept, what no match ties left out by name."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from reliev3r.core.device import Precision, resolve_device
from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress, Report, silent, staged
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction, Tracks
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import network_views, uv_in_region
from reliev3r.geometry.camera import fov_from_focal, ray_map
from reliev3r.labels.expert import TrackExpert
from reliev3r.labels.registry import track_expert
from reliev3r.labels.tracks.network import network_tracks
from reliev3r.model.load import PACKAGED, Model, load_model
from reliev3r.model.network import Reliev3R
from reliev3r.model.predict import network_size, predict_depth, reconstruct_capture
from reliev3r.sfm.dense_depth import CONTINUED, SolvedTracks, dense_depth, in_camera_unit, sweep_features
from reliev3r.solve.cameras import CaptureCameras, Group, solve_capture
from reliev3r.solve.loops import loop_pairs

logger = logging.getLogger(__name__)

SWEEP_SIZE = 192
"""Long side in pixels of the images whose depth is swept; it comes out at this size."""
SIFT_ANGLE, NETWORK_ANGLE = 0.004, 0.007
"""Largest residual of an observation that counts, in radians: SIFT sees whole photographs, the network 256 pixels."""


TrackChoice = Literal["auto", "sift", "network"]


def reconstruct_groups(
    capture: Capture,
    model: Model | Path | str = PACKAGED,
    *,
    image_size: int | None = None,
    tracks: TrackChoice = "auto",
    precision: Precision | None = None,
    device: str = "auto",
    report: Report | None = None,
) -> list[Reconstruction]:
    """Reconstructions of a capture, one for each group of views that see something in common; the largest first.

    With a network that solves its cameras (the packaged one): tracks by SIFT and by the network, cameras solved from
    those that explain more, a plane sweep over the network's features, filled by its depth. ``found`` says which views
    a group has; views of no group are named in a warning and in ``meta``. With any other network: one forward pass, or
    overlapping ones of more than a hundred views, joined by what they share (``model.passes``).

    Args:
        capture: its intrinsics are used where they are known, else one focal length is searched for.
        model: a network, or the name of one.
        image_size: of the network's images; by default the one that it was trained with.
        tracks: what cameras are solved from: ``sift``, ``network``, or ``auto``: both, and the one is kept whose
            cameras explain more of the observations of both.
        precision: of a network that gives all in one forward pass; matching and the sweep are in float32.
        device: of a network that is named.
        report: hears of tracks, cameras and depth.

    Raises:
        UserError: bad images or weights, or no two images share enough.
    """
    network = load_model(model) if isinstance(model, Path | str) else model
    if not isinstance(network, Reliev3R) or network.match_branch is None:
        return [
            reconstruct_capture(
                capture, model, image_size=image_size, precision=precision, device=device, loops=loop_pairs(capture)
            )
        ]
    if precision == "bf16":
        logger.warning("precision bf16 has no effect here: a network that solves its cameras matches in float32")
    place = resolve_device(device).type if isinstance(model, Path | str) else next(network.parameters()).device.type
    size = network_size(network, model if isinstance(model, Path | str) else None, image_size)
    network = network.to(place)
    report = report or silent
    cameras = solve_capture(capture, _experts(network, place, tracks), report)
    if cameras is None:
        raise UserError(
            f"{capture.root}: no two images share enough for their cameras to be solved; more images between them, "
            "sharper ones or ones with more texture would help"
        )
    return _Scene(capture, network, cameras, size, staged(report, "depth")).reconstructions()


def _experts(network: Reliev3R, device: str, tracks: TrackChoice) -> list[tuple[str, TrackExpert, float]]:
    """SIFT first: where both tie alike, it is the more exact."""
    experts = [
        ("sift", track_expert("sift"), SIFT_ANGLE), ("network", network_tracks(network, device=device), NETWORK_ANGLE)
    ]  # fmt: skip
    return [expert for expert in experts if tracks in ("auto", expert[0])]


class _Scene:
    """One capture on its way from cameras to reconstructions."""

    def __init__(
        self, capture: Capture, network: Reliev3R, cameras: CaptureCameras, size: int, progress: Progress | None
    ) -> None:
        self.capture, self.network, self.cameras, self.progress = capture, network, cameras, progress
        self.views, self.regions = network_views(_with_K(capture, cameras.K), long_side=SWEEP_SIZE, patch=8)
        assert self.views.K is not None
        self.K: Tensor = self.views.K
        self.features = sweep_features(network.image_features(self.views.image), self.views.image)
        self.prior = self._prior(size)

    def _prior(self, size: int) -> Tensor:
        """The network's own depth, of any unit, at the size of the sweep."""
        views, _ = network_views(_with_K(self.capture, self.cameras.K), long_side=size, patch=self.network.patch_size)
        depth = predict_depth(self.network, views)
        return torch.nn.functional.interpolate(
            depth[:, None], size=self.views.size, mode="bilinear", align_corners=False
        )[:, 0]  # fmt: skip

    def reconstructions(self) -> list[Reconstruction]:
        alone = [self.capture.names[view] for view in self.cameras.alone]
        groups = [[self.capture.names[view] for view in group.views] for group in self.cameras.groups]
        if alone:
            logger.warning("too few matches tie %s to the other images: left out", ", ".join(alone))
        for number, names in enumerate(groups[1:], start=2):
            logger.warning("no match ties these images to the others; they are group %d: %s", number, ", ".join(names))
        return [
            self._reconstruction(group, {"group": number, "groups": groups, "left_out": alone})
            for number, group in enumerate(self.cameras.groups, start=1)
        ]

    def _reconstruction(self, group: Group, told: dict[str, object]) -> Reconstruction:
        index = group.views
        cameras = group.solve.world_from_cam.float()
        solved = SolvedTracks.of(group.solve, self._tracks())
        prior = in_camera_unit(self.prior, solved)
        found = dense_depth(
            self.features[index], self.views.image[index], self.K[index], cameras[index], solved.select_views(index),
            prior[index], progress=self.progress,
        )  # fmt: skip
        depth, confidence = prior.clone(), torch.full_like(prior, CONTINUED)
        depth[index], confidence[index] = found.depth, found.confidence
        prediction = Prediction(
            depth=depth, rays=ray_map(self.K, *self.views.size), conf=confidence, world_from_cam=cameras
        )
        whole = len(index) == len(self.capture.names)
        return Reconstruction(
            prediction=prediction, capture=self.capture, names=self.capture.names,
            image_files=tuple(frame.file for frame in self.capture.frames),
            image=(self.views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
            sizes=tuple((frame.width, frame.height) for frame in self.capture.frames),
            regions=self.regions, found=None if whole else group.solve.reached,
            meta={
                "system": "reliev3r reconstruct (solved cameras, swept depth)",
                "tracks": self.cameras.candidate.expert, "explained": self.cameras.explained,
                "intrinsics": self.capture.K_source or f"searched: {self._fov():.0f} degrees", **told,
            },
        )  # fmt: skip

    def _fov(self) -> float:
        return math.degrees(fov_from_focal(float(self.cameras.K[0, 0, 0]) / self.capture.frames[0].width))

    def _tracks(self) -> Tracks:
        """The tracks of the solve in pixels of the sweep."""
        tracks = self.cameras.candidate.tracks
        uv = [
            uv_in_region(tracks.uv[view], tuple(self.regions[view].tolist()), self.views.size)
            for view in range(len(tracks.uv))
        ]
        return dataclasses.replace(tracks, uv=torch.stack(uv).float())


def _with_K(capture: Capture, K: Tensor) -> Capture:
    """The capture with these intrinsics, in original pixels."""
    frames = [dataclasses.replace(frame, K=own.numpy()) for frame, own in zip(capture.frames, K, strict=True)]
    return dataclasses.replace(capture, frames=tuple(frames))
