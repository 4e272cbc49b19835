"""What the data path costs: bytes of a prepared capture, CPU time of a sample, memory of a process as captures grow.

    python benchmarks/data.py --out benchmarks/results/data_cpu.json

The capture is generated: 300 views of 224 x 126, 35 000 tracks of about twelve views each, smooth images and depth. The
former layout (dense tracks, float32 depth, the whole file read for every sample) is measured in the same run. Times are
CPU seconds of one thread, with the file in the page cache; memory is that of processes of their own (anonymous pages).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from about import about
from safetensors.torch import load_file, save_file
from torch.nn.functional import interpolate

from reliev3r.core.files import write_json
from reliev3r.core.types import CameraLabels, DepthLabels, PseudoLabels, Tracks, Views, stack
from reliev3r.data.augment import AugmentConfig, augment
from reliev3r.geometry.camera import K_from_fov
from reliev3r.labels.prepare import PrepareConfig, Prepared
from reliev3r.sfm.track_graph import pair_rarity
from reliev3r.training.batches import select_views, with_drawn_tracks
from reliev3r.training.captures import CapturesConfig, PreparedCaptures
from reliev3r.training.prepared import PreparedCapture, write_prepared

VIEWS, HEIGHT, WIDTH, TRACKS, LENGTH = 300, 126, 224, 35_000, 12
SAMPLE, SCENES, GPUS = 8, 8, 8
"""Views of a sample, samples of a GPU's batch, GPUs of a node."""
STEPS = (0.1, 0.2, 0.35, 0.5)
"""Seconds of a step for which cores are counted: `base` with 64 images of 224 pixels is 36 to 67 TFLOP."""
SETTINGS = CapturesConfig(prepare=PrepareConfig(image_size=WIDTH))


