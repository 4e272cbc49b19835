"""Depth Anything 3 (ByteDance-Seed/Depth-Anything-3), its networks of any views: z-depth and cameras.

``reliev3r.model.foreign.da3`` reads the same outputs in torch, to train on them; this runs where reliev3r is not
installed. Who changes one changes the other.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "Depth Anything 3",
    "predicts": ("cameras", "intrinsics", "depth", "confidence", "metric scale (nested networks)"),
    "code_licence": "Apache-2.0",
    "weights_licence": "DA3-SMALL, DA3-BASE: Apache-2.0; DA3-LARGE, DA3-GIANT, nested: CC BY-NC 4.0",
    "repository": "ByteDance-Seed/Depth-Anything-3",
    "module": "depth_anything_3",
    "install": "pip install --no-deps git+https://github.com/ByteDance-Seed/Depth-Anything-3 (then omegaconf einops "
    "addict opencv-python safetensors), or its folder src in --repo",
    "weights": "Hugging Face depth-anything/DA3-LARGE-1.1, the whole folder: config.json and model.safetensors",
    "paper": "not in the paper's table; fully supervised, of 2025-11",
    "min_views": 1,
}
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SIDE, PATCH = 504, 14
SMALLEST_FOV = 0.01
"""Radians; the field of view leaves upstream through a ReLU, which makes focal lengths of a million images' widths."""
SPLATS = ("gs_head", "gs_adapter")
"""Parts that are not built; their weights are skipped."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """The network that ``config.json`` beside the weights names; without weights, {"model_name": ...} of ``sizes``."""
    os.environ.setdefault("DA3_LOG_LEVEL", "WARN")
    inner = None if repo is None else os.path.join(repo, "src")
    shared.add_repo(inner if inner is not None and os.path.isdir(inner) else repo)
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    name = (sizes or {}).get("model_name", "da3-large")
    if weights is not None:
        with open(os.path.join(weights, "config.json"), encoding="utf8") as file:
            name = json.load(file).get("model_name")
    if name not in MODEL_REGISTRY:
        raise ValueError(f"upstream has no network {name}, but {', '.join(MODEL_REGISTRY)}")
    settings = load_config(MODEL_REGISTRY[name])
    seen_together = settings.get("anyview", settings)
    if seen_together.get("cam_dec") is None:
        raise ValueError(f"{name} predicts no cameras; give a network of any views, for instance DA3-LARGE-1.1")
    for part in SPLATS:
        seen_together.pop(part, None)
    model = shared.seeded(lambda: create_object(settings))
    if weights is not None:
        state = shared.read_state(os.path.join(weights, "model.safetensors"))
        state = {name[len("model.") :] if name.startswith("model.") else name: value for name, value in state.items()}
        shared.load_state(model, state, ignore=[prefix + part for prefix in ("", "da3.") for part in SPLATS])
    return model.to(device)


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, side: int = SIDE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Long side ``side``, then each side to the nearest multiple of 14, then all cut to the smallest in the middle."""
    pictures = [_resized(image, side) for image in images]
    rows, columns = (min(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    cut, regions = [], []
    for image, picture in zip(images, pictures):
        left, top = (picture.shape[1] - columns) // 2, (picture.shape[0] - rows) // 2
        x, y = image.shape[1] / picture.shape[1], image.shape[0] / picture.shape[0]
        cut.append(picture[top : top + rows, left : left + columns])
        regions.append([left * x, top * y, columns * x, rows * y])
    return {"image": (shared.channels_first(cut) - MEAN[:, None, None]) / STD[:, None, None]}, np.array(regions)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale != 1:
        image = _scaled(image, max(1, round(width * scale)), max(1, round(height * scale)), scale > 1)
    height, width = image.shape[:2]
    columns, rows = (max(PATCH, (length + PATCH // 2) // PATCH * PATCH) for length in (width, height))
    if (columns, rows) == (width, height):
        return image
    return _scaled(image, columns, rows, columns > width or rows > height)


def _scaled(image: np.ndarray, width: int, height: int, larger: bool) -> np.ndarray:
    import cv2

    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if larger else cv2.INTER_AREA)


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's forward: ``depth``, ``depth_conf`` [v, h, w], ``extrinsics`` [v, 3, 4], ``intrinsics`` [v, 3, 3]."""
    import torch

    with torch.no_grad(), shared.autocast(device):
        raw = model(torch.from_numpy(inputs["image"])[None].to(device))
    return {name: shared.to_numpy(raw[name][0]) for name in ("depth", "depth_conf", "extrinsics", "intrinsics")}


def decode(raw: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``extrinsics`` are cam_from_world, in the frame of the view that upstream chooses."""
    depth = raw["depth"]
    height, width = depth.shape[-2:]
    K = np.minimum(raw["intrinsics"].astype(np.float64), 0.5 * max(height, width) / np.tan(0.5 * SMALLEST_FOV))
    extrinsics = raw["extrinsics"].astype(np.float64)
    cam_from_world = shared.orthonormal(shared.pose(extrinsics[:, :3, :3], extrinsics[:, :3, 3]))
    return {
        "depth": np.maximum(depth, shared.MIN_DEPTH * np.median(depth)),
        "rays": shared.rays_from_K(K, height, width),
        "K": K,
        "conf": raw["depth_conf"],
        "world_from_cam": shared.in_first(shared.invert(cam_from_world)),
        "found": np.ones(len(depth), bool),
    }
