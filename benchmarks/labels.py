"""What labels cost: every expert that runs here, and a whole weak label against COLMAP's structure from motion.

    python benchmarks/labels.py --data ../shared/data --out benchmarks/results/labels.json

Each measurement is a process of its own with the same number of threads, so that its peak memory (ru_maxrss) is its
own. Networks without weights here run with random ones: the same arithmetic, so the same time. What is in the output
file already is kept (resumable); ours and COLMAP of one size are always measured one after the other in the same run.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json, write_json
from reliev3r.data.capture import Capture, load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.labels.many.worker import LabelJob, label_path
from reliev3r.labels.registry import depth_expert, track_expert

SIZES = (8, 25, 50)
CAPTURES = ("box_rgbd", "livingroom1")
FRAMES = 8
"""Frames that experts are timed on; track experts match all their 28 pairs."""


# --- one measurement, in a process of its own -----------------------------------------------------------------------


def random_depth_anything(folder: Path) -> str:
    """A Depth Anything V2 of size S (24.8 M parameters) with random weights."""
    import transformers

    backbone = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14,
        out_indices=[3, 6, 9, 12], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=384, neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64, head_hidden_size=32, patch_size=14,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():  # random weights may give a dead ReLU at the end
        for parameter in model.head.conv3.parameters():
            parameter.copy_(parameter.abs() + 0.1)
    model.save_pretrained(folder)
    return f"depth-anything-v2-small:{folder}"


def random_superpoint_lightglue(folder: Path) -> str:
    """SuperPoint and LightGlue of their own size with random weights."""
    import transformers

    torch.manual_seed(0)
    transformers.LightGlueForKeypointMatching(transformers.LightGlueConfig()).save_pretrained(folder)
    return f"superpoint-lightglue:{folder}"


EXPERTS: dict[str, tuple[str, Callable[[Path, Path], str]]] = {
    "none": ("depth", lambda data, folder: "none"),
    "folder": ("depth", lambda data, folder: f"folder:{data / 'box_rgbd' / 'mono_fastdepth'}"),
    "depth-anything-v2-small (random weights)": ("depth", lambda data, folder: random_depth_anything(folder)),
    "sift": ("tracks", lambda data, folder: "sift"),
    "aliked": ("tracks", lambda data, folder: f"aliked:{data / 'models' / 'aliked'}"),
    "superpoint-lightglue (random weights)": ("tracks", lambda data, folder: random_superpoint_lightglue(folder)),
}
"""Name: kind, and how to get its specification."""


def measure_expert(name: str, data: Path) -> dict[str, Any]:
    """Seconds a frame after warming up, on 8 frames of ``box_rgbd``."""
    kind, specification = EXPERTS[name]
    capture = load_capture(data / "box_rgbd", views=FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        spec = specification(data, Path(folder))
        if kind == "depth":
            expert = depth_expert(spec)
            seconds = timed(lambda index: expert.predict(capture.image(index), capture.frames[index], capture))
        else:
            tracker = track_expert(spec)
            tracker.track(dataclasses.replace(capture, frames=capture.frames[:2]))
            started = time.perf_counter()
            tracker.track(capture)
            seconds = (time.perf_counter() - started) / FRAMES
    return {"kind": kind, "frames": FRAMES, "seconds_a_frame": seconds}


def timed(predict: Callable[[int], object]) -> float:
    """Mean seconds of a frame; the first one, which loads the weights, does not count."""
    predict(0)
    started = time.perf_counter()
    for index in range(1, FRAMES):
        predict(index)
    return (time.perf_counter() - started) / (FRAMES - 1)


def measure_ours(capture: Path, views: int) -> dict[str, Any]:
    """Tracks by SIFT and depth looked up in a folder, stored: all that weak training needs."""
    with tempfile.TemporaryDirectory() as out:
        job = LabelJob(depth=f"folder:{capture / 'mono_fastdepth'}", tracks="sift", views=views, judge=False)
        task = CaptureTask(name=capture.name, path=capture, out=Path(out))
        started = time.perf_counter()
        found, labels = label_path(task, job, job.experts(task))
        seconds = time.perf_counter() - started
    long = int((labels.tracks.visible.sum(0) >= 3).sum())
    return {"frames": len(found.frames), "seconds": seconds, "tracks_of_3_views": long}


def measure_colmap(capture: Path, views: int, threads: int) -> dict[str, Any]:
    """COLMAP's SIFT, exhaustive matching and incremental mapping with the known intrinsics."""
    from reliev3r.baselines.colmap import reconstruct_colmap

    started = time.perf_counter()
    found = load_capture(capture, views=views)
    _, registered = reconstruct_colmap(found, intrinsics(found), threads=threads)
    return {"frames": len(found.frames), "seconds": time.perf_counter() - started, "registered": int(registered.sum())}


def intrinsics(capture: Capture) -> torch.Tensor:
    """K [v, 3, 3] of a capture whose intrinsics are known."""
    return torch.stack([torch.from_numpy(frame.K) for frame in capture.frames if frame.K is not None])