def generated(seed: int = 0) -> Prepared:
    """The capture."""
    g = torch.Generator().manual_seed(seed)

    def smooth(channels: int) -> torch.Tensor:
        return interpolate(torch.rand(VIEWS, channels, 16, 28, generator=g), (HEIGHT, WIDTH), mode="bicubic")

    def tracks(count: int) -> Tracks:
        middle = torch.rand(count, generator=g) * VIEWS
        weight = ((torch.arange(VIEWS)[:, None] - middle).abs() <= LENGTH / 2).float()
        uv = torch.rand(VIEWS, count, 2, generator=g) * torch.tensor([WIDTH, HEIGHT])
        return Tracks(uv=uv, weight=weight, depth=weight * 3)

    depth = 1 + 4 * smooth(1)[:, 0].clamp(0, 1)
    pose = torch.eye(4).repeat(VIEWS, 1, 1)
    labels = PseudoLabels(
        depth=DepthLabels(depth=depth, valid=depth > 1.1, trust=torch.ones(VIEWS)), tracks=tracks(TRACKS * 9 // 10),
        cameras=CameraLabels(world_from_cam=pose, weight=torch.ones(VIEWS)),
    )  # fmt: skip
    none = torch.zeros(0, dtype=torch.long)
    return Prepared(
        views=Views(image=smooth(3).clamp(0, 1), K=K_from_fov(1.0, HEIGHT, WIDTH).repeat(VIEWS, 1, 1)), labels=labels,
        heldout=tracks(TRACKS // 10), regions=torch.zeros(VIEWS, 4), train_index=none, heldout_index=none,
        raw_depth=depth, focal_over_width=None, notes=[],
    )  # fmt: skip


def cpu_ms(function: Callable[[int], Any], count: int) -> float:
    """CPU milliseconds of a call, the best of three rounds (other processes share the caches)."""
    function(0)
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for seed in range(count):
            function(seed)
        rounds.append(1000 * (time.process_time() - start) / count)
    return round(min(rounds), 1)


# --- the former layout ----------------------------------------------------------------------------------------------


def write_formerly(path: Path, prepared: Prepared) -> None:
    """As it was written: everything dense."""
    labels = prepared.labels
    assert labels.cameras is not None
    assert labels.tracks.depth is not None
    assert prepared.views.K is not None
    save_file(
        {
            "image": (prepared.views.image * 255).round().to(torch.uint8), "K": prepared.views.K,
            "depth": labels.depth.depth, "valid": labels.depth.valid, "uv": labels.tracks.uv,
            "weight": labels.tracks.weight, "track_depth": labels.tracks.depth, "heldout_uv": prepared.heldout.uv,
            "heldout_weight": prepared.heldout.weight, "world_from_cam": labels.cameras.world_from_cam,
        }, path,
    )  # fmt: skip


def sample_formerly(path: Path, seed: int) -> PseudoLabels:
    """As it was read: all of it."""
    generator = torch.Generator().manual_seed(seed)
    read = load_file(path)
    image = read["image"].float() / 255
    seen = (read["weight"] > 0).float()
    index = select_views(seen @ seen.T, SAMPLE, 0.0, generator)
    labels = PseudoLabels(
        depth=DepthLabels(depth=read["depth"], valid=read["valid"]),
        tracks=Tracks(uv=read["uv"], weight=read["weight"], depth=read["track_depth"]),
    ).select_views(index)
    image.index_select(0, index)
    return with_drawn_tracks(labels, pair_rarity(labels.tracks), SETTINGS.tracks, generator)


# --- measurements ---------------------------------------------------------------------------------------------------


def memory_of(folder: Path, captures: int) -> float:
    """Megabytes of a process that has drawn 100 samples from so many captures."""
    command = [sys.executable, __file__, "--child", str(folder), str(captures)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(folder: Path, count: int) -> None:
    """One such process; the captures are links to one file."""
    torch.set_num_threads(1)
    source = PreparedCaptures([PreparedCapture(f"{i}", folder / f"{i}.st") for i in range(count)], SETTINGS, patch=14)
    for seed in range(100):
        source.sample(seed, group=seed, views=SAMPLE)
    status = Path("/proc/self/status").read_text(encoding="utf8")
    found = re.search(r"(?:RssAnon|VmRSS):\s+(\d+)", status)
    assert found is not None
    print(int(found[1]) / 1000)


def measure(folder: Path) -> dict[str, Any]:
    """All of it."""
    prepared = generated()
    path, former = folder / "capture.safetensors", folder / "former.safetensors"
    write_prepared(path, prepared)
    write_formerly(former, prepared)
    images = prepared.views.image.numel()
    del prepared
    source = PreparedCaptures([PreparedCapture("walk", path)], SETTINGS, patch=14)
    sample = source.sample(0, group=0, views=SAMPLE)
    size = source.size(0)

    def augmented(config: AugmentConfig) -> Callable[[int], Any]:
        return lambda seed: augment(*sample, config, torch.Generator().manual_seed(seed), size=size)

    read = cpu_ms(lambda seed: source.sample(seed, group=0, views=SAMPLE), 20)
    aspect, changed = cpu_ms(augmented(AugmentConfig.none()), 10), cpu_ms(augmented(AugmentConfig()), 20)
    pair = augmented(AugmentConfig())(0)
    stacked = cpu_ms(lambda seed: (stack([pair[0]] * SCENES), stack([pair[1]] * SCENES)), 5) / SCENES
    whole = round(read + changed + stacked, 1)
    counts = (1, 10, 100)
    for index in range(max(counts)):
        os.link(path, folder / f"{index}.st")
    return {
        "capture": {"views": VIEWS, "height": HEIGHT, "width": WIDTH, "tracks": TRACKS, "views_a_track": LENGTH},
        "disk_mb": {
            "images": round(images / 1e6, 1), "beside_the_images": round((path.stat().st_size - images) / 1e6, 1),
            "formerly_beside_the_images": round((former.stat().st_size - images) / 1e6, 1),
        },
        "sample_cpu_ms": {
            "views": SAMPLE, "read": read, "augment": changed, "stack": round(stacked, 1), "sum": whole,
            "crop_to_bucket_alone": aspect, "read_formerly": cpu_ms(lambda seed: sample_formerly(former, seed), 4),
        },
        "memory_mb_by_captures": {str(count): memory_of(folder, count) for count in counts},
        "cores_for_8_gpus": {str(step): round(GPUS * SCENES * whole / 1000 / step, 1) for step in STEPS},
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/data_cpu.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), int(given.child[1]))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = about() | measure(Path(folder))
    write_json(given.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
