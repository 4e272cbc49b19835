"""Where and when a number was measured."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch


def about(device: str = "cpu") -> dict[str, Any]:
    """Device, threads, torch, date and commit, for the head of a result."""
    return {
        "device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "date": datetime.date.today().isoformat(), "commit": commit_of(Path(__file__).parent),
    }  # fmt: skip


def device_name(device: str) -> str:
    """Of the GPU, or of the processor and whether it multiplies bf16 matrices."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf8") if cpuinfo.is_file() else ""
    model = re.search(r"model name\s*:\s*(.*)", text)
    return f"{model[1] if model else platform.machine()}, {'with' if 'amx_bf16' in text else 'no'} AMX"


def commit_of(folder: Path) -> str:
    """Of a checkout; ``unknown`` where there is none."""
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=folder, check=False
    )
    return run.stdout.strip() or "unknown"
