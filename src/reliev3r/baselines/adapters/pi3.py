"""pi^3 (yyfz/Pi3): permutation-equivariant camera-frame points and cameras, up to scale. The paper's baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "pi^3",
    "predicts": ("cameras", "depth", "rays", "confidence"),
    "code_licence": "BSD-3-Clause",
    "weights_licence": "CC BY-NC 4.0",
    "repository": "yyfz/Pi3",
    "module": "pi3",
    "install": "pip install git+https://github.com/yyfz/Pi3, or a checkout in --repo with safetensors, huggingface_hub",
    "weights": "Hugging Face yyfz233/Pi3: model.safetensors",
    "paper": "pi^3, the strongest fully-supervised baseline of the table",
    "min_views": 1,
}
PIXELS = 255000
"""Upstream's pixel budget for each image."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """``Pi3`` as released; ``sizes`` may name a smaller "encoder" (dinov2_vits14_reg) and "decoder_size" ("small")."""
    shared.add_repo(repo)
    from pi3.models import pi3

    sizes = dict(sizes or {})
    if "encoder" in sizes:
        from pi3.models.dinov2.hub import backbones

        pi3.dinov2_vitl14_reg = getattr(backbones, sizes.pop("encoder"))
    model = shared.seeded(lambda: pi3.Pi3(**sizes))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights))
    return model.to(device)


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, pixels: int = PIXELS
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All images stretched to one size of multiples of 14 within the pixel budget, which the first image sets."""
    height, width = images[0].shape[:2]
    scale = math.sqrt(pixels / (width * height))
    columns, rows = max(1, round(width * scale / 14)), max(1, round(height * scale / 14))
    while columns * rows * 14 * 14 > pixels and columns * rows > 1:
        columns, rows = (columns - 1, rows) if columns / rows > width / height else (columns, rows - 1)
    resized = [shared.resize(image, 14 * max(1, columns), 14 * max(1, rows)) for image in images]
    return {"image": shared.channels_first(resized)}, shared.whole(images)


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's forward: ``local_points`` [v, h, w, 3], ``conf`` [v, h, w, 1] (logits), ``camera_poses`` [v, 4, 4]."""
    import torch

    with torch.no_grad(), shared.autocast(device):
        raw = model(torch.from_numpy(inputs["image"])[None].to(device))
    return {name: shared.to_numpy(raw[name][0]) for name in ("local_points", "conf", "camera_poses")}


def decode(raw: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The poses are world_from_cam already, in a world of their own; points are the camera's."""
    depth, rays = shared.depth_and_rays(raw["local_points"])
    return {
        "depth": depth,
        "rays": rays,
        "conf": 1 / (1 + np.exp(-raw["conf"][..., 0].astype(np.float64))),
        "world_from_cam": shared.in_first(shared.orthonormal(raw["camera_poses"])),
        "found": np.ones(len(depth), bool),
    }
