"""What upsampling a depth map by its photograph brings, at the pixels of true depth: nearest, linear, edge-aware.

    python benchmarks/finer_depth.py CAPTURE PREDICTION [PREDICTION ...] --out RESULT.json

CAPTURE has true depth; a PREDICTION is the `prediction/` of a fit or what `Reconstruction.save` wrote. Truth is read
here alone, to score: all three ways get one scale a view, the median of truth over the linear map. ``near`` is within 5
pixels of a step of the true depth of more than a tenth, ``off`` the share of these pixels that are wrong by more than a
tenth. What RESULT.json has already is kept.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from about import about
from torch.nn import functional as F

from reliev3r.core.files import read_json, write_json
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.export.finer import finer
from reliev3r.geometry.sampling import depth_edges, resize_linear


def measured(folder: Path, prediction: Path) -> dict[str, Any]:
    """Errors of each way, means over the views."""
    coarse, capture = Reconstruction.load(prediction), load_capture(folder)
    start = time.process_time()
    fine = finer(coarse, capture, max(max(size) for size in coarse.sizes))
    seconds = (time.process_time() - start) / len(coarse.names)
    size = fine.prediction.depth.shape[-2:]
    truth = load_truth(folder, coarse.names, regions=coarse.regions, size=size)
    ways = {
        "nearest": F.interpolate(coarse.prediction.depth[None], size, mode="nearest-exact")[0],
        "linear": resize_linear(coarse.prediction.depth[..., None], *size)[..., 0],
        "edge-aware": fine.prediction.depth,
    }
    scale = [(t / d)[v].median() for t, d, v in zip(truth.depth, ways["linear"], truth.valid, strict=True)]
    both = 1 - F.max_pool2d(1 - truth.valid.float(), 3, stride=1, padding=1)  # steps, not borders of what is known
    steps = depth_edges(truth.depth, rtol=0.1).float() * both
    near = (F.max_pool2d(steps, 11, stride=1, padding=5) > 0) & truth.valid
    found: dict[str, Any] = {"from": list(coarse.prediction.depth.shape[-2:]), "to": list(size)}
    found |= {"near_share": float(near.float().mean()), "cpu_seconds_a_view": round(seconds, 2)}
    for name, depth in ways.items():
        error = (depth * torch.stack(scale)[:, None, None] / truth.depth - 1).abs()
        parts = {"all": truth.valid, "near": near, "elsewhere": truth.valid & ~near}
        found[name] = {part: float(error[where].mean()) for part, where in parts.items()}
        found[name]["off"] = float((error[near] > 0.1).float().mean())
    return found


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("predictions", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = read_json(given.out) if given.out.exists() else {"about": about(), "runs": {}}
    for prediction in given.predictions:
        name = f"{given.capture.name}/{prediction.name}"
        if name not in found["runs"]:
            found["runs"][name] = measured(given.capture.resolve(), prediction)
            write_json(given.out, found)
        print(name, found["runs"][name], flush=True)


if __name__ == "__main__":
    main()
