"""A forward pass of ours beside upstream pi^3's: time and peak memory, in one run, on the device at hand.

    python benchmarks/forward.py --upstream DIR --out RESULT.json [--views 4 32] [--precision float32 bf16]

DIR is a checkout of yyfz/Pi3 (never part of this repository); without it only ours is measured. Both are `large` with
random weights and a point head. Each system has a process of its own for each precision, one after the other; a process
that takes more than --timeout seconds is ended, and what it had measured is kept. Under bf16 both run in autocast; ours
keeps its large weights in bf16 (`model/inference.py`). Ours derives no world points, upstream always does. The peak is
the process' resident memory (on a GPU: what torch allocated) during the forward passes of a case, weights included.
On a CPU that others use too, `cpu_seconds` compares and `seconds` does not. Upstream's ``autocast("cuda",
enabled=False)`` is mapped to the CPU there, as it crashes in bf16 otherwise; it also fixes the kernel of its attention,
which in float32 on a CPU means whole attention matrices. With --blocks N encoder and decoder of both keep N blocks and
each head one: a small machine can then measure what a pass needs beside the weights (blocks follow one another, so that
depth does not matter to it), not how long it takes.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from about import about, commit_of
from torch import Tensor, nn

from reliev3r.core.files import write_json
from reliev3r.core.types import Views
from reliev3r.model.network import PRESETS, Reliev3R
from reliev3r.model.predict import matrices_in_bf16


def ours(device: torch.device, precision: str, blocks: int | None) -> tuple[Callable[[Tensor], object], int]:
    """Our network as a function of images, and the bytes of its weights."""
    model = Reliev3R(dataclasses.replace(PRESETS["large"], shape="point")).eval()
    shorten(model, blocks)
    if precision == "bf16":
        matrices_in_bf16(model)
    model.to(device)
    return (lambda image: model(Views(image=image))), weight_bytes(model)


def theirs(device: torch.device, precision: str, blocks: int | None) -> tuple[Callable[[Tensor], object], int]:
    """Upstream's, float32 weights as its README uses them."""
    from pi3.models.pi3 import Pi3

    if device.type == "cpu":
        torch.amp.autocast = lambda device_type, **rest: torch.autocast("cpu", **rest)  # type: ignore
    model = shorten(Pi3().eval(), blocks).to(device)
    return model, weight_bytes(model)


def without_initial_values() -> None:
    """Leave weights unset where modules are built; :func:`shorten` sets those that stay (minutes become seconds)."""
    for name in ("trunc_normal_", "kaiming_uniform_", "uniform_", "normal_"):
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def shorten(model: nn.Module, blocks: int | None) -> nn.Module:
    """Keep this many blocks, where it is said (ours and theirs have the same names), and set all weights."""
    if blocks is not None:
        model.encoder.blocks, model.decoder = model.encoder.blocks[:blocks], model.decoder[:blocks]
        for name, part in model.named_children():
            if name.endswith("_decoder"):
                part.blocks = part.blocks[:1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.02, 0.02)
    return model


def weight_bytes(model: nn.Module) -> int:
    """Of all parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def measure(forward: Callable[[Tensor], object], views: int, arguments: argparse.Namespace, precision: str) -> dict:
    """Least time over the repeats, and the peak; a small pass before it warms up."""
    device = torch.device(arguments.device)
    image = torch.rand(1, views, 3, arguments.side, arguments.side, generator=torch.Generator().manual_seed(0))
    image = image.to(device)
    times: list[tuple[float, float]] = []
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        forward(image[:, :1, :, :56, :56])
        reset_peak(device)
        for _ in range(arguments.repeats):
            wall, cpu = now(device), time.process_time()
            forward(image)
            times.append((now(device) - wall, time.process_time() - cpu))
    return {
        "views": views, "precision": precision, "seconds": min(t[0] for t in times),
        "cpu_seconds": min(t[1] for t in times), "peak_bytes": peak(device),
    }  # fmt: skip


def now(device: torch.device) -> float:
    """Seconds, once the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    """Begin to look for a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator keeps of freed memory is nobody's need
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def work(arguments: argparse.Namespace) -> None:
    """One system at one precision: one line of JSON a case."""
    sys.path.extend([] if arguments.upstream is None else [str(arguments.upstream)])
    torch.manual_seed(0)
    without_initial_values()
    precision = arguments.precision[0]
    build = {"ours": ours, "upstream": theirs}[arguments.worker]
    forward, weights = build(torch.device(arguments.device), precision, arguments.blocks)
    for views in arguments.views:
        case = {"system": arguments.worker, "weight_bytes": weights, **measure(forward, views, arguments, precision)}
        print(json.dumps(case), flush=True)


def run(system: str, precision: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The cases of a process of its own."""
    blocks = [] if arguments.blocks is None else ["--blocks", str(arguments.blocks)]
    command = [
        sys.executable, __file__, "--worker", system, "--precision", precision, "--device", arguments.device,
        "--side", str(arguments.side), *blocks, "--repeats", str(arguments.repeats),
        "--views", *map(str, arguments.views),
    ]  # fmt: skip
    command += [] if arguments.upstream is None else ["--upstream", str(arguments.upstream)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=arguments.timeout, check=False)
        output, ended = done.stdout, None if done.returncode == 0 else f"ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"took more than {arguments.timeout} s"
    cases = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
    missing = [views for views in arguments.views if views not in {case["views"] for case in cases}]
    return cases + [{"system": system, "views": views, "precision": precision, "failed": ended} for views in missing]


def ratios(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours over upstream's, where both were measured."""
    found = {(case["system"], case["views"], case["precision"]): case for case in cases if "failed" not in case}
    return [
        {"views": views, "precision": precision} | {
            key: case[key] / found["upstream", views, precision][key]
            for key in ("seconds", "cpu_seconds", "peak_bytes")
        }
        for (system, views, precision), case in found.items()
        if system == "ours" and ("upstream", views, precision) in found
    ]  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[4, 32])
    parser.add_argument("--precision", nargs="+", choices=["float32", "bf16"], default=["float32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--blocks", type=int, help="shorten both networks to this many blocks")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=500.0)
    parser.add_argument("--worker", choices=["ours", "upstream"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        work(arguments)
        return
    systems = ["ours"] if arguments.upstream is None else ["ours", "upstream"]
    cases: list[dict[str, Any]] = []
    for precision in arguments.precision:
        for system in systems:
            cases += run(system, precision, arguments)
            print(*map(json.dumps, cases[-len(arguments.views) :]), sep="\n", flush=True)
    result = {
        **about(arguments.device), "side": arguments.side, "blocks": arguments.blocks, "repeats": arguments.repeats,
        "upstream_commit": arguments.upstream and commit_of(arguments.upstream),
        "cases": cases, "ours_over_upstream": ratios(cases),
    }  # fmt: skip
    print(json.dumps(result["ours_over_upstream"], indent=1))
    if arguments.out is not None:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
