"""Pseudo cameras from tracks: CPU seconds, memory and accuracy as views grow, for both engines.

    python benchmarks/cameras.py --out RESULT.json [--captures FOLDER] [--tracks FOLDER] [--views 12 25 50 100 200 300]

`walk`: generated tracks of a handheld walk along a wall, 640 x 480, no image: each point is followed for five frames in
the mean and missed in between, half a pixel of noise, 5 % of the observations are somewhere else. FOLDER of
`--captures` holds `livingroom1` and `box_rgbd`, whose photographs are matched by SIFT, K known (kept in `--tracks`).
One run is one process of one thread; seconds are those of the solve alone, memory is the process's peak. AUC is of all
pairs of views, protocol strict, against the truth, which nothing else here reads. ``own`` is the engine for few views,
left out beyond `--most-own` views. What RESULT.json has already is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from about import about

from reliev3r.core.cameras_json import CAMERAS_JSON, read_posed_frames
from reliev3r.core.files import read_json, write_json
from reliev3r.core.types import Tracks
from reliev3r.data.capture import Capture, load_capture
from reliev3r.evaluation.metrics import auc, pair_errors
from reliev3r.geometry.camera import K_from_fov, project, transform
from reliev3r.geometry.rigid import invert
from reliev3r.labels.registry import track_expert
from reliev3r.sfm.camera_solve import SolveConfig
from reliev3r.sfm.incremental import solve_incrementally
from reliev3r.sfm.mapper import solve_by_mapper
from reliev3r.synthetic.path import look_at

ENGINES = {"mapper": solve_by_mapper, "own": solve_incrementally}
CAPTURES = {"box_rgbd": (12, 25, 50), "livingroom1": (12, 25, 43)}
Case = tuple[Tracks, torch.Tensor, torch.Tensor]
"""Tracks, K and the true world_from_cam."""


def walk(views: int, *, seed: int = 0, per_view: int = 400) -> Case:
    """Along a circle of 12 m, looking outwards, a step of 25 cm at a time, at a wall 2.5 to 6 m away."""
    g = torch.Generator().manual_seed(seed)
    height, width, radius = 480, 640, 12.0

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    along = 0.25 * torch.arange(views, dtype=torch.float64)
    place, away = along / radius, radius + 0.3 * (0.7 * along).sin()
    eye = torch.stack([away * place.cos(), away * place.sin(), 1.5 + 0.15 * (0.9 * along).sin()], dim=-1)
    turned = place + 0.5 * (0.21 * along).sin()
    ahead = torch.stack([turned.cos(), turned.sin(), 0.1 * (0.33 * along).sin()], dim=-1)
    world_from_cam = look_at(eye.float(), (eye + 4 * ahead).float()).double()
    count = views * per_view
    at, deep = uniform(count) * (place[-1] + 1.2) - 0.6, radius + 2.5 + 3.5 * uniform(count)
    points = torch.stack([deep * at.cos(), deep * at.sin(), 4 * uniform(count) - 0.5], dim=-1)
    K = K_from_fov(math.radians(65), height, width).double()
    local = [transform(invert(pose), points) for pose in world_from_cam]
    uv = torch.stack([project(each, K) for each in local])
    size = torch.tensor([width, height])
    seen = (torch.stack(local)[..., 2] > 0.3) & ((uv > 0) & (uv < size)).all(-1)
    followed = 1 - 4 * (1 - uniform(count)).log()
    begin = seen.int().argmax(0) + uniform(count) * (seen.sum(0) - followed).clamp_min(0)
    time_ = torch.arange(views)[:, None]
    seen &= (time_ >= begin) & (time_ <= begin + followed) & (uniform(views, count) < 0.85)
    uv += 0.5 * torch.randn(uv.shape, generator=g, dtype=torch.float64)
    false = seen & (uniform(views, count) < 0.05)
    uv[false] = uniform(int(false.sum()), 2) * size
    several = seen.sum(0) >= 2
    tracks = Tracks(uv=uv[:, several].float(), weight=seen[:, several].float())
    return tracks, K.expand(views, 3, 3), world_from_cam


def photographs(folder: Path, views: int, kept: Path) -> Case:
    """A real capture; its tracks, and the CPU seconds that they took, are kept."""
    everything = len(load_capture(folder).frames)
    capture: Capture = load_capture(folder, views=views if views < everything else None)
    file = kept / f"{folder.name}_{views}.pt"
    if not file.exists():
        start = time.process_time()
        found = track_expert("sift").track(capture)
        kept.mkdir(parents=True, exist_ok=True)
        torch.save({"uv": found.uv, "weight": found.weight, "seconds": time.process_time() - start}, file)
    read = torch.load(file, weights_only=True)
    K = torch.stack([torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None])
    true = {entry.name: entry.world_from_cam for entry in read_posed_frames(folder / CAMERAS_JSON)}
    poses = torch.stack([torch.from_numpy(true[name]) for name in capture.names])
    return Tracks(uv=read["uv"], weight=read["weight"]), K, poses


def measured(case: Case, engine: str) -> dict[str, Any]:
    """One solve."""
    tracks, K, true = case
    ENGINES[engine](Tracks(uv=tracks.uv[:4, :50], weight=tracks.weight[:4, :50]), K[:4], SolveConfig())  # imports
    start = time.process_time()
    solve = ENGINES[engine](tracks, K, SolveConfig())
    seconds = time.process_time() - start
    assert solve is not None
    rotation, direction = pair_errors(solve.world_from_cam, true.double(), solve.reached, signed=True, seen="both")
    observations = int(tracks.visible.sum())
    return {
        "seconds": round(seconds, 2), "reached": int(solve.reached.sum()), "tracks": tracks.weight.shape[1],
        "observations": observations, "explained": round(float(solve.inlier.sum()) / observations, 3),
        "auc30": auc(rotation, direction), "auc5": auc(rotation, direction, 5),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def exponent(runs: dict[str, Any], few: str, many: str) -> float | None:
    """Of seconds in views between two runs named case/views/engine."""
    if few not in runs or many not in runs:
        return None
    views = [int(name.split("/")[1]) for name in (few, many)]
    return round(math.log(runs[many]["seconds"] / runs[few]["seconds"]) / math.log(views[1] / views[0]), 2)


def main() -> None:
    """Measure what is missing, the cheap first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--captures", type=Path)
    parser.add_argument("--tracks", type=Path, default=Path("tracks"))
    parser.add_argument("--views", type=int, nargs="+", default=[12, 25, 50, 100, 200, 300])
    parser.add_argument("--most-own", type=int, default=25)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.child:
        name, views, engine = given.child
        case = walk(int(views)) if name == "walk" else photographs(given.captures / name, int(views), given.tracks)
        print(json.dumps(measured(case, engine)))
        return
    found: dict[str, Any] = read_json(given.out) if given.out.exists() else {"about": about(), "runs": {}}
    todo = [(views, "walk", engine) for views in given.views for engine in ENGINES]
    if given.captures:
        todo += [(views, name, engine) for name, many in CAPTURES.items() for views in many for engine in ENGINES]
    for views, name, engine in sorted(todo):
        key = f"{name}/{views}/{engine}"
        if key in found["runs"] or (engine == "own" and views > given.most_own):
            continue
        command = [sys.executable, __file__, "--child", name, str(views), engine, "--tracks", str(given.tracks)]
        command += ["--captures", str(given.captures)] if given.captures else []
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found["runs"][key] = json.loads(run.stdout.splitlines()[-1])
        spans = [*zip(given.views, given.views[1:], strict=False), (given.views[0], given.views[-1])]
        found["exponents"] = {
            f"walk/{engine}/{few}-{many}": exponent(found["runs"], f"walk/{few}/{engine}", f"walk/{many}/{engine}")
            for engine in ENGINES for few, many in spans
        }  # fmt: skip
        write_json(given.out, found)
        print(key, found["runs"][key], flush=True)


if __name__ == "__main__":
    main()
