"""VGGT-Omega (facebookresearch/vggt-omega): cameras and z-depth of the camera and dense heads, up to scale.

``reliev3r.model.foreign.vggt_omega`` reads the same outputs in torch, to train on them; this runs where reliev3r is not
installed. Who changes one changes the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reliev3r_adapters import shared, vggt

CARD = {
    "name": "VGGT-Omega",
    "predicts": ("cameras", "intrinsics", "depth", "confidence"),
    "code_licence": "FAIR Noncommercial Research License v1",
    "weights_licence": "FAIR Noncommercial Research License v1 (gated)",
    "repository": "facebookresearch/vggt-omega",
    "module": "vggt_omega",
    "install": "pip install --no-deps git+https://github.com/facebookresearch/vggt-omega, or a checkout in --repo",
    "weights": "Hugging Face facebook/VGGT-Omega: vggt_omega_1b_512.pt (of 256_text set prepare = {side = 256})",
    "paper": "not in the paper's table; VGGT's successor of 2026, fully supervised",
    "min_views": 1,
}
SIDE, PATCH = 512, 16
"""Images have as many pixels as a square of this side."""
LONGEST = 2
"""Aspect ratio beyond which images are cut."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """``VGGTOmega`` without the head for text; ``sizes`` are its constructor's arguments ("embed_dim")."""
    shared.add_repo(repo)
    from vggt_omega.models import VGGTOmega

    model = shared.seeded(lambda: VGGTOmega(**(sizes or {})))
    if weights is None:
        _unmask(model)
    else:
        shared.load_state(model, shared.read_state(weights, "model"), ignore=("text_alignment_head.",))
    return model.to(device)


def _unmask(model: Any) -> None:
    """The masks of the keys' biases are NaN until a checkpoint is loaded: 1, and 0 for keys."""
    for name, mask in model.named_buffers():
        if name.endswith("bias_mask"):
            mask.fill_(1)
            mask[len(mask) // 3 : 2 * len(mask) // 3] = 0


def prepare(
    images: list[np.ndarray], K: np.ndarray | None, side: int = SIDE
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Upstream's mode "balanced": each image keeps its aspect at about ``side`` squared pixels, in multiples of 16.

    Images longer than 2 : 1 are cut in the middle first, smaller ones padded with white to the size of the largest.
    """
    pictures, regions = [], []
    for image in images:
        cut, (left, top) = _cut(image)
        aspect = cut.shape[0] / cut.shape[1]
        across = np.sqrt((side // PATCH) ** 2 / aspect)
        columns, rows = max(1, int(np.round(across))), max(1, int(np.round((side // PATCH) ** 2 / across)))
        pictures.append(shared.resize(cut, PATCH * columns, PATCH * rows, "BICUBIC"))
        regions.append([left, top, cut.shape[1], cut.shape[0]])
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    for index, (picture, (left, top, across, down)) in enumerate(zip(pictures, regions)):
        rows, columns = height - picture.shape[0], width - picture.shape[1]
        y, x = down / picture.shape[0], across / picture.shape[1]
        padding = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        pictures[index] = np.pad(picture, padding, constant_values=255)
        regions[index] = [left - columns // 2 * x, top - rows // 2 * y, across + columns * x, down + rows * y]
    return {"image": shared.channels_first(pictures)}, np.array(regions, np.float64)


def _cut(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The middle of an image that is too long, and its left upper corner."""
    height, width = image.shape[:2]
    columns, rows = min(width, LONGEST * height), min(height, LONGEST * width)
    left, top = (width - columns) // 2, (height - rows) // 2
    return image[top : top + rows, left : left + columns], (left, top)


def run(model: Any, inputs: dict[str, np.ndarray], device: str) -> dict[str, np.ndarray]:
    """Upstream's forward, with its own autocast: ``pose_enc``, ``depth`` and ``depth_conf`` as VGGT's."""
    import torch

    with torch.no_grad():
        raw = model(torch.from_numpy(inputs["image"])[None].to(device))
    return {name: shared.to_numpy(raw[name][0]) for name in ("pose_enc", "depth", "depth_conf")}


decode = vggt.decode  # the same encoding of cameras, and the same heads' activations
