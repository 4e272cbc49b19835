"""MV-DUSt3R+ (facebookresearch/mvdust3r): points of all views in the first view's frame; cameras by PnP-RANSAC.

224 x 224 pixels, and one focal length for all views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "MV-DUSt3R+",
    "predicts": ("cameras (PnP)", "depth", "rays", "confidence"),
    "code_licence": "CC BY-NC 4.0",
    "weights_licence": "not stated apart from the code's (CC BY-NC 4.0)",
    "repository": "facebookresearch/mvdust3r",
    "module": "",
    "install": "clone facebookresearch/mvdust3r; "
    "pip install torch einops scipy opencv-python huggingface_hub packaging tqdm",
    "weights": "Zhenggang/MV-DUSt3R on Hugging Face: MVDp_s2.pth",
    "paper": "MV-DUSt3R+ with cameras by PnP",
    "min_views": 2,
}
SIZE = 224
REFERENCES = 4
TRUSTED = 0.97
"""Share of the pixels that PnP and the focal length use, as in upstream's demo."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict | None) -> Any:
    """The "+" model; ``sizes`` overrides arguments of its constructor."""
    import argparse

    shared.add_repo(repo)
    _stand_ins()
    from dust3r.model import AsymmetricCroCo3DStereoMultiView

    settings: dict[str, Any] = {
        **shared.VIT_LARGE,
        "img_size": (SIZE, SIZE),
        "head_type": "linear",
        "output_mode": "pts3d",
        "depth_mode": ("exp", -np.inf, np.inf),
        "conf_mode": ("exp", 1, 1e9),
        "GS": True,
        "sh_degree": 0,
        "pts_head_config": {"skip": True},
        "m_ref_flag": True,
        "n_ref": REFERENCES,
    }
    model = shared.seeded(lambda: AsymmetricCroCo3DStereoMultiView(**{**settings, **(sizes or {})}))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights, "model", [argparse.Namespace]))
    return model.to(device)


def _stand_ins() -> None:
    """The model's file imports the losses', which want packages for loading and rendering and a
    metric that downloads weights.

    The metric is replaced even where it is installed: it is made at import.
    """
    import sys
    import types

    shared.repair_torchvision()
    unused = dict.fromkeys(("Compose", "ToTensor", "Normalize", "Resize", "RandomCrop"), lambda *_: None)
    shared.stand_in("torchvision.transforms", **unused)
    shared.stand_in("pytorch3d.ops", knn_points=None)
    shared.stand_in("pytorch3d.transforms", so3_relative_angle=None)
    shared.stand_in("pytorch3d.structures", Pointclouds=None)
    for name in ("torchmetrics", "torchmetrics.functional", "torchmetrics.image", "torchmetrics.image.lpip"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchmetrics.functional"].structural_similarity_index_measure = None  # type: ignore[attr-defined]
    sys.modules["torchmetrics.image"].PeakSignalNoiseRatio = lambda **_: None  # type: ignore[attr-defined]
    sys.modules["torchmetrics.image.lpip"].LearnedPerceptualImagePatchSimilarity = (  # type: ignore[attr-defined]
        lambda: None
    )


def feeding_order(views: int) -> np.ndarray:
    """The order in which upstream's demo feeds ``views`` views: far apart ones first, as they become references."""
    order = np.arange(views)
    if views < 12:
        swaps = [(1, 3)] * (views > 3) + [(2, 6)] * (views > 6)
    else:
        swaps = [(quarter, views * quarter // 4 + 1) for quarter in (1, 2, 3)]
    for first, second in swaps:
        order[[first, second]] = order[[second, first]]
    return order


def prepare(images: list[np.ndarray], K: np.ndarray | None, size: int = SIZE) -> tuple[dict, np.ndarray]:
    """Central squares of 224 x 224 pixels in [-1, 1], in the order of upstream's demo."""
    pictures, regions = zip(*(shared.cover(image, size, size) for image in images))
    order = feeding_order(len(images))
    scale = np.array([size / region[2] for region in regions])
    return {"img": 2 * shared.channels_first(pictures)[order] - 1, "order": order, "scale": scale}, np.array(regions)


def run(model: Any, inputs: dict, device: str) -> dict:
    """Points [v, h, w, 3] in the first view's frame and confidences [v, h, w], in the order that was fed."""
    import torch

    shape = torch.tensor([inputs["img"].shape[-2:]])
    views = [{"img": torch.from_numpy(image)[None].to(device), "true_shape": shape} for image in inputs["img"]]
    model.n_ref = min(model.n_ref, len(views))
    with torch.inference_mode():
        first, others = model(views[0], views[1:])
    # several references are several entries of the batch; the first entry is the first reference
    points = [first["pts3d"][0]] + [other["pts3d_in_other_view"][0] for other in others]
    conf = [first["conf"][0]] + [other["conf"][0] for other in others]
    return {"points": shared.to_numpy(torch.stack(points)), "conf": shared.to_numpy(torch.stack(conf))}


def decode(raw: dict, inputs: dict) -> dict:
    """Cameras by PnP with the first view's focal length, which is all views' in original pixels."""
    points, conf = np.empty(raw["points"].shape), np.empty(raw["conf"].shape)
    points[inputs["order"]], conf[inputs["order"]] = raw["points"], raw["conf"]
    trusted = shared.most_confident(conf, TRUSTED)
    focal = shared.focal_from_points(points[0], shared.most_confident(conf[0], TRUSTED))
    height, width = conf.shape[1:]
    K = shared.centred_K(focal * inputs["scale"] / inputs["scale"][0], width, height)
    poses, found = shared.poses_from_points(points, trusted, K)
    depth, rays = shared.depth_and_rays(shared.to_cameras(points, poses))
    return {"depth": depth, "rays": rays, "conf": conf, "world_from_cam": poses, "found": found}
