"""Does ``reliev3r rank`` agree with the truth? Systems of known quality, ranked without it and scored by it.

    python benchmarks/rank.py --out benchmarks/results/rank_cpu.json --real ../shared/data/livingroom1 [--work DIR]
        [--networks CHECKPOINT ...] [--reconstruct]

Captures: rendered rooms of both families of textures, on narrow and wide arcs, as a walk and as single viewpoints, and
two subsets of each real capture. Systems: the truth as it is, its cameras turned by 1, 3 and 10 degrees (at random,
each view by its own), its cameras moved by 5 and 20 % of their distance to the scene, its depth bent by 5 and 20 % from
one side of each image to the other, half of its views without a camera; then the network of the package in one forward
pass, other networks that are given, cameras solved from SIFT tracks, and COLMAP. Each capture is ranked by itself, as a
user would; then Kendall's tau of the mean agreements and the truth's scores, and how often two systems that the ranking
calls different are clearly the other way round by the truth. Means over captures, with 95 % bootstrap intervals over
captures. The perturbed versions are made of truth; `rank` sees them as it sees any system. Resumable.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from about import about
from scipy.ndimage import distance_transform_edt

from reliev3r.core.files import read_json, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.settings import to_plain
from reliev3r.core.types import Prediction
from reliev3r.data.capture import Capture
from reliev3r.data.network_views import network_views
from reliev3r.data.truth import load_truth
from reliev3r.evaluation.protocols import score
from reliev3r.evaluation.rank_agreement import QUANTITIES, rank_agreement, true_scores
from reliev3r.evaluation.scores import Scores
from reliev3r.evaluation.systems import System, systems_from_specs
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import so3_exp
from reliev3r.labels.registry import track_expert
from reliev3r.runs.rank import compare
from reliev3r.sfm.solve_cameras import solve_cameras
from reliev3r.synthetic.capture import SynthConfig, write_capture

VIEWS, LONG_SIDE = 8, 96
ROOMS = {
    f"{texture} {path} {span:.0f}": SynthConfig(
        seed=seed, views=VIEWS, width=320, height=240, texture=texture, path=path, span=span, supersample=1,
    )
    for seed, (texture, path, span) in enumerate(
        [
            ("masonry", "smooth", 25.0), ("masonry", "smooth", 50.0), ("masonry", "smooth", 75.0),
            ("masonry", "random", 20.0), ("masonry", "random", 35.0),
            ("terrazzo", "smooth", 25.0), ("terrazzo", "smooth", 50.0), ("terrazzo", "smooth", 75.0),
            ("terrazzo", "random", 20.0), ("terrazzo", "random", 35.0),
        ],
        start=9_200,
    )
}  # fmt: skip


def true_reconstruction(capture: Capture) -> Reconstruction:
    """The truth as a prediction, at the size of a small network; where it has no depth, that of the nearest pixel."""
    views, regions = network_views(capture, long_side=LONG_SIDE, patch=8)
    truth = load_truth(capture.root, capture.names, regions=regions, size=views.size)
    depth = truth.depth.numpy().copy()
    for own, valid in zip(depth, truth.valid.numpy(), strict=True):
        if valid.any():
            nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
            own[:] = own[tuple(nearest)]
    return Reconstruction(
        prediction=Prediction(
            depth=torch.from_numpy(depth), rays=ray_map(truth.K, *views.size), conf=torch.ones_like(truth.depth),
            world_from_cam=truth.world_from_cam,
        ),
        names=capture.names, image_files=tuple(frame.file for frame in capture.frames),
        image=(views.image.movedim(-3, -1) * 255).round().to(torch.uint8),
        sizes=tuple((frame.width, frame.height) for frame in capture.frames), regions=regions.float(),
    )  # fmt: skip


Change = Callable[[Reconstruction, torch.Generator], Reconstruction]


def turned(degrees: float) -> Change:
    """Every camera by this angle, about an axis of its own."""

    def change(truth: Reconstruction, generator: torch.Generator) -> Reconstruction:
        axis = torch.nn.functional.normalize(torch.randn(len(truth.names), 3, generator=generator).double(), dim=-1)
        cameras = truth.prediction.world_from_cam.double()
        cameras[:, :3, :3] = cameras[:, :3, :3] @ so3_exp(axis * math.radians(degrees))
        return truth.with_cameras(cameras)

    return change


def moved(share: float) -> Change:
    """Every camera by this share of the median depth, in a direction of its own."""

    def change(truth: Reconstruction, generator: torch.Generator) -> Reconstruction:
        way = torch.nn.functional.normalize(torch.randn(len(truth.names), 3, generator=generator).double(), dim=-1)
        cameras = truth.prediction.world_from_cam.double()
        cameras[:, :3, 3] += share * truth.prediction.depth.median() * way
        return truth.with_cameras(cameras)

    return change


def bent(share: float) -> Change:
    """Depth that grows by this share from the middle of each image to a side of its own, and shrinks to the other."""

    def change(truth: Reconstruction, generator: torch.Generator) -> Reconstruction:
        depth = truth.prediction.depth
        side = torch.randint(2, (len(depth), 1, 1), generator=generator) * 2 - 1
        slope = (1 + share) ** (side * torch.linspace(-1, 1, depth.shape[-1]))
        return dataclasses.replace(truth, prediction=dataclasses.replace(truth.prediction, depth=depth * slope))

    return change


def halved(truth: Reconstruction, generator: torch.Generator) -> Reconstruction:
    """Every other view has no camera."""
    return dataclasses.replace(truth, found=torch.arange(len(truth.names)) % 2 == 0)


MADE: dict[str, Change] = {
    "truth": lambda truth, generator: truth,
    "turned 1 deg": turned(1.0), "turned 3 deg": turned(3.0), "turned 10 deg": turned(10.0),
    "moved 5 %": moved(0.05), "moved 20 %": moved(0.2),
    "depth bent 5 %": bent(0.05), "depth bent 20 %": bent(0.2),
    "half the views": halved,
}  # fmt: skip


def sift_cameras(capture: Capture, folder: Path) -> Reconstruction:
    """Cameras alone, solved from the tracks that labels are made of."""
    tracks = track_expert("sift").track(capture)
    K = torch.stack([torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None])
    solve = solve_cameras(tracks, K)
    blank = true_reconstruction(capture)  # its images and regions; nothing of it counts
    if solve is None:
        raise RuntimeError("no pair of views starts a solve")
    ones = torch.ones_like(blank.prediction.depth)
    prediction = dataclasses.replace(blank.prediction, depth=ones, world_from_cam=solve.world_from_cam.float())
    return dataclasses.replace(blank, prediction=prediction, found=solve.reached, predicts_depth=False)


def systems(networks: list[Path], *, reconstruct: bool) -> list[System]:
    """Perturbed versions of the truth, and real ones."""

    def made(number: int, change: Change) -> Callable[[Capture, Path], Reconstruction]:
        return lambda capture, folder: change(true_reconstruction(capture), torch.Generator().manual_seed(number))

    perturbed = [
        System(name=name, run=made(number, change), fingerprint=lambda: {"version": 2})
        for number, (name, change) in enumerate(MADE.items())
    ]
    sift = System(name="SIFT, solved", run=sift_cameras, fingerprint=lambda: {"version": 1})
    specs = ["model:reliev3r-tiny", *(f"model:{path}" for path in networks), "colmap"]
    return [*perturbed, sift, *systems_from_specs([*specs, *(["reconstruct"] if reconstruct else [])])]


def captures(work: Path, real: list[Path]) -> dict[str, tuple[Path, int]]:
    """By name: the capture, and how many of its frames are taken, evenly spaced; a room of one family of textures, then
    one of the other."""
    found = {f"{folder.name}, {views} views": (folder, views) for folder in real for views in (6, 9)}
    half = len(ROOMS) // 2
    order = [name for pair in zip(list(ROOMS)[:half], list(ROOMS)[half:], strict=True) for name in pair]
    for name in order:
        config = ROOMS[name]
        folder = work / "rooms" / str(config.seed)
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_capture(folder, config)
        found[name] = (folder, VIEWS)
    return found


def scored(found: Reconstruction, folder: Path) -> Scores:
    """Protocol strict on the pixels of the prediction."""
    size = (found.prediction.depth.shape[-2], found.prediction.depth.shape[-1])
    truth = load_truth(folder, found.names, regions=found.regions, size=size, image_sizes=found.sizes)
    return score(found.prediction, truth, "strict", found=found.found, predicts_depth=found.predicts_depth)


def judged(chosen: list[System], folder: Path, views: int, out: Path) -> dict[str, Any]:
    """One capture: its ranking, the truth's scores, and how they agree."""
    start = time.process_time()
    result = compare(chosen, folder, out, views=views)
    seconds = time.process_time() - start
    names = [system.name for system in chosen]
    true = true_scores([{name: scored(one, folder) for name, one in result.captures[0].reconstructions.items()}], names)
    own = {kind: {each.system: getattr(each, kind) for each in result.ranking.standings} for kind in QUANTITIES}
    found = [
        rank_agreement(kind, {name: score.mean for name, score in own[kind].items()},
                       {name: score.behind for name, score in own[kind].items()}, true[kind])
        for kind in QUANTITIES
    ]  # fmt: skip
    finite = {kind: {name: value for name, value in row.items() if math.isfinite(value)} for kind, row in true.items()}
    return {
        "standings": [to_plain(each) for each in result.ranking.standings], "pairs": result.ranking.pairs,
        "truth": finite, "agreement": {each.quantity: to_plain(each) for each in found}, "cpu seconds": seconds,
    }  # fmt: skip


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean, and 95 % of its bootstrap over captures."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Tau and wrong orders over all captures."""
    parts = {}
    for kind in QUANTITIES:
        own = [row["agreement"][kind] for row in rows.values()]
        parts[kind] = {
            "tau": interval([each["tau"] for each in own if each["tau"] is not None]), "captures": len(own),
            **{key: sum(each[key] for each in own) for key in ("pairs", "told_apart", "reversed")},
        }  # fmt: skip
    return parts


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a capture, then all."""
    lines = [
        "| capture | pairs of views | tau, cameras | tau, scene | told apart | of these reversed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        own = row["agreement"]
        taus = " | ".join(f"{own[kind]['tau']:.2f}" for kind in ("cameras", "scene"))
        counts = [sum(own[kind][key] for kind in own) for key in ("told_apart", "pairs", "reversed")]
        lines.append(f"| {name} | {row['pairs']} | {taus} | {counts[0]} of {counts[1]} | {counts[2]} |")
    for kind, part in summary(rows).items():
        mean, low, high = part["tau"]
        lines.append(
            f"\n{kind}: tau {mean:.2f} ({low:.2f} to {high:.2f}) over {part['captures']} captures; "
            f"{part['told_apart']} of {part['pairs']} pairs told apart, {part['reversed']} reversed"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/reliev3r-rank"))
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="captures with truth, of real cameras")
    parser.add_argument("--networks", type=Path, nargs="*", default=[], help="further checkpoints")
    parser.add_argument("--reconstruct", action="store_true", help="the verb too (15 CPU seconds a capture)")
    given = parser.parse_args(argv)
    rows: dict[str, dict[str, Any]] = read_json(given.out)["rows"] if given.out.is_file() else {}
    chosen = systems(given.networks, reconstruct=given.reconstruct)
    for name, (folder, views) in captures(given.work, given.real).items():
        if name in rows:
            continue
        rows[name] = judged(chosen, folder, views, given.work / "ranked" / name.replace(" ", "-"))
        print(name, {kind: each["tau"] for kind, each in rows[name]["agreement"].items()}, flush=True)
        write_json(given.out, {**about(), "summary": summary(rows), "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
