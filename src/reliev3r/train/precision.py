"""Which arithmetic a device is good at."""

from __future__ import annotations

from pathlib import Path

import torch

from reliev3r.train.config import Precision


def resolve_precision(precision: Precision, device: torch.device) -> str:
    """``bf16`` or ``no`` (float32), in Accelerate's words.

    ``auto`` takes bf16 on GPUs that have it and on CPUs with AMX or AVX512-BF16; elsewhere bf16 is emulated and slower.
    """
    if precision != "auto":
        return "bf16" if precision == "bf16" else "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "no"


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
