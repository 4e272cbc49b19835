"""The device at hand, and which arithmetic it is good at."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""``auto``: bf16 where the device multiplies bf16 matrices in hardware, else float32."""


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """``bf16`` or ``no`` (float32), in Accelerate's words.

    ``auto`` takes bf16 on GPUs that have it and on CPUs with AMX or AVX512-BF16; elsewhere bf16 is emulated and slower.
    """
    if precision != "auto":
        return "bf16" if precision == "bf16" else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "no"


def own_device() -> torch.device:
    """The accelerator where there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
