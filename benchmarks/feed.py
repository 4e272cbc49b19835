"""Does the loader feed the device? Steps of a network over 1000 generated captures: share of the time spent waiting.

    python benchmarks/feed.py --preset base --images 64 --workers 0 8 --out benchmarks/results/feed_gpu.json
    python benchmarks/feed.py --preset tiny --images 16 --steps 8 --workers 0 1 --out feed.json  # two CPU cores

The captures are links to one file (``benchmarks/data.py``: 300 views of 224 x 126, 35 000 tracks), so it stays in the
page cache: what a disk or a file server takes is not in these numbers. The first third of the steps is left out, for
compilation of kernels and start of workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from about import about

from data import SETTINGS, generated
from reliev3r.core.device import resolve_device
from reliev3r.core.files import write_json
from reliev3r.core.types import Loss, Prediction, PseudoLabels
from reliev3r.data.augment import AugmentConfig
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.training.batches import SceneBatchConfig, SceneBatches
from reliev3r.training.captures import PreparedCaptures
from reliev3r.training.config import TrainConfig
from reliev3r.training.loop import train
from reliev3r.training.monitor import read_metrics
from reliev3r.training.prepared import PreparedCapture, write_prepared

CAPTURES = 1000


def captures(folder: Path, patch: int) -> PreparedCaptures:
    """A thousand links to one capture."""
    write_prepared(folder / "0.safetensors", generated())
    for index in range(1, CAPTURES):
        os.link(folder / "0.safetensors", folder / f"{index}.safetensors")
    names = [PreparedCapture(f"walk{index}", folder / f"{index}.safetensors") for index in range(CAPTURES)]
    return PreparedCaptures(names, SETTINGS, patch=patch)


def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
    """The paper's two losses."""
    return objective(prediction, labels, ObjectiveConfig(depth_weight=1.0, tracks_weight=0.5))


def measure(given: argparse.Namespace, source: PreparedCaptures, workers: int, folder: Path) -> dict[str, Any]:
    """One run; medians over its logged steps."""
    torch.manual_seed(0)
    batch = SceneBatchConfig(views=(8, 8), images=given.images, augment=AugmentConfig())
    config = TrainConfig(
        steps=given.steps, lr=1e-4, log_every=1, save_every=1e9, data_workers=workers, recompute="cheap"
    )
    network = Reliev3R(dataclasses.replace(PRESETS[given.preset], cameras="regressed"))
    train(network, weak, SceneBatches([source], [1.0], batch), config, folder=folder)
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "images_per_s" in row][given.steps // 3 :]

    def median(name: str) -> float | None:
        values = [row[name] for row in rows if name in row]
        return round(float(torch.tensor(values).median()), 4) if values else None

    return {name: median(name) for name in ("images_per_s", "waiting_for_data", "memory_gb", "mfu")}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 8])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.out.exists():
        print(f"{given.out}: measured already")
        return
    with tempfile.TemporaryDirectory() as folder:
        source = captures(Path(folder), PRESETS[given.preset].patch_size)
        runs = {
            str(workers): measure(given, source, workers, Path(folder) / f"run{workers}") for workers in given.workers
        }
    told = {"preset": given.preset, "images": given.images, "captures": CAPTURES, "by_workers": runs}
    result = about(resolve_device().type) | told
    write_json(given.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