def measure_gpu(data: Path, moge: str | None, cotracker: str | None) -> dict[str, Any]:
    """Frames a second of MoGe-2 and CoTracker3 on the GPU, or why they were not measured."""
    capture = load_capture(data / "box_rgbd", views=FRAMES)
    result: dict[str, Any] = {}
    for name, weights, run in (("moge-2", moge, gpu_depth), ("cotracker", cotracker, gpu_tracks)):
        if not torch.cuda.is_available():
            result[name] = "not measured: no GPU"
        elif weights is None:
            result[name] = f"not measured: no weights; give --{name.split('-')[0]} FILE"
        else:
            try:
                result[name] = {"frames_a_second": run(f"{name}:{weights}", capture)}
            except UserError as error:
                result[name] = f"not measured: {error}"
    return result


def gpu_depth(spec: str, capture: Capture) -> float:
    """Frames a second of a depth expert."""
    expert = depth_expert(spec, device="cuda")
    return 1 / timed(lambda index: expert.predict(capture.image(index), capture.frames[index], capture))


def gpu_tracks(spec: str, capture: Capture) -> float:
    """Frames a second of a track expert, on the frames as a clip."""
    tracker = track_expert(spec, device="cuda")
    clip = dataclasses.replace(capture, ordered=True)
    tracker.track(clip)
    started = time.perf_counter()
    tracker.track(clip)
    return FRAMES / (time.perf_counter() - started)


def child(what: list[str], data: Path, threads: int) -> None:
    """Measure one thing and print it as JSON."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if what[0] == "expert":
        result = measure_expert(what[1], data)
    elif what[0] == "ours":
        result = measure_ours(data / what[1], int(what[2]))
    else:
        result = measure_colmap(data / what[1], int(what[2]), threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({**result, "peak_bytes": peak}))


# --- all of them ----------------------------------------------------------------------------------------------------


def run_child(what: list[str], data: Path, threads: int) -> dict[str, Any]:
    """The result of :func:`child` in a fresh process, or why there is none."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--data", str(data), "--threads", str(threads), "--child", *what]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **limits}, check=False)
    if run.returncode:
        return {"not_measured": (run.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(run.stdout.strip().splitlines()[-1])


def growth(cells: dict[str, Any], system: str) -> float | None:
    """The exponent p of seconds ~ frames^p between the smallest and the largest size."""
    measured = [cell[system] for cell in cells.values() if "seconds" in cell[system]]
    if len(measured) < 2:
        return None
    first, last = measured[0], measured[-1]
    return math.log(last["seconds"] / first["seconds"]) / math.log(last["frames"] / first["frames"])


def measure_sizes(result: dict[str, Any], name: str, data: Path, threads: int, save: Callable[[], None]) -> None:
    """Ours and COLMAP on the same frames of a capture, at every size that it has."""
    cells = result.setdefault("weak_label", {}).setdefault(name, {}).setdefault("sizes", {})
    for views in SIZES:
        if str(views) in cells or len(load_capture(data / name).frames) < views:
            continue
        pair = {system: run_child([system, name, str(views)], data, threads) for system in ("ours", "colmap")}
        if all("seconds" in cell for cell in pair.values()):
            pair["colmap_over_ours"] = pair["colmap"]["seconds"] / pair["ours"]["seconds"]
        cells[str(views)] = pair
        save()
    result["weak_label"][name]["growth"] = {system: growth(cells, system) for system in ("ours", "colmap")}
    save()


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"{result['device']}, {result['threads']} thread(s), {result['date']}, {result['commit']}")
    for name, cell in result["experts"].items():
        if "not_measured" in cell:
            print(f"{name:<42} not measured: {cell['not_measured']}")
        else:
            print(f"{name:<42} {cell['seconds_a_frame']:8.3f} s/frame  {cell['peak_bytes'] / 1e6:8.0f} MB peak")
    for name, captured in result.get("weak_label", {}).items():
        for views, cell in captured["sizes"].items():
            ours, colmap = (cell[system].get("seconds", math.nan) for system in ("ours", "colmap"))
            print(f"{name} {views:>3} frames: ours {ours:7.1f} s, COLMAP {colmap:7.1f} s, ratio {colmap / ours:5.2f}")
        print(f"{name} seconds ~ frames^p: {captured['growth']}")
    for name, cell in result["gpu"].items():
        print(f"{name} on a GPU: {cell}")


def main() -> None:
    """Measure what is not there yet, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/labels.json"))
    parser.add_argument("--captures", nargs="*", default=list(CAPTURES))
    parser.add_argument("--moge", help="weights of MoGe-2, for the GPU")
    parser.add_argument("--cotracker", help="weights of CoTracker3, for the GPU")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.data, given.threads)
        return
    result = read_json(given.out) if given.out.exists() else {}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result.setdefault("device", f"{platform.processor() or platform.machine()} CPU, {os.cpu_count()} cores")
    result.setdefault("threads", given.threads)
    result.setdefault("date", datetime.date.today().isoformat())
    result.setdefault("commit", commit.stdout.strip() or "unknown")
    experts = result.setdefault("experts", {})
    for name in EXPERTS:
        if name not in experts:
            experts[name] = run_child(["expert", name], given.data, given.threads)
            write_json(given.out, result)
    for name in given.captures:
        measure_sizes(result, name, given.data, given.threads, lambda: write_json(given.out, result))
    result["gpu"] = measure_gpu(given.data, given.moge, given.cotracker)
    write_json(given.out, result)
    show(result)


if __name__ == "__main__":
    main()
