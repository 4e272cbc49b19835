"""VGGT (facebookresearch/vggt): cameras and z-depth of the camera and depth heads, up to scale.

``reliev3r.model.foreign.vggt`` reads the same outputs in torch, to train on them; this runs where reliev3r is not
installed. Who changes one changes the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "VGGT",
    "predicts": ("cameras", "intrinsics", "depth", "confidence"),
    "code_licence": "VGGT License v1 (commercial use allowed, military use not)",
    "weights_licence": "VGGT-1B: CC BY-NC 4.0; VGGT-1B-Commercial: VGGT License v1",
    "repository": "facebookresearch/vggt",
    "module": "vggt",
    "install": "pip install git+https://github.com/facebookresearch/vggt, or a checkout in --repo with einops",
    "weights": "Hugging Face facebook/VGGT-1B: model.safetensors or model.pt",
    "paper": "VGGT, fully supervised",
    "min_views": 1,
}
SIDE = 518
SMALLEST_FOV = 0.01
"""Radians; the field of view leaves upstream through a ReLU, and 0 would be an infinite focal length."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """``VGGT`` with the camera and depth heads; the point and track heads are neither built nor read.

    ``sizes`` ("aggregator", "camera_head", "depth_head": their constructors' arguments) assembles a smaller network of
    the same parts, which the constructor of ``VGGT`` has no arguments for.
    """
    shared.add_repo(repo)
    from vggt.models.vggt import VGGT

    model = shared.seeded(lambda: VGGT(enable_point=False, enable_track=False) if sizes is None else _small(sizes))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights, "model"), ignore=("point_head.", "track_head."))
    return model.to(device)


def _small(sizes: dict[str, Any]) -> Any:
    import torch
    from vggt.heads.camera_head import CameraHead
    from vggt.heads.dpt_head import DPTHead
    from vggt.models.aggregator import Aggregator
    from vggt.models.vggt import VGGT

    model = VGGT.__new__(VGGT)
    torch.nn.Module.__init__(model)
    width = 2 * sizes["aggregator"]["embed_dim"]
    model.aggregator = Aggregator(**sizes["aggregator"])
    model.camera_head = CameraHead(dim_in=width, **sizes["camera_head"])
    model.depth_head = DPTHead(
        dim_in=width, output_dim=2, activation="exp", conf_activation="expp1", **sizes["depth_head"]
    )
    model.point_head = model.track_head = None
    return model


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, side: int = SIDE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Width ``side``, height a multiple of 14, cut in the middle to ``side``; lower images are padded with white."""
    cut = []
    for image in images:
        height = max(1, round(image.shape[0] * side / image.shape[1] / 14)) * 14
        cut.append(shared.resize_and_crop(image, (side, height), (side, min(height, side)), "BICUBIC"))
    tallest = max(picture.shape[0] for picture, _ in cut)
    pictures, regions = [], []
    for picture, (left, top, width, height) in cut:
        missing = tallest - picture.shape[0]
        above, pixel = missing // 2, height / picture.shape[0]
        pictures.append(np.pad(picture, ((above, missing - above), (0, 0), (0, 0)), constant_values=255))
        regions.append([left, top - above * pixel, width, height + missing * pixel])
    return {"image": shared.channels_first(pictures)}, np.array(regions)


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's forward: ``pose_enc`` [v, 9], ``depth`` [v, h, w, 1], ``depth_conf`` [v, h, w] (1 + exp)."""
    import torch

    with torch.no_grad(), shared.autocast(device):
        raw = model(torch.from_numpy(inputs["image"])[None].to(device))
    return {name: shared.to_numpy(raw[name][0]) for name in ("pose_enc", "depth", "depth_conf")}


def decode(raw: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``pose_enc`` is cam_from_world: translation, quaternion (real part last), vertical and horizontal field of view.

    The principal point is the centre. Depth is unprojected, which its authors found better than the point head.
    """
    encoding, depth = raw["pose_enc"].astype(np.float64), raw["depth"][..., 0]
    height, width = depth.shape[-2:]
    focal = 0.5 / np.tan(0.5 * np.clip(encoding[:, 7:], SMALLEST_FOV, np.pi - SMALLEST_FOV))
    K = np.zeros((len(depth), 3, 3))
    K[:, 0, 0], K[:, 1, 1] = width * focal[:, 1], height * focal[:, 0]
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    rotation = shared.rotation_from_quaternion(encoding[:, [6, 3, 4, 5]])
    return {
        "depth": np.maximum(depth, shared.MIN_DEPTH * np.median(depth)),
        "rays": shared.rays_from_K(K, height, width),
        "K": K,
        "conf": raw["depth_conf"],
        "world_from_cam": shared.in_first(shared.invert(shared.pose(rotation, encoding[:, :3]))),
        "found": np.ones(len(depth), bool),
    }
