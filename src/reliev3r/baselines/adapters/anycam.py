"""AnyCam (Brummi/anycam): camera motion of a video from flow and metric depth, for each of 32 focal lengths.

Its pose network alone is learned here; the depth is UniDepth's and the flow UniMatch's, both part of the system. With
known intrinsics the candidate nearest to the true focal length is taken and the depth is back-projected with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared

CARD = {
    "name": "AnyCam",
    "predicts": ("cameras", "depth (UniDepth)", "rays where K is not known"),
    "code_licence": "MIT; UniDepth CC BY-NC 4.0; UniMatch MIT",
    "weights_licence": "not stated; UniDepth's CC BY-NC 4.0",
    "repository": "Brummi/anycam",
    "module": "",
    "install": "git clone --recursive Brummi/anycam, and lpiccinelli-eth/UniDepth into it as UniDepth; "
    "pip install torch torchvision transformers einops timm scipy pyyaml, an xformers that has NystromAttention",
    "weights": "a folder with pytorch_model.bin and config.yaml of fwimbauer/anycam_v1_seq8 (Hugging Face), UniMatch's "
    "gmflow-scale2-regrefine6-mixdata*.pth, and unidepth*.bin of lpiccinelli/unidepth-v2old-vits14 (Hugging Face)",
    "paper": "AnyCam with the true focal length, depth back-projected, relative poses chained; no bundle adjustment",
    "min_views": 2,
}
SIZE = 336
DEPTH_SCALE = 0.1
"""Upstream's unit of length is ten metres."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict | None) -> Any:
    """Pose network, UniMatch and UniDepth; ``sizes`` overrides settings of the pose network.

    Raises:
        ValueError: no ``repo``, or the weights lack a part.
    """
    import os

    import torch
    import yaml

    if repo is None:
        raise ValueError("AnyCam is no package; --repo names its checkout")
    settings = {
        "focal_parameterization": "linlog-candidates",
        "focal_min": 0.2,
        "focal_max": 7,
        "rotation_parameterization": "axis-angle",
        "separate_pose_candidates": True,
        "separate_uncertainty_candidates": True,
    }
    released = os.path.join(weights or "", "config.yaml")
    if weights is not None and os.path.isfile(released):
        with open(released, encoding="utf8") as file:
            settings = yaml.safe_load(file)["model"]["pose_predictor"]
    shared.add_repo(repo, "UniDepth", "")
    shared.repair_torchvision()
    parts = {
        "pose_predictor.": lambda: _pose_network({**settings, **(sizes or {})}),
        "image_processor.unimatch.": _flow_network,
        "depth_predictor.model.": lambda: _depth_network(repo),
    }
    models = [shared.seeded(make) for make in parts.values()]
    if weights is not None:
        _load(dict(zip(parts, models)), weights)
    return torch.nn.ModuleList(models).to(device)


def _pose_network(settings: dict) -> Any:
    """The pose network without the download that its constructor begins with."""
    from transformers import DepthAnythingConfig, Dinov2Backbone, Dinov2Config
    from transformers.models.depth_anything import modeling_depth_anything

    modeling_depth_anything.DepthAnythingConfig = DepthAnythingConfig  # newer transformers moved it
    shared.stand_in("requests")
    from anycam.models import anycam

    class Untrained(Dinov2Backbone):
        @classmethod
        def from_pretrained(cls, *_: Any, **config: Any) -> Any:
            return Dinov2Backbone(Dinov2Config(**config))

    anycam.Dinov2Backbone = Untrained
    return anycam.AnyCam(settings)


def _flow_network() -> Any:
    from unimatch.unimatch import UniMatch

    return UniMatch(
        feature_channels=128,
        num_scales=2,
        upsample_factor=4,
        ffn_dim_expansion=4,
        num_transformer_layers=6,
        reg_refine=True,
        task="flow",
    )


def _depth_network(repo: str) -> Any:
    import json
    import os

    shared.stand_in("wandb")
    from unidepth.models import UniDepthV2old

    with open(os.path.join(repo, "UniDepth", "configs", "config_v2old_vits14.json"), encoding="utf8") as file:
        return UniDepthV2old(json.load(file))


def _load(models: dict[str, Any], folder: str) -> None:
    """Each part from AnyCam's own file where that has it, else from the part's own."""
    import glob
    import os

    own = shared.read_state(os.path.join(folder, "pytorch_model.bin"), "model")
    patterns = {"image_processor.unimatch.": "gmflow*", "depth_predictor.model.": "unidepth*"}
    for prefix, model in models.items():
        state = {name[len(prefix) :]: value for name, value in own.items() if name.startswith(prefix)}
        if not state:
            files = sorted(glob.glob(os.path.join(folder, patterns.get(prefix, "pose_predictor*"))))
            if not files:
                raise ValueError(f"{folder} holds no weights of {prefix.rstrip('.')}")
            state = shared.read_state(files[0], "model")
        shared.load_state(model, state)


