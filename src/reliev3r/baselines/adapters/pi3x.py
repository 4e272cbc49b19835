"""Pi3X (yyfz/Pi3): pi^3 with convolutional heads and metric scale, from images alone."""

from __future__ import annotations

from typing import Any

from reliev3r_adapters import pi3, shared

CARD = {
    **pi3.CARD,
    "name": "Pi3X",
    "predicts": ("cameras", "depth", "rays", "confidence", "metric scale"),
    "weights": "Hugging Face yyfz233/Pi3X: model.safetensors",
    "paper": "not in the paper's table; its successor is here because users will ask",
}
MULTIMODAL = ("depth_encoder", "depth_emb", "ray_embed", "pose_inject_blk")
"""The parts that read given depth, rays and poses: not built, their weights are skipped."""


def build(repo: str | None, weights: str | None, device: str, sizes: dict[str, Any] | None) -> Any:
    """``Pi3X`` without the branches for given geometry; upstream offers no other sizes."""
    shared.add_repo(repo)
    from pi3.models.pi3x import Pi3X

    model = shared.seeded(lambda: Pi3X(use_multimodal=False, **(sizes or {})))
    if weights is not None:
        shared.load_state(model, shared.read_state(weights), ignore=MULTIMODAL)
    return model.to(device)


prepare, run, decode = pi3.prepare, pi3.run, pi3.decode  # the same conventions; the scale is applied upstream
