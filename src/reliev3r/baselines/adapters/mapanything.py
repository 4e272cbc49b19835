"""MapAnything (facebookresearch/map-anything) from images alone: metric rays, depth and cameras.

``reliev3r.model.foreign.mapanything`` reads the same outputs in torch, to train on them; this runs where reliev3r is
not installed. Who changes one changes the other.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "MapAnything",
    "predicts": ("cameras", "depth", "rays", "confidence", "metric scale"),
    "code_licence": "Apache-2.0",
    "weights_licence": "facebook/map-anything: CC BY-NC 4.0; facebook/map-anything-apache: Apache-2.0",
    "repository": "facebookresearch/map-anything",
    "module": "mapanything",
    "install": "pip install git+https://github.com/facebookresearch/map-anything (see docs/baselines.md: torchaudio)",
    "weights": "Hugging Face facebook/map-anything, the whole folder: config.json and model.safetensors",
    "paper": "MapAnything, fully supervised, from images alone",
    "min_views": 1,
}
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
SIDE, PATCH = 518, 14
SHORT_SIDES = {"wide": (518, 392, 336, 294, 252, 168), "tall": (518, 392, 336, 294, 252)}
"""Of the images that upstream trains on; the long side is 518."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """The network that ``config.json`` beside the weights describes; without weights, upstream's own configuration.

    ``sizes`` are overrides of that configuration, for instance {"model.encoder.size": "small"}.
    """
    shared.add_repo(repo)
    shared.repair_torchvision()
    with _encoders_without_network():
        if weights is None:
            return shared.seeded(lambda: _random(repo, sizes or {})).to(device)
        from mapanything.models import MapAnything

        with open(os.path.join(weights, "config.json"), encoding="utf8") as file:
            config = json.load(file)
        known = inspect.signature(MapAnything.__init__).parameters
        model = shared.seeded(lambda: MapAnything(**{name: config[name] for name in config if name in known}))
    return shared.load_state(model, shared.read_state(os.path.join(weights, "model.safetensors"))).to(device)


def _random(repo: str | None, sizes: dict[str, Any]) -> Any:
    import hydra
    from mapanything.models import init_model

    if repo is None:
        raise ValueError("random weights need the configurations of a checkout: name it in --repo")
    overrides = ["model=mapanything", "machine=default"] + [f"{name}={value}" for name, value in sizes.items()]
    with hydra.initialize_config_dir(os.path.join(os.path.abspath(repo), "configs"), version_base=None):
        config = hydra.compose("train", overrides)
    return init_model(config.model.model_str, config.model.model_config)


@contextlib.contextmanager
def _encoders_without_network() -> Iterator[None]:
    """UniCeption always asks torch.hub for a pretrained DINOv2, whose weights the checkpoint then replaces.

    The same class without weights comes from upstream's own copy instead.
    """
    import torch
    from mapanything.models.external.dinov2.hub import backbones

    load = torch.hub.load
    torch.hub.load = lambda source, name, *args, **kwargs: getattr(backbones, name)(pretrained=False)
    try:
        yield
    finally:
        torch.hub.load = load


def _size(images: list[np.ndarray], side: int) -> tuple[int, int]:
    """(width, height) of upstream's aspect ratio nearest to the images' mean one, scaled to the long side ``side``."""
    aspect = float(np.mean([image.shape[1] / image.shape[0] for image in images]))
    offered = [(SIDE, short) for short in SHORT_SIDES["wide"]] + [(short, SIDE) for short in SHORT_SIDES["tall"]]
    width, height = min(offered, key=lambda size: abs(size[0] / size[1] - aspect))
    return (max(1, round(width * side / SIDE / PATCH)) * PATCH, max(1, round(height * side / SIDE / PATCH)) * PATCH)


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, side: int = SIDE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All images at one of upstream's sizes: resized until they cover it, then cut in the middle."""
    width, height = _size(images, side)
    pictures, regions = [], []
    for image in images:
        scale = max(width / image.shape[1], height / image.shape[0]) + 1e-8
        resized = int(image.shape[1] * scale), int(image.shape[0] * scale)
        method = "LANCZOS" if scale < 1 else "BICUBIC"
        picture, region = shared.resize_and_crop(image, resized, (width, height), method)
        pictures.append(picture)
        regions.append(region)
    pixels = shared.channels_first(pictures)
    return {"image": (pixels - MEAN[:, None, None]) / STD[:, None, None]}, np.array(regions)


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's ``infer``, no masks: ``pts3d_cam`` [v, h, w, 3], ``camera_poses`` [v, 4, 4], ``conf`` [v, h, w]."""
    import torch

    views = [{"img": image[None], "data_norm_type": ["dinov2"]} for image in torch.from_numpy(inputs["image"])]
    with torch.no_grad():
        raw = model.infer(
            views,
            memory_efficient_inference=False,
            use_amp=device.startswith("cuda"),
            apply_mask=False,  # masked pixels would become zeros
            mask_edges=False,
        )
    return {
        name: np.concatenate([shared.to_numpy(view[name]) for view in raw])
        for name in ("pts3d_cam", "camera_poses", "conf")
    }


def decode(raw: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The poses are world_from_cam; points are the camera's, in metres."""
    depth, rays = shared.depth_and_rays(raw["pts3d_cam"])
    return {
        "depth": depth,
        "rays": rays,
        "conf": raw["conf"],
        "world_from_cam": shared.in_first(shared.orthonormal(raw["camera_poses"])),
        "found": np.ones(len(depth), bool),
    }
