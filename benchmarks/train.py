"""A training step of ours beside upstream pi^3's: views per second, share of the losses and peak memory, in one run, on
the device at hand; and whether rendered rooms come faster than a network trains on them.

    python benchmarks/train.py --upstream DIR --out RESULT.json [--views 4] [--side 224] [--repeats 2]
    python benchmarks/train.py --stream --out RESULT.json [--views 4] [--scenes 2] [--repeats 2]

DIR is a checkout of yyfz/Pi3, branch ``training`` (never part of this repository); without it only ours is measured.
Both train `large` (pi^3's layout) with full supervision, encoder frozen and blocks recomputed for their gradient (as
in pi^3's first stage), by AdamW, on the same random images and truth. Each system has a process of its own, one after
the other. Ours has a confidence branch besides (66 M parameters), which upstream trains later and alone. On a CPU
upstream's ``autocast("cuda", enabled=False)`` is mapped to the CPU, as it crashes otherwise; precision is what
``core.device`` chooses for the device. The share of the losses is that of their own time; the gradient through them
is part of the backward pass.

``--stream``: rooms of `small-gpu` (168 x 224 pixels) with their simulated labels, one by one as training asks for them,
and steps of its network on ``--scenes`` of them at a time by its weak objective, with the pseudo cameras of the early
teacher and without; both on the same device, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reliev3r.core.device import resolve_precision
from reliev3r.core.files import write_json
from reliev3r.core.types import FullLabels, Tracks, Truth, Views, stack
from reliev3r.geometry.camera import K_from_fov, ray_map
from reliev3r.losses.full import SupervisedConfig, supervised
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.transformer import Block
from reliev3r.runs.train import network_of, objective_of
from reliev3r.synthetic.room_stream import SyntheticStream
from reliev3r.training.recipes import small_gpu


def sample(views: int, side: int, device: torch.device) -> tuple[Views, FullLabels]:
    """Random images before a wavy wall: the time of a step does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    K = K_from_fov(1.0, side, side).expand(1, views, 3, 3)
    world_from_cam = torch.eye(4).repeat(1, views, 1, 1)
    world_from_cam[..., 0, 3] = 0.2 * torch.arange(views)
    depth = 2 + 0.3 * torch.sin(torch.linspace(0, 9, side)).expand(1, views, side, side).contiguous()
    truth = Truth(
        depth=depth, valid=torch.ones_like(depth, dtype=torch.bool), K=K.contiguous(), world_from_cam=world_from_cam
    )
    tracks = Tracks(uv=torch.zeros(1, views, 1, 2), weight=torch.zeros(1, views, 1))
    image = torch.rand(1, views, 3, side, side, generator=generator)
    labels = FullLabels(truth=truth, tracks=tracks)
    return Views(image=image, K=truth.K).to(device), labels.to(device)


System = tuple[nn.Module, Callable[[], Any], Callable[[Any], Tensor]]
"""A network, its forward pass, and the loss of what that gives."""
PARTS = ("forward", "losses", "backward", "optimiser")


def ours(views: Views, labels: FullLabels) -> System:
    """Our network and its loss."""
    model = Reliev3R(PRESETS["large"]).to(views.image.device).train()
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = "cheap"
    model.encoder.requires_grad_(False)
    config = SupervisedConfig()
    return model, lambda: model(views), lambda prediction: supervised(prediction, labels, config).total


def upstream(views: Views, labels: FullLabels, folder: Path) -> System:
    """pi^3's network and its loss, from the checkout."""
    sys.path.insert(0, str(folder))
    if views.image.device.type == "cpu":
        _map_autocast_to_cpu()
    # The loss asks its data loaders (which need torchvision) for two lists: whose depth is good enough for normals.
    lists = types.ModuleType("datasets")
    lists.__dict__.update(__HIGH_QUALITY_DATASETS__=["other"], __MIDDLE_QUALITY_DATASETS__=[])
    sys.modules["datasets"] = lists
    from pi3.models.loss import Pi3Loss
    from pi3.models.pi3_training import Pi3

    model = Pi3(load_vggt=False, freeze_encoder=True).to(views.image.device).train()
    criterion = Pi3Loss()
    truth = labels.truth
    points = ray_map(truth.K, *truth.depth.shape[-2:]) * truth.depth[..., None]
    points = points + truth.world_from_cam[..., None, None, :3, 3]  # the cameras only move sideways
    frames = [
        {
            "img": views.image[:, k], "pts3d": points[:, k], "valid_mask": truth.valid[:, k],
            "camera_pose": truth.world_from_cam[:, k], "dataset": ["other"],
        }
        for k in range(views.image.shape[1])
    ]  # fmt: skip

    def loss(prediction: Any) -> Tensor:
        return criterion(prediction, [{**frame, "pts3d": frame["pts3d"].clone()} for frame in frames])[0]

    return model, lambda: model(views.image), loss


