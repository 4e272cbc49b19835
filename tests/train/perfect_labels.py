"""Scenes with perfect labels, and the truth of every sample that training draws from them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reliev3r.core.types import CameraLabels, FullLabels, Labels, PseudoLabels, Supervision, Tracks, Truth, Views
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import load_truth
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.labels.depth.precomputed import FolderDepth
from reliev3r.labels.pipeline import label_capture
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.room_stream import StreamConfig
from reliev3r.training.captures import LabelledCaptures

NOTHING_WRONG = DepthNoise(distortion=0.0, edge_blur=0.0, outliers=0.0)
"""But for a factor of its own for each view, which labels leave open."""
EXACT = TrackNoise(count=256, pixel=0.0, false=0.0, drop=0.0)
SIZE, SIDE, VIEWS = (48, 64), 64, 9


def unspoilt(stream: StreamConfig) -> StreamConfig:
    """The same rooms under perfect experts."""
    return dataclasses.replace(stream, depth_noise=NOTHING_WRONG, track_noise=EXACT)


@dataclass(frozen=True)
class TrueTracks:
    """A perfect matcher of rendered captures."""

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "simulated expert (ground truth)"}

    def track(self, capture: Capture, progress: Any = None) -> Tracks:
        truth = truth_of(capture, network_views(capture, long_side=SIDE, patch=8)[1])
        return simulate_tracks(truth, dataclasses.replace(EXACT, count=128), 0)


def truth_of(capture: Capture, regions: torch.Tensor) -> Truth:
    return load_truth(capture.root, capture.names, regions=regions, size=SIZE)


def labelled_rooms(root: Path) -> tuple[Path, Path]:
    """(rendered captures, the store of their perfect labels); the images have the network's size already, so that no
    label is resampled."""
    for seed in range(2):
        config = SynthConfig(seed=seed, views=VIEWS, width=SIZE[1], height=SIZE[0], span=30.0, supersample=1)
        folder = write_capture(root / "images" / f"room{seed}", config)
        depth = FolderDepth(folder=folder / "depth")
        label_capture(load_capture(folder), depth=depth, tracks=TrueTracks(), out=root / "store" / f"room{seed}")
    return root / "images", root / "store"


@dataclass(frozen=True)
class TrueSamples:
    """The samples of labelled captures with the truth in the place of their labels; tracks stay."""

    own: LabelledCaptures
    images: Path

    def size(self, group: int) -> tuple[int, int]:
        return self.own.size(group)

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, Labels]:
        seen, labels = self.own.sample(seed, group=group, views=views)
        for each in self.own.captures:
            whole = each.views().image
            same = (whole[None] == seen.image[:, None]).flatten(2).all(-1)  # [views of the sample, of the capture]
            if same.any(1).all():
                capture = load_capture(self.images / each.name)
                truth = truth_of(capture, network_views(capture, long_side=SIDE, patch=8)[1])
                return seen, FullLabels(truth=truth.select_views(same.int().argmax(1)), tracks=labels.tracks)
        raise AssertionError("a sample that is no part of a capture")


@dataclass(frozen=True)
class Wall:
    """Cameras that slide and roll before a wall they look at head-on: each sees one depth, so that nothing is lost
    between pixels; pseudo cameras are the true ones. Images are noise. Principal points lie off the centre, pixels are
    no squares, and every view has a focal length of its own: what a network that predicts one must never be shown."""

    supervision: Supervision

    def size(self, group: int) -> tuple[int, int]:
        return SIZE

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, Labels]:
        generator = torch.Generator().manual_seed(seed)
        height, width = SIZE

        def between(low: float, high: float, *shape: int) -> torch.Tensor:
            return low + (high - low) * torch.rand(*shape, generator=generator)

        roll = torch.cat([torch.zeros(views, 2), between(-0.4, 0.4, views, 1)], dim=-1)
        world_from_cam = rigid_from(so3_exp(roll), between(-0.5, 0.5, views, 3))
        depth = (4 - world_from_cam[:, 2, 3])[:, None, None].expand(views, height, width).contiguous()
        K = torch.zeros(views, 3, 3)
        K[:, 0, 0], K[:, 1, 1], K[:, 2, 2] = between(52, 58, views), between(56, 64, views), 1
        K[:, 0, 2], K[:, 1, 2] = width / 2 + between(-4, 4, views), height / 2 + between(-3, 3, views)
        truth = Truth(depth=depth, valid=torch.ones_like(depth, dtype=torch.bool), K=K, world_from_cam=world_from_cam)
        tracks = simulate_tracks(truth, EXACT, seed)
        seen = Views(image=torch.rand(views, 3, height, width, generator=generator), K=K)
        if self.supervision == "full":
            return seen, FullLabels(truth=truth, tracks=tracks)
        solved = dataclasses.replace(tracks, depth=tracks.weight * depth[:, 0, :1])
        cameras = CameraLabels(world_from_cam=world_from_cam, weight=torch.ones(views))  # in whatever unit
        depths = simulate_depth(truth, NOTHING_WRONG, seed)
        return seen, PseudoLabels(depth=depths, tracks=solved, cameras=cameras)
