"""Matchers compared by their tracks: how many, how long, and how often true, overall and between wide pairs of views.

    python benchmarks/matchers.py --data ../shared/data          # SIFT and ALIKED on two captures, 12 views each

True poses and depth are read by the scoring below only, after the tracks are made. A pair is *wide* if it is among the
third with the least true overlap, of those that overlap by 5 % at least (share of pixels, by true depth, that the other
view sees). All pairs of observations of all tracks are compared with the true epipolar lines. A result that exists
already is kept, row by row (resumable).
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from reliev3r.core.files import write_json
from reliev3r.core.types import Tracks, Truth
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.truth import load_truth
from reliev3r.geometry.camera import project, ray_map, transform
from reliev3r.geometry.rigid import invert, relative, skew
from reliev3r.labels.registry import track_expert
from reliev3r.sfm.two_view import epipolar_distance

CAPTURES = ("box_rgbd", "livingroom1")
TRUE = 3.0
"""Pixels from the true epipolar line within which an observation counts as true (poses are good to about a degree)."""
OVERLAP = (0.05, 1 / 3)
"""Least overlap of a pair that counts at all, and share of those pairs that are called wide."""


def truth_of(capture: Capture, size: tuple[int, int] | None = None) -> Truth:
    """Poses and depth at ``size`` (the images' own where None)."""
    regions = torch.tensor([[0.0, 0.0, frame.width, frame.height] for frame in capture.frames])
    size = size or (capture.frames[0].height, capture.frames[0].width)
    return load_truth(capture.root, capture.names, regions=regions, size=size)


def overlaps(truth: Truth) -> np.ndarray:
    """Share of the pixels (with depth) of view i that view j sees too, the smaller of both ways [v, v]."""
    views, height, width = truth.depth.shape
    world = transform(truth.world_from_cam, (ray_map(truth.K, height, width) * truth.depth[..., None]).flatten(1, 2))
    share = torch.zeros(views, views)
    for j in range(views):
        local = transform(invert(truth.world_from_cam[j]).expand(views, 4, 4), world)
        uv = project(local, truth.K[j].expand(views, 3, 3))
        column, row = uv[..., 0].long(), uv[..., 1].long()
        inside = (uv >= 0).all(-1) & (column < width) & (row < height) & (local[..., 2] > 0.01)
        column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
        there = torch.where(truth.valid[j][row, column], truth.depth[j][row, column], torch.inf)
        counted = truth.valid.flatten(1)
        share[:, j] = (inside & (local[..., 2] < 1.05 * there) & counted).sum(1) / counted.sum(1).clamp_min(1)
    return torch.minimum(share, share.T).numpy()


def score(tracks: Tracks, capture: Capture) -> dict[str, object]:
    """What the truth says about some tracks."""
    truth = truth_of(capture)
    overlap = overlaps(truth_of(capture, (120, 160)))
    cam_from_cam = relative(truth.world_from_cam.double())
    inverse = torch.linalg.inv(truth.K.double())
    uv, seen = tracks.uv.double().numpy(), tracks.visible.numpy()
    pairs = [(i, j) for i, j in itertools.combinations(range(len(seen)), 2) if overlap[i, j] > OVERLAP[0]]
    by_overlap = sorted(pairs, key=lambda pair: overlap[pair])
    wide = set(by_overlap[: round(OVERLAP[1] * len(pairs))])
    errors: dict[str, list[np.ndarray]] = {"all": [], "wide": []}
    tied = 0
    for i, j in itertools.combinations(range(len(seen)), 2):
        motion = cam_from_cam[j, i]
        F = (inverse[j].T @ skew(motion[:3, 3]) @ motion[:3, :3] @ inverse[i]).numpy()
        both = seen[i] & seen[j]
        error = epipolar_distance(F, uv[i, both], uv[j, both])
        errors["all"].append(error)
        if (i, j) in wide:
            errors["wide"].append(error)
            tied += int((error < TRUE).sum() >= 15)
    length = seen.sum(0)
    result: dict[str, object] = {
        "tracks": len(length), "tracks_of_3": int((length >= 3).sum()), "mean_length": float(length.mean()),
        "doubted": float((tracks.weight.amax(0) < 1).float().mean()),
        "wide_pairs": len(wide), "wide_overlap": float(max((overlap[pair] for pair in wide), default=0)),
        "wide_pairs_with_15_true": tied,
    }  # fmt: skip
    for name, parts in errors.items():
        error = np.concatenate(parts)
        result[name] = {
            "matches": len(error),
            "true": int((error < TRUE).sum()),
            "true_share": float((error < TRUE).mean()) if len(error) else None,
            "median_px": float(np.median(error)) if len(error) else None,
        }
    return result


def measure(data: Path, name: str, spec: str, views: int) -> dict[str, object]:
    """Label a capture and score its tracks."""
    capture = load_capture(data / name, views=views)
    start = time.perf_counter()
    expert = track_expert(spec)
    tracks = expert.track(capture)
    seconds = time.perf_counter() - start
    scored = score(tracks, capture)
    return {"capture": name, "views": views, "expert": expert.fingerprint(), "seconds": seconds, **scored}


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| capture | matcher | tracks of 3+ views | matches, all pairs | true | matches, wide pairs | true | true ones "
        "| wide pairs tied | s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        every, wide = row["all"], row["wide"]
        lines.append(
            f"| `{row['capture']}` | {row['expert']['name']} | {row['tracks_of_3']} | {every['matches']} "
            f"| {100 * every['true_share']:.1f} % | {wide['matches']} | {100 * (wide['true_share'] or 0):.1f} % "
            f"| {wide['true']} | {row['wide_pairs_with_15_true']} of {row['wide_pairs']} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def main() -> None:
    """Measure what is missing, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--experts", nargs="+", help="specs of track experts; SIFT and ALIKED-n16 by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "matchers.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    specs = arguments.experts or ["sift", f"aliked:{arguments.data / 'models' / 'aliked' / 'aliked-n16.pth'}"]
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    done = [(row["capture"], row["views"], row["expert"]) for row in rows]
    for name, spec in itertools.product(CAPTURES, specs):
        if (name, arguments.views, track_expert(spec).fingerprint()) not in done:
            rows.append(measure(arguments.data, name, spec, arguments.views))
            about = {"date": datetime.date.today().isoformat(), "commit": _commit(), "torch": torch.__version__}
            machine = f"{platform.processor() or platform.machine()} CPU, 1 thread"
            write_json(arguments.out, {"true_px": TRUE, "overlap": OVERLAP, "machine": machine, **about, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
