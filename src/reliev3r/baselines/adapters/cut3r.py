"""CUT3R (CUT3R/CUT3R): a recurrent network that sees the views one after the other; metric points and cameras."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "CUT3R",
    "predicts": ("cameras", "depth", "rays", "confidence", "metric scale"),
    "code_licence": "CC BY-NC-SA 4.0",
    "weights_licence": "not stated; taken as CC BY-NC-SA 4.0",
    "repository": "CUT3R/CUT3R",
    "module": "",
    "install": "a checkout in --repo, with torchvision, einops, transformers, accelerate, scipy",
    "weights": "the repository's README links cut3r_512_dpt_4_64.pth",
    "paper": "CUT3R, fully supervised; views in the order of the capture",
    "min_views": 1,
}
INFINITY = float("inf")
CONFIG = {
    "state_size": 768,
    "state_pe": "2d",
    **shared.VIT_LARGE,
    "rgb_head": True,
    "pose_head": True,
    "patch_embed_cls": "PatchEmbedDust3R",
    "img_size": (512, 512),
    "head_type": "dpt",
    "output_mode": "pts3d+pose",
    "depth_mode": ("exp", -INFINITY, INFINITY),
    "conf_mode": ("exp", 1, INFINITY),
    "pose_mode": ("exp", -INFINITY, INFINITY),
    "landscape_only": False,
}
"""The released 512-pixel network; the checkpoint holds the same as program text, which is never evaluated."""
LONG_SIDE = 512


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """``ARCroco3DStereo`` as released; ``sizes`` replaces entries of ``CONFIG``."""
    shared.add_repo(repo, "src")
    shared.repair_torchvision()
    from dust3r.model import ARCroco3DStereo, ARCroco3DStereoConfig

    _allow_negative_positions()
    model = shared.seeded(lambda: ARCroco3DStereo(ARCroco3DStereoConfig(**{**CONFIG, **(sizes or {})})))
    if weights is not None:
        state = shared.read_state(weights, "model", allow=[argparse.Namespace])
        shared.load_state(model, {name[7:] if name.startswith("module.") else name: state[name] for name in state})
    return model.to(device)


def _allow_negative_positions() -> None:
    """The pose token sits at position -1, which croco's PyTorch rotary embedding would look up in a table.

    Its CUDA kernel multiplies the position by the frequency, and so does this.
    """
    import torch
    from models import pos_embed

    def forward(self: Any, tokens: Any, positions: Any) -> Any:
        quarter = tokens.shape[-1] // 4
        frequency = self.base ** (-torch.arange(quarter, device=tokens.device, dtype=torch.float32) / quarter)
        angle = positions.float()[:, None, :, :, None] * frequency  # batch, 1, token, axis (y, x), quarter
        first, second = tokens.float().unflatten(-1, (2, 2, quarter)).unbind(-2)
        turned = [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()]
        return torch.stack(turned, dim=-2).flatten(-3).type_as(tokens)

    if hasattr(pos_embed.RoPE2D, "apply_rope1d"):  # the CUDA kernel's class has no such method
        pos_embed.RoPE2D.forward = forward


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, side: int = LONG_SIDE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Long side 512, cut in the middle to multiples of 16; square images are cut to 4:3, as upstream does."""
    cut = []
    for image in images:
        scale = side / max(image.shape[:2])
        width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        size = width // 16 * 16, (height if width != height else 3 * width // 4) // 16 * 16
        cut.append(shared.resize_and_crop(image, (width, height), size, "LANCZOS" if scale < 1 else "BICUBIC"))
    shapes = {picture.shape for picture, _ in cut}
    if len(shapes) > 1:
        raise ValueError("the images have several aspect ratios, which this network's batches cannot mix")
    return {"image": 2 * shared.channels_first([p for p, _ in cut]) - 1}, np.array([region for _, region in cut])


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's recurrent forward: ``pts3d_in_self_view`` [v, h, w, 3], ``conf_self``, ``camera_pose`` [v, 7]."""
    import torch

    _, _, height, width = inputs["image"].shape
    views = []
    for index, image in enumerate(torch.from_numpy(inputs["image"])):
        flags = {"img_mask": True, "ray_mask": False, "update": True, "reset": False}
        view = {
            "img": image[None],
            "ray_map": torch.full((1, 6, height, width), float("nan")),
            "true_shape": torch.tensor([[height, width]], dtype=torch.int32),
            "camera_pose": torch.eye(4)[None],
            **{name: torch.tensor([flag]) for name, flag in flags.items()},
        }
        view = {name: tensor.to(device) for name, tensor in view.items()}
        views.append({**view, "idx": index, "instance": str(index)})
    with torch.no_grad():
        output, _ = model(views, ret_state=True)
    names = ("pts3d_in_self_view", "conf_self", "camera_pose")
    return {name: np.concatenate([shared.to_numpy(view[name]) for view in output.ress]) for name in names}


def decode(raw: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``camera_pose`` is world_from_cam: translation, quaternion (real part first). Points are the camera's own."""
    depth, rays = shared.depth_and_rays(raw["pts3d_in_self_view"])
    rotation = shared.rotation_from_quaternion(raw["camera_pose"][:, 3:].astype(np.float64))
    return {
        "depth": depth,
        "rays": rays,
        "conf": raw["conf_self"],
        "world_from_cam": shared.in_first(shared.pose(rotation, raw["camera_pose"][:, :3])),
        "found": np.ones(len(depth), bool),
    }
