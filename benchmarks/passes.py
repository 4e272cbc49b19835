"""Drift of passes joined by similarities, on walks of any length: the network is simulated, the joining is real.

    python benchmarks/passes.py --out RESULT.json [--views 120 300 1000]

A walk goes round a hall of 12 m radius, 10 cm a step, so that 754 views are once around. A simulated pass says the true
depth of its views (2.5 to 6 m, on a grid of 12 x 16) with 2 % of noise, and the true cameras after a drift of its own
that grows from view to view: 0.1 % of scale, 0.05 degrees, 1 mm (each the standard deviation a step, of a random walk);
all in a frame of its own. `closed`: with a loop at every twenty-fifth view that comes back to a place. Drift is that of
`benchmarks/long.py`. CPU seconds are of the joining.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from about import about
from long import drift_of

from reliev3r.core.files import write_json
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.geometry.similarities import moved_cameras, scale_of
from reliev3r.model.passes import predict_in_passes
from reliev3r.synthetic.path import look_at

SIZE, RADIUS, STEP = (12, 16), 12.0, 0.1


def walk(views: int) -> Prediction:
    """The truth."""
    angle = STEP / RADIUS * torch.arange(views)
    eye = torch.stack([RADIUS * angle.cos(), RADIUS * angle.sin(), 0.1 * (9 * angle).sin()], dim=-1)
    g = torch.Generator().manual_seed(0)
    rays = ray_map(K_from_fov(1.1, *SIZE), *SIZE).expand(views, *SIZE, 3)
    depth = 2.5 + 3.5 * torch.rand(views, *SIZE, generator=g)
    return Prediction(depth=depth, rays=rays, conf=torch.ones_like(depth), world_from_cam=look_at(eye, 2 * eye))


class DriftingPass:
    """A simulated network."""

    def __init__(self, truth: Prediction) -> None:
        self.truth, self.g = truth, torch.Generator().manual_seed(1)

    def _random_walk(self, views: int, deviation: float, *shape: int) -> torch.Tensor:
        return deviation * torch.randn(views, *shape, generator=self.g, dtype=torch.float64).cumsum(0)

    def __call__(self, views: Views) -> Prediction:
        """What it says of views whose image is their number."""
        said = self.truth.select_views(views.image[:, 0, 0, 0].long())
        count = len(said.depth)
        turn = so3_exp(self._random_walk(count, math.radians(0.05), 3))
        grown, shift = self._random_walk(count, 1e-3).exp(), self._random_walk(count, 1e-3, 3)
        true = said.world_from_cam.double()
        steps = torch.diff(true[:, :3, 3], dim=0, prepend=true[:1, :3, 3])
        centres = true[0, :3, 3] + (grown[:, None] * (turn @ steps[..., None])[..., 0]).cumsum(0) + shift
        noise = 1 + 0.02 * torch.randn(said.depth.shape, generator=self.g)
        frame = torch.eye(4, dtype=torch.float64)
        frame[:3, :3] = 3 * so3_exp(torch.randn(3, generator=self.g)).double()
        cameras = moved_cameras(frame, rigid_from(turn @ true[:, :3, :3], centres))
        depth = said.depth * noise * grown[:, None, None].float() * float(scale_of(frame))
        return Prediction(depth=depth, rays=said.rays, conf=said.conf, world_from_cam=cameras.float())


def measured(views: int) -> dict[str, Any]:
    """Both ways of one length."""
    truth = walk(views)
    numbers = Views(image=torch.arange(views).float()[:, None, None, None].expand(views, 3, *SIZE), K=None)
    round_ = round(2 * math.pi * RADIUS / STEP)
    loops = [(view, view + round_) for view in range(0, views - round_, 25)]
    found = {}
    for name, pairs in {"open": [], "closed": loops}.items():
        start = time.process_time()
        said = predict_in_passes(DriftingPass(truth), numbers, pairs)
        found[name] = {
            "loops": len(pairs), "seconds": round(time.process_time() - start, 2),
            **drift_of(said.world_from_cam.double(), truth.world_from_cam.double()),
        }  # fmt: skip
    return found


def main() -> None:
    """All lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--views", type=int, nargs="+", default=[120, 300, 1000])
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = {}
    for views in given.views:
        runs[str(views)] = measured(views)
        print(views, runs[str(views)], flush=True)
    write_json(given.out, {"about": about(), "runs": runs})


if __name__ == "__main__":
    main()
