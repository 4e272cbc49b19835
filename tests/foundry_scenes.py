"""Rooms as training scenes, and stores of their labels that cost no matching: what the foundry's tests export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from layouts import Room

from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.export.trainers.scene import TrainingScene
from reliev3r.labels.depth.precomputed import FolderDepth
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.quality.assess import assess_labels, write_quality
from reliev3r.labels.quality.label_verdict import Finding
from reliev3r.synthetic.capture import SynthConfig, write_capture

WIDTH, HEIGHT, VIEWS = 160, 120, 5
LONELY = Finding(code="parts", level="unusable", reason="nothing ties the images", remedy="take others")


def exact_scene(room: Room, names: tuple[str, ...] | None = None) -> TrainingScene:
    """The room itself; a strip without depth at the top, a strip that is not confident at the bottom."""
    names = names or tuple(f"frame_{index + 1:05d}" for index in range(len(room.rgb)))
    depth = room.depth.astype(np.float32)
    depth[:, :6] = 0
    confidence = (depth > 0).astype(np.float32)
    confidence[:, -5:] = 0.2
    experts = [{"role": "depth", "name": "simulated expert (degraded ground truth)", "licence": "none"}]
    return TrainingScene(
        name="room", frames=names, images=room.rgb, depth=depth, confidence=confidence,
        K=np.repeat(room.K[None], len(names), 0), world_from_cam=room.world_from_cam,
        note={"experts": experts, "frames": [{"name": name} for name in names]},
    )  # fmt: skip


def surface_points(room: Room, rows: np.ndarray, columns: np.ndarray, view: int) -> np.ndarray:
    """World points [n, 3] behind the centres of pixels, from the room's own exact arrays (corner convention)."""
    z = room.depth[view, rows, columns]
    local = np.stack([(columns + 0.5 - room.K[0, 2]) / room.K[0, 0], (rows + 0.5 - room.K[1, 2]) / room.K[1, 1],
                      np.ones(len(z))], 1) * z[:, None]  # fmt: skip
    return local @ room.world_from_cam[view, :3, :3].T + room.world_from_cam[view, :3, 3]


class ExactTracks:
    """Surface points of a rendered room wherever they are seen; ``blind`` views see none. For tests of what follows."""

    def __init__(self, room: Room, *, count: int = 250, blind: tuple[int, ...] = ()):
        self.room, self.count, self.blind = room, count, blind

    def fingerprint(self):
        return {"name": "exact tracks of a rendered room", "blind": list(self.blind)}

    def track(self, capture, progress=None) -> Tracks:
        rng, room = np.random.default_rng(0), self.room
        width, height = room.size
        each = self.count // len(room.rgb)
        points = np.concatenate([
            surface_points(room, rng.integers(0, height, each), rng.integers(0, width, each), view)
            for view in range(len(room.rgb))
        ])  # fmt: skip
        uv, weight = np.zeros((len(room.rgb), len(points), 2)), np.zeros((len(room.rgb), len(points)))
        for view, pose in enumerate(room.world_from_cam):
            local = (points - pose[:3, 3]) @ pose[:3, :3]
            uv[view] = local[:, :2] / local[:, 2:] * room.K[[0, 1], [0, 1]] + room.K[:2, 2]
            inside = (local[:, 2] > 0) & (uv[view] >= 0).all(1) & (uv[view] < room.size).all(1)
            column, row = np.where(inside[:, None], uv[view], 0).astype(int).T
            weight[view] = inside & (np.abs(room.depth[view, row, column] / local[:, 2] - 1) < 0.02)
            weight[view] *= view not in self.blind
        return Tracks(uv=torch.from_numpy(uv).float(), weight=torch.from_numpy(weight).float())


def write_room(folder: Path, *, seed: int = 5) -> Room:
    """A capture with exact cameras and depth (which labels never read), and the same as arrays."""
    config = SynthConfig(
        seed=seed, views=VIEWS, width=WIDTH, height=HEIGHT, fov=60.0, span=30.0, supersample=1
    )  # fmt: skip
    write_capture(folder, config)
    return Room.of(config)


def write_labels(
    capture: Path, room: Room, out: Path, *, verdict: str = "good", blind: tuple[int, ...] = (), noise: float = 0.0
) -> None:
    """Labels whose depth is the room's up to one factor a view (and noise), with a verdict that nothing measured."""
    maps, rng = out.parent / f".maps_{out.name}", np.random.default_rng(1)
    maps.mkdir(parents=True, exist_ok=True)
    opened = load_capture(capture)
    for index, name in enumerate(opened.names):
        factor = (0.5 + 0.3 * index) * (1 + noise * rng.standard_normal(room.depth[index].shape))
        np.save(maps / f"{name}.npy", (room.depth[index] * factor).astype(np.float32))
    label_capture(opened, depth=FolderDepth(folder=maps), tracks=ExactTracks(room, blind=blind), out=out)
    findings = (LONELY,) if verdict == "unusable" else ()
    write_quality(out, dataclasses.replace(assess_labels(out, opened), verdict=verdict, findings=findings))
