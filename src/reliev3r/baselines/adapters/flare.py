"""FLARE (ant-research/FLARE): cameras from its own pose head, points of each view in that view's frame.

The first view is the reference; upstream's demo chooses one with DINOv2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "FLARE",
    "predicts": ("cameras", "depth", "rays", "confidence"),
    "code_licence": "CC BY-NC-SA 4.0",
    "weights_licence": "not stated apart from the code's (CC BY-NC-SA 4.0)",
    "repository": "ant-research/FLARE",
    "module": "",
    "install": "clone ant-research/FLARE; "
    "pip install torch einops scipy huggingface_hub packaging (pytorch3d is optional)",
    "weights": "AntResearch/FLARE on Hugging Face: geometry_pose.pth",
    "paper": "FLARE with its directly predicted cameras, not the PnP poses of its demo",
    "min_views": 2,
}


def build(repo: str | None, weights: str | None, device: str, sizes: dict | None) -> Any:
    """The geometry and pose model; ``sizes`` overrides arguments of its constructor."""
    import argparse

    shared.add_repo(repo)
    _stand_ins()
    import mast3r.utils.path_to_dust3r  # noqa: F401  # extends the path
    from mast3r.model import AsymmetricMASt3R

    settings: dict[str, Any] = {
        **shared.VIT_LARGE,
        "patch_embed_cls": "ManyAR_PatchEmbed",
        "img_size": (512, 512),
        "head_type": "catmlp+dpt",
        "output_mode": "pts3d+desc24",
        "depth_mode": ("exp", -np.inf, np.inf),
        "conf_mode": ("exp", 1, np.inf),
        "two_confs": True,
        "desc_conf_mode": ("exp", 0, np.inf),
    }
    model = shared.seeded(lambda: AsymmetricMASt3R(**{**settings, **(sizes or {})}))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights, "model", [argparse.Namespace]))
    return model.to(device)


def _stand_ins() -> None:
    """What the pose head takes from pytorch3d, where that is not installed (it has to be compiled)."""
    import torch

    class HarmonicEmbedding(torch.nn.Module):
        """sin and cos of x at the frequencies 1, 2, 4 ..., then x itself."""

        def __init__(self, n_harmonic_functions: int = 6, append_input: bool = True) -> None:
            super().__init__()
            self.register_buffer("_frequencies", 2.0 ** torch.arange(n_harmonic_functions), persistent=False)
            self.count = n_harmonic_functions
            self.append_input = append_input

        def forward(self, x: Any) -> Any:
            angle = (x[..., None] * self._frequencies).flatten(-2)
            return torch.cat([angle.sin(), angle.cos()] + [x] * self.append_input, dim=-1)

        def get_output_dim(self, input_dims: int) -> int:
            return input_dims * (2 * self.count + self.append_input)

    conversions = {"quaternion_to_matrix": _matrix_from_quaternion, "matrix_to_quaternion": None}
    shared.repair_torchvision()
    shared.stand_in("torchvision.models")
    shared.stand_in("pytorch3d.renderer", HarmonicEmbedding=HarmonicEmbedding)
    shared.stand_in("pytorch3d.transforms", **conversions)
    shared.stand_in("pytorch3d.transforms.rotation_conversions", **conversions)
    shared.stand_in("pytorch3d.ops", knn_points=None)


def _matrix_from_quaternion(wxyz: Any) -> Any:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] of any length, in torch: I + 2 (w [v]x + [v]x^2)."""
    import torch

    w, x, y, z = torch.nn.functional.normalize(wxyz, dim=-1).unbind(-1)
    zero = torch.zeros_like(w)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3).to(cross) + 2 * (w[..., None, None] * cross + cross @ cross)


def prepare(images: list[np.ndarray], K: np.ndarray | None, long_side: int = 512) -> tuple[dict, np.ndarray]:
    """Images in [-1, 1], cut to 4:3 (512 x 384), or to a square of about as many pixels where the first is upright.

    ``long_side`` is a multiple of 256. The network takes no upright images.
    """
    size = (long_side, long_side * 3 // 4)
    if images[0].shape[0] > images[0].shape[1]:
        size = (long_side * 7 // 8 // 64 * 64,) * 2
    pictures, regions = zip(*(shared.cover(image, *size) for image in images))
    return {"img": 2 * shared.channels_first(pictures) - 1}, np.array(regions)


def run(model: Any, inputs: dict, device: str) -> dict:
    """Camera-frame points [v, h, w, 3], confidences [v, h, w]; R [v, 3, 3] and T [v, 3] of the last pose iteration."""
    import torch

    images = [torch.from_numpy(image)[None].to(device) for image in inputs["img"]]
    views = [{"img": image, "true_shape": torch.tensor([image.shape[-2:]], device=device)} for image in images]
    with torch.inference_mode():
        local, _, cameras = model(views[:1], views[1:], False, torch.float32)
    raw = {"points": local["pts3d"][0], "conf": local["conf"][0]}
    raw.update(R=cameras[-1]["R"].reshape(-1, 3, 3), T=cameras[-1]["T"].reshape(-1, 3))
    return {name: shared.to_numpy(value) for name, value in raw.items()}


def decode(raw: dict, inputs: dict) -> dict:
    """Cameras are cam-to-world, up to the frame and, by their mean length, the scale.

    Upstream's loss divides translations by their mean length (all views, the first one's zero included) and puts the
    camera-frame points together with translations so divided: at that scale both fit together.
    """
    translation = raw["T"] / (np.linalg.norm(raw["T"], axis=-1).mean() + 1e-8)
    poses = shared.in_first(shared.orthonormal(shared.pose(raw["R"], translation)))
    depth, rays = shared.depth_and_rays(raw["points"])
    return {
        "depth": depth,
        "rays": rays,
        "conf": raw["conf"],
        "world_from_cam": poses,
        "found": np.ones(len(poses), bool),
    }
