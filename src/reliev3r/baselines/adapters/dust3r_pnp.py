"""DUSt3R (naver/dust3r) on the pairs of the first view with each other one, cameras by PnP-RANSAC.

No global alignment, no pairs without the first view; one focal length for all views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "DUSt3R + PnP-RANSAC",
    "predicts": ("cameras (PnP)", "depth", "rays", "confidence"),
    "code_licence": "CC BY-NC-SA 4.0",
    "weights_licence": "CC BY-NC-SA 4.0",
    "repository": "naver/dust3r",
    "module": "",
    "install": "git clone --recursive naver/dust3r; "
    "pip install torch einops scipy opencv-python huggingface_hub packaging",
    "weights": "naver/DUSt3R_ViTLarge_BaseDecoder_512_dpt on Hugging Face: model.safetensors, or the .pth file",
    "paper": "DUSt3R with PnP-RANSAC instead of its global alignment",
    "min_views": 2,
}
TRUSTED = 0.5
"""Share of the pixels, by confidence, that PnP, focal length and scale use: where the views do not overlap, guesses."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict | None) -> Any:
    """The 512-pixel DPT model; ``sizes`` overrides arguments of its constructor."""
    import argparse

    shared.add_repo(repo)
    from dust3r.model import AsymmetricCroCo3DStereo

    settings: dict[str, Any] = {
        **shared.VIT_LARGE,
        "patch_embed_cls": "PatchEmbedDust3R",
        "img_size": (512, 512),
        "head_type": "dpt",
        "output_mode": "pts3d",
        "depth_mode": ("exp", -np.inf, np.inf),
        "conf_mode": ("exp", 1, np.inf),
        "landscape_only": False,
    }
    model = shared.seeded(lambda: AsymmetricCroCo3DStereo(**{**settings, **(sizes or {})}))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights, "model", [argparse.Namespace]))
    return model.to(device)


def prepare(images: list[np.ndarray], K: np.ndarray | None, long_side: int = 512) -> tuple[dict, np.ndarray]:
    """Images in [-1, 1] with this long side and multiples of 16 pixels; square ones lose a quarter of their height.

    The first image sets the size; others are cut to its aspect.
    """
    height, width = images[0].shape[:2]
    scale = long_side / max(height, width)
    size_w, size_h = (round(side * scale) // 16 * 16 for side in (width, height))
    if width == height:  # as upstream, which was trained on no squares
        size_h = 3 * size_w // 64 * 16
    pictures, regions = zip(*(shared.cover(image, size_w, size_h) for image in images))
    scales = np.array([size_w / region[2] for region in regions])
    return {"img": 2 * shared.channels_first(pictures) - 1, "scale": scales}, np.array(regions)


def run(model: Any, inputs: dict, device: str) -> dict:
    """For each pair (0, i), i = 1 ...: both views' points [p, h, w, 3] in view 0's frame, confidences [p, h, w]."""
    import torch

    shape = torch.tensor([inputs["img"].shape[-2:]])
    views = [
        {"img": torch.from_numpy(image)[None].to(device), "true_shape": shape, "instance": [str(index)]}
        for index, image in enumerate(inputs["img"])
    ]
    pairs: dict[str, list] = {"points_first": [], "conf_first": [], "points": [], "conf": []}
    for other in views[1:]:
        with torch.inference_mode():
            first, second = model(views[0], other)
        for name, value in (("points_first", first["pts3d"]), ("points", second["pts3d_in_other_view"])):
            pairs[name].append(shared.to_numpy(value[0]))
        pairs["conf_first"].append(shared.to_numpy(first["conf"][0]))
        pairs["conf"].append(shared.to_numpy(second["conf"][0]))
    return {name: np.stack(values) for name, values in pairs.items()}


def decode(raw: dict, inputs: dict) -> dict:
    """All pairs at the scale of the one that is surest of view 0, whose points and focal length count for that view."""
    first, conf_first = raw["points_first"].astype(np.float64), raw["conf_first"]
    best = int(conf_first.mean((1, 2)).argmax())
    trusted = shared.most_confident(conf_first[best], TRUSTED)
    length = np.linalg.norm(first[:, trusted], axis=-1)
    scale = np.median(length[best] / np.maximum(length, 1e-12), axis=1)
    points = np.concatenate([first[best][None], scale[:, None, None, None] * raw["points"]])
    conf = np.concatenate([conf_first[best][None], raw["conf"]])
    focal = shared.focal_from_points(first[best], trusted)
    K = shared.centred_K(focal * inputs["scale"] / inputs["scale"][0], conf.shape[2], conf.shape[1])
    sure = np.stack([shared.most_confident(view, TRUSTED) for view in conf])
    poses, found = shared.poses_from_points(points, sure, K)
    depth, rays = shared.depth_and_rays(shared.to_cameras(points, poses))
    return {"depth": depth, "rays": rays, "conf": conf, "world_from_cam": poses, "found": found}
