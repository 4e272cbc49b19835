"""The device at hand, and which arithmetic it is good at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from reliev3r.core.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]
"""``auto``: bf16 where it is faster than float32, see :func:`resolve_precision`."""

CPU_BF16 = "RELIEV3R_CPU_BF16"
"""Environment variable that answers for the CPU: ``yes`` or ``no``; by default the CPU's own flags decide."""


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """``bf16`` or ``no`` (float32), in Accelerate's words.

    ``auto`` takes bf16 on GPUs that have it and on CPUs with AMX. Elsewhere it is emulated and slower; with AVX512-BF16
    alone a training step takes 1.6 times as long as in float32.
    """
    if precision != "auto":
        return "bf16" if precision == "bf16" else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "no"


def resolve_device(name: str = "auto") -> torch.device:
    """The device that ``name`` stands for; ``auto``: the accelerator where there is one, else the CPU.

    Raises:
        UserError: there is no such device.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found or torch.device("cpu")
    if name == "cpu" or (found is not None and name == found.type):
        return torch.device(name)
    there = "cpu" if found is None else f"cpu and {found.type}"
    raise UserError(
        f"--device {name}: not on this machine, which has {there} (CUDA_VISIBLE_DEVICES chooses among GPUs)"
    )


def _cpu_multiplies_bf16() -> bool:
    told = os.environ.get(CPU_BF16)
    if told is not None:
        if told not in ("yes", "no"):
            raise UserError(f"{CPU_BF16}={told}: give yes or no, or leave it unset")
        return told == "yes"
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return False