def prepare(images: list[np.ndarray], K: np.ndarray | None, size: int = SIZE) -> tuple[dict, np.ndarray]:
    """Central squares of 336 x 336 pixels in [0, 1], and K in their pixels where it is known."""
    pictures, regions = zip(*(shared.cover(image, size, size) for image in images))
    inputs = {"image": shared.channels_first(pictures)}
    if K is not None:
        inputs["K"] = shared.in_region(K, np.array(regions), size, size)
    return inputs, np.array(regions)


def run(model: Any, inputs: dict, device: str) -> dict:
    """Poses [2, v, c, 4, 4] of the video and of the reversed one, for c focal lengths; depth [v, h, w]."""
    import torch

    network, flow_network, depth_network = model
    images = torch.from_numpy(inputs["image"]).to(device)
    with torch.inference_mode():
        depth = torch.cat([depth_network.infer(image[None])["depth"] for image in images]) * DEPTH_SCALE
        pairs = [_flows(flow_network, *pair) for pair in zip(images, images[1:])]  # noqa: RUF007  (Python 3.8)
        still = torch.zeros_like(pairs[0][0])  # the last frame has no next one
        there, back = zip(*pairs)
        flows = torch.stack([torch.stack([*there, still]), torch.stack([*back[::-1], still])])
        seen = torch.cat([flows, torch.ones_like(flows[:, :, :1])], dim=2)
        both = [torch.stack([value, value.flip(0)]) for value in (images, depth)]
        out = network(images=both[0], depths=both[1], flow_occs=seen)
    names = {"poses": "poses", "focal_probs": "focal_length_probs", "focal_candidates": "focal_length_candidates"}
    raw = {name: shared.to_numpy(out[theirs]) for name, theirs in names.items()}
    raw["focal_probs"] = raw["focal_probs"].reshape(2, -1)[0]
    raw["focal_candidates"] = raw["focal_candidates"].reshape(2, -1)[0]
    return {**raw, "depth": shared.to_numpy(depth[:, 0])}


def _flows(network: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Flow [2, h, w] to the second image and back, halves of the image long, with upstream's settings of UniMatch.

    Upstream computes it on slightly smaller images and leaves its length as it is there; so do we.
    """
    import torch.nn.functional as F

    size = first.shape[-2:]
    scale = min(1.0, 320 / min(size))
    small = [int(np.ceil(side * scale / 32)) * 32 for side in size]
    images = [255 * F.interpolate(x[None], small, mode="bilinear", align_corners=True) for x in (first, second)]
    flows = network(
        *images,
        attn_type="swin",
        attn_splits_list=[2, 8],
        corr_radius_list=[-1, 4],
        prop_radius_list=[-1, 1],
        num_reg_refine=6,
        task="flow",
        pred_bidir_flow=True,
    )["flow_preds"][-1]
    flows = F.interpolate(flows, size, mode="bilinear", align_corners=True)
    flows = flows * flows.new_tensor([2 / size[1], 2 / size[0]])[:, None, None]
    return flows[0], flows[1]


def decode(raw: dict, inputs: dict) -> dict:
    """Chain the relative poses x_next = P x of both directions; the last of each sequence means nothing."""
    candidates, chosen = raw["focal_candidates"], int(raw["focal_probs"].argmax())
    views, height, width = raw["depth"].shape
    if "K" in inputs:
        K = inputs["K"]
        chosen = int(np.abs(candidates - 2 * K[:, 0, 0].mean() / width).argmin())
    else:
        focal = float((raw["focal_probs"] * candidates).sum()) * width / 2
        K = shared.centred_K(np.full(views, focal), width, height)
    forward, backward = (shared.orthonormal(poses[:-1, chosen]) for poses in raw["poses"])
    steps = _middle(forward, shared.invert(backward[::-1]))
    poses = [np.eye(4)]
    for step in steps:
        poses.append(poses[-1] @ shared.invert(step))
    return {
        "depth": np.maximum(raw["depth"], shared.MIN_DEPTH),
        "rays": shared.rays_from_K(K, height, width),
        "conf": np.ones_like(raw["depth"]),  # its uncertainty is one of flow, not of depth
        "world_from_cam": shared.orthonormal(np.stack(poses)),
        "found": np.ones(views, bool),
        "K": K,
    }


def _middle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The poses half way: rotations by the shortest way (the nearest rotation to the sum), mean translations."""
    return shared.orthonormal((first + second) / 2)
