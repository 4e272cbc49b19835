"""Depth swept in dense footage: how far apart the views lie that a view is compared with (`sfm.plane_sweep.APART`).

    python benchmarks/sweep.py --walk WALKS/walk1000 --out benchmarks/results/sweep_cpu.json

WALKS/walk1000 is what `benchmarks/long.py --views 1000` renders. Pieces of it, from frame 200 on, with every frame or
every 4th or 16th; true cameras and true depth ranges, features of the package's network, images of 192 pixels, one
thread. Errors are relative, of depth as swept, before it is filled; "sure" are pixels of a confidence above one half.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from about import about

from reliev3r.core.cameras_json import CAMERAS_JSON, read_posed_frames
from reliev3r.core.files import write_json
from reliev3r.data.capture import load_capture
from reliev3r.data.network_views import network_views
from reliev3r.model.load import PACKAGED, load_network
from reliev3r.sfm import plane_sweep as sweep
from reliev3r.sfm.dense_depth import sweep_features

PIECES = ((1, 50), (4, 30), (16, 16))
"""Frames from one view to the next, and views."""
APARTS = (0.0, 0.05, 0.09)
FIRST = 200


def piece(walk: Path, step: int, views: int) -> list[dict[str, Any]]:
    """A row for each setting."""
    capture = load_capture(walk)
    frames = capture.frames[FIRST : FIRST + step * views : step]
    seen, _ = network_views(dataclasses.replace(capture, frames=frames), long_side=192, patch=8)
    poses = {entry.name: entry.world_from_cam for entry in read_posed_frames(walk / CAMERAS_JSON)}
    cameras = torch.stack([torch.as_tensor(poses[frame.name]).float() for frame in frames])
    truth = torch.stack([_depth(walk / "depth" / f"{frame.name}.png", seen.size) for frame in frames])
    ranges = torch.stack([
        torch.stack([0.7 * own[own > 0].quantile(0.02), 1.6 * own[own > 0].quantile(0.98)]) for own in truth
    ])  # fmt: skip
    with torch.no_grad():
        features = sweep_features(load_network(PACKAGED).eval().image_features(seen.image), seen.image)
    assert seen.K is not None
    rows = []
    for apart in APARTS:
        sweep.APART = apart
        found = sweep.plane_sweep(features, seen.K, cameras, seen.size, ranges)
        error = (_to_size(found.depth, seen.size) / truth - 1).abs()
        known, sure = truth > 0, (truth > 0) & (_to_size(found.confidence, seen.size) > 0.5)
        rows.append({
            "frames": len(frames), "step_m": float((cameras[1:, :3, 3] - cameras[:-1, :3, 3]).norm(dim=-1).mean()),
            "depth_m": float(truth[known].median()), "apart": apart, "rel": float(error[known].mean()),
            "sure": float(sure.sum() / known.sum()), "sure_median": float(error[sure].median()),
        })  # fmt: skip
    return rows


def _depth(file: Path, size: tuple[int, int]) -> torch.Tensor:
    """In metres."""
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    return torch.from_numpy(cv2.resize(stored, size[::-1], interpolation=cv2.INTER_NEAREST))


def _to_size(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps[:, None], size=size, mode="nearest")[:, 0]


def main() -> None:
    """Measure all pieces and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walk", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for step, views in PIECES:
        rows += piece(given.walk, step, views)
        print(*rows[-len(APARTS) :], sep="\n", flush=True)
        write_json(given.out, {**about(), "rows": rows})


if __name__ == "__main__":
    main()
