"""RayZer (hwjiang1510/RayZer): cameras and one focal length, learned without any labels; no depth.

It was trained on 24 views whose indices are embedded, so other numbers of views are off its training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "RayZer",
    "predicts": ("cameras", "rays"),
    "code_licence": "CC BY-NC-SA 4.0",
    "weights_licence": "CC BY-NC-SA 4.0",
    "repository": "hwjiang1510/RayZer",
    "module": "",
    "install": "clone hwjiang1510/RayZer; "
    "pip install torch einops easydict pyyaml imageio jaxtyping (xformers optional)",
    "weights": "hwjiang/RayZer on Hugging Face: rayzer_dl3dv_8_12_12_96k.pt",
    "paper": "RayZer, cameras only",
    "min_views": 2,
}
SIZE = 256


def build(repo: str | None, weights: str | None, device: str, sizes: dict | None) -> Any:
    """The model of configs/rayzer_dl3dv.yaml; ``sizes`` overrides entries of its ``model`` section, group by group.

    Raises:
        ValueError: no ``repo``; the configuration lies in it.
    """
    import os

    import yaml
    from easydict import EasyDict

    if repo is None:
        raise ValueError("RayZer is no package; --repo names its checkout")
    shared.add_repo(repo)
    _stand_ins()
    from model.rayzer import RayZer

    with open(os.path.join(repo, "configs", "rayzer_dl3dv.yaml"), encoding="utf8") as file:
        config = yaml.safe_load(file)
    for group, values in (sizes or {}).items():
        config["model"][group].update(values)
    model = shared.seeded(lambda: RayZer(EasyDict(config)))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights, "model"), ignore=["loss_computer."])
    return model.to(device)


def _stand_ins() -> None:
    """The loss, which loads a VGG network, is left out; attention is torch's own where xformers is missing."""
    import sys
    import types

    import torch

    def attention(q: Any, k: Any, v: Any, p: float = 0.0, **_: Any) -> Any:
        swapped = (x.transpose(1, 2) for x in (q, k, v))  # xformers: [batch, tokens, heads, channels]
        return torch.nn.functional.scaled_dot_product_attention(*swapped).transpose(1, 2)

    operators = types.SimpleNamespace(FwOp=None, BwOp=None)
    shared.stand_in("xformers.ops", memory_efficient_attention=attention, fmha=types.SimpleNamespace(flash=operators))
    loss = types.ModuleType("model.loss")
    loss.LossComputer = lambda config: torch.nn.Module()  # type: ignore[attr-defined]
    sys.modules["model.loss"] = loss


def prepare(images: list[np.ndarray], K: np.ndarray | None, size: int = SIZE) -> tuple[dict, np.ndarray]:
    """Central squares of 256 x 256 pixels in [0, 1]."""
    pictures, regions = zip(*(shared.cover(image, size, size) for image in images))
    return {"image": shared.channels_first(pictures)}, np.array(regions)


def run(model: Any, inputs: dict, device: str) -> dict:
    """c2w [v, 4, 4] with the middle view as the world, fxfycxcy [v, 4] as shares of width and height.

    The first part of upstream's forward pass; the rest renders images, of which a few are held out.
    """
    import torch
    from model.rayzer import get_cam_se3

    image = 2 * torch.from_numpy(inputs["image"])[None].to(device) - 1
    views, height, width = image.shape[1], image.shape[3], image.shape[4]
    with torch.inference_mode(), shared.autocast(device):
        tokens = model.image_tokenizer(image)
        patches = tokens.shape[1]
        if model.use_pe_embedding_layer:
            tokens = model.add_sptial_temporal_pe(tokens, 1, views, height, width)
        cameras = model.get_camera_tokens(1, views)
        tokens = model.run_encoder(torch.cat([cameras, tokens.reshape(1, views * patches, -1)], dim=1))
        c2w, fxfycxcy = get_cam_se3(model.pose_predictor(tokens[0, :views].float(), views))
    return {"c2w": shared.to_numpy(c2w), "fxfycxcy": shared.to_numpy(fxfycxcy)}


def decode(raw: dict, inputs: dict) -> dict:
    """Cameras in the first view's frame, and rays of the predicted intrinsics."""
    poses = shared.in_first(shared.orthonormal(raw["c2w"]))
    height, width = inputs["image"].shape[-2:]
    K = np.zeros((len(poses), 3, 3))
    fx, fy, cx, cy = raw["fxfycxcy"].astype(np.float64).T
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = fx * width, fy * height, cx * width, cy * height, 1
    return {
        "rays": shared.rays_from_K(K, height, width),
        "world_from_cam": poses,
        "found": np.ones(len(poses), bool),
        "K": K,
    }