def _map_autocast_to_cpu() -> None:
    original = torch.autocast

    class Mapped(original):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    torch.autocast = torch.amp.autocast = Mapped  # type: ignore[misc, assignment]


def now(device: torch.device) -> float:
    """Seconds; with one CPU thread those of this process alone, so that what else the machine does is not measured."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def timed_steps(system: System, repeats: int, precision: str, device: torch.device) -> dict[str, Any]:
    """The fastest of ``repeats`` steps after one to warm up: its seconds, and what share of them each part has."""
    model, forward, loss = system
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-5, fused=True)
    bf16 = torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    steps = []
    for _ in range(repeats + 1):
        times = [now(device)]
        with bf16:
            prediction = forward()
            times.append(now(device))
            total = loss(prediction)
        times.append(now(device))
        total.backward()
        times.append(now(device))
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(now(device))
        steps.append(times)
    best = min(steps[1:], key=lambda times: times[-1] - times[0])
    seconds = best[-1] - best[0]
    share = {name: (end - start) / seconds for name, start, end in zip(PARTS, best, best[1:], strict=False)}
    return {"seconds": seconds, "share": share, "loss": float(total.detach()), "precision": precision}


def stream_ratio(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Rooms a second from the stream, samples a second that `small` trains on, and how many times as many those are."""
    config = dataclasses.replace(small_gpu(), seed=0)
    stream = SyntheticStream(config.stream, supervision="weak", device=device)
    count = 4 * given.scenes
    samples = [stream.sample(-1 - seed, group=0, views=given.views) for seed in range(2)]  # warms up
    start = now(device)
    samples = [stream.sample(seed, group=0, views=given.views) for seed in range(count)]
    rooms = count / (now(device) - start)
    views, labels = (stack(list(column)[: given.scenes]) for column in zip(*samples, strict=True))
    model, objective = network_of(config).to(device).train(), objective_of(config)
    found: dict[str, Any] = {"rooms_per_second": rooms, "size": list(views.size), "scenes": given.scenes}
    precision = resolve_precision("auto", device)
    for name, progress in (("taught", 0.0), ("by_tracks", config.teacher_until)):
        system: System = (
            model, lambda: model(views), lambda prediction, at=progress: objective(prediction, labels, at).total
        )  # fmt: skip
        step = timed_steps(system, given.repeats, precision, device)
        step["samples_per_second"] = given.scenes / step["seconds"]
        step["rooms_per_trained_sample"] = rooms / step["samples_per_second"]
        found[name] = step
    return {**found, "parameters": sum(p.numel() for p in model.parameters())}


def child(system: str, given: argparse.Namespace) -> None:
    """Measure one system in this process; JSON on the last line."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if system == "stream":
        print(json.dumps(stream_ratio(given, device)))
        return
    views, labels = sample(given.views, given.side, device)
    built = ours(views, labels) if system == "ours" else upstream(views, labels, given.upstream)
    step = timed_steps(built, given.repeats, resolve_precision("auto", device), device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else _peak_resident()
    parameters = list(built[0].parameters())
    print(
        json.dumps({
            **step, "views_per_second": given.views / step["seconds"], "peak_bytes": peak,
            "parameters": sum(p.numel() for p in parameters),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
        })
    )  # fmt: skip


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Measure each system in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stream", action="store_true", help="measure rooms against steps instead")
    parser.add_argument("--scenes", type=int, default=2, help="scenes a step, with --stream")
    parser.add_argument("--child", choices=("ours", "upstream", "stream"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child, given)
        return
    if given.out is not None and given.out.exists():
        print(f"{given.out}: measured already")
        return
    systems = ["stream"] if given.stream else ["ours"] if given.upstream is None else ["ours", "upstream"]
    found: dict[str, Any] = {}
    for system in systems:
        run = subprocess.run(
            [sys.executable, *sys.argv, "--child", system], stdout=subprocess.PIPE, text=True, check=True
        )  # fmt: skip
        found[system] = json.loads(run.stdout.splitlines()[-1])
        print(system, found[system], flush=True)
    if "upstream" in found:
        ratio = found["ours"]["views_per_second"] / found["upstream"]["views_per_second"]
        memory = found["ours"]["peak_bytes"] / found["upstream"]["peak_bytes"]
        found["ratio"] = {"views_per_second": ratio, "peak_bytes": memory}
        print(f"ours / upstream: {ratio:.2f}x views per second, {memory:.2f}x memory")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    if not given.stream:
        found["side"] = given.side
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    found |= {
        "views": given.views, "device": device, "threads": torch.get_num_threads(),
        "commit": commit.stdout.strip() or None, "torch": torch.__version__, "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    if given.out is not None:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
