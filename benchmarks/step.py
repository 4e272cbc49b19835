"""Time of a training step, split into data, forward, losses, backward and optimiser, on the device at hand.

    python benchmarks/step.py --preset tiny            # 12 views of 72 x 96
    python benchmarks/step.py --preset base            # 8 views of 224 x 224, meant for a GPU
    python benchmarks/step.py --preset base --recompute cheap --compile blocks

Shares are what counts: they come from one run, interleaved. A result that exists already is kept (resumable).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import get_args

import torch

from reliev3r.core.device import resolve_precision
from reliev3r.core.files import write_json
from reliev3r.core.types import CameraLabels, DepthLabels, PseudoLabels, Tracks, Views
from reliev3r.geometry.camera import K_from_fov
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.transformer import Recompute
from reliev3r.training.batches import BatchConfig, CaptureBatches
from reliev3r.training.parallel import blocks_of, compile_blocks

SHAPES = {"tiny": (12, 72, 96), "small": (8, 224, 224), "base": (8, 224, 224), "large": (8, 224, 224)}
PARTS = ("data", "forward", "losses", "backward", "optimiser")


def sample(views: int, height: int, width: int, tracks: int = 3000) -> tuple[Views, PseudoLabels]:
    """Random images and labels: the time of a step does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(views, tracks, 2, generator=generator) * torch.tensor([width, height])
    seen = (torch.rand(views, tracks, generator=generator) < 3 / views).float()
    depth = torch.rand(views, height, width, generator=generator) + 1
    K = K_from_fov(1.0, height, width).expand(views, 3, 3)
    labels = PseudoLabels(
        depth=DepthLabels(depth=depth, valid=torch.ones_like(depth, dtype=torch.bool)),
        tracks=Tracks(uv=uv, weight=seen),
        cameras=CameraLabels(world_from_cam=torch.eye(4).repeat(views, 1, 1), weight=torch.ones(views)),
    )
    return Views(image=torch.rand(views, 3, height, width, generator=generator), K=K), labels


def measure(preset: str, repeats: int, recompute: Recompute, compiled: str) -> dict[str, object]:
    """Median seconds of each part over ``repeats`` steps after two to warm up.

    ``compiled``: ``no``, the transformer's ``blocks``, or the ``whole`` network and the losses, each as one graph.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision("auto", device)
    model = Reliev3R(PRESETS[preset]).to(device)
    for block in blocks_of(model):
        block.recompute = recompute
    if compiled == "blocks":
        compile_blocks(model)
    losses = objective
    if compiled == "whole":
        model.compile(fullgraph=True)
        losses = torch.compile(objective, fullgraph=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batches = CaptureBatches(*sample(*SHAPES[preset]), BatchConfig())
    config = ObjectiveConfig(teacher_weight=1.0)
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for step in range(repeats + 2):
        t0 = now()
        views, labels = (x.to(device) for x in batches(step))
        t1 = now()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            prediction = model(views)
        t2 = now()
        loss = losses(prediction, labels, config).total
        # The losses' own backward, up to the prediction, belongs to them and not to the network.
        leaves = (prediction.depth, prediction.conf, prediction.world_from_cam)
        gradients = torch.autograd.grad(loss, leaves)
        t3 = now()
        torch.autograd.backward(leaves, gradients)
        t4 = now()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        t5 = now()
        if step >= 2:
            for part, value in zip(PARTS, (t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4)):
                seconds[part].append(value)
    medians = {part: statistics.median(values) for part, values in seconds.items()}
    total = sum(medians.values())
    name = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor() or platform.machine()} CPU"
    )
    return {
        "preset": preset, "recompute": recompute, "compile": compiled,
        "parameters": sum(p.numel() for p in model.parameters()), "views": SHAPES[preset],
        "device": name, "threads": torch.get_num_threads(), "precision": precision,
        "seconds": medians, "step_seconds": total, "share": {part: value / total for part, value in medians.items()},
        "views_per_second": SHAPES[preset][0] / total,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        "date": datetime.date.today().isoformat(), "commit": _commit(), "torch": torch.__version__,
    }  # fmt: skip


def _commit() -> str:
    run = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--recompute", choices=get_args(Recompute), default="none")
    parser.add_argument("--compile", choices=("no", "blocks", "whole"), default="no")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.exists():
        print(f"{arguments.out}: measured already")
        return
    result = measure(arguments.preset, arguments.repeats, arguments.recompute, arguments.compile)
    for part in PARTS:
        print(f"{part:<10} {1e3 * result['seconds'][part]:8.1f} ms  {100 * result['share'][part]:5.1f} %")
    print(json.dumps({key: value for key, value in result.items() if key not in ("seconds", "share")}))
    if arguments.out is not None:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
