"""What an adaptation descends, in the network's own unit of length, and what of the network it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn

from reliev3r.core.types import Loss, Prediction, PseudoLabels
from reliev3r.losses.tracks import scene_factor, track_geometry
from reliev3r.losses.weak import objective
from reliev3r.model.load import Model
from reliev3r.model.lora import Lora, train_last
from reliev3r.model.predict import predict
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.training.schedule import teacher_share, weak_settings
from reliev3r.training.validation import HeldoutScene


def weak_objective(config: AdaptConfig, *, unit: float = 1.0) -> Callable[[Prediction, PseudoLabels, float], Loss]:
    """The weak objective in units of ``unit``. A pretrained network keeps its own unit of length: the gauge, which
    would pull it to 1, asks for ``unit`` instead."""
    settings = weak_settings(config.objective, hide_intrinsics=config.batch.hide_intrinsics)

    def weak(prediction: Prediction, labels: PseudoLabels, progress: float) -> Loss:
        teacher = teacher_share(progress, until=config.teacher_until)
        return objective(in_unit(prediction, unit), labels, settings, teacher=teacher)

    return weak


def in_unit(prediction: Prediction, unit: float) -> Prediction:
    """The same scene, its lengths divided by ``unit``."""
    pose = prediction.world_from_cam
    scaled = torch.cat([pose[..., :3, :3], pose[..., :3, 3:] / unit], dim=-1)
    return dataclasses.replace(
        prediction,
        depth=prediction.depth / unit,
        world_from_cam=torch.cat([scaled, pose[..., 3:, :]], dim=-2),
    )


def network_unit(network: nn.Module, scenes: list[HeldoutScene]) -> float:
    """The median, over captures, of the mean distance from cameras to tracked points as a network predicts them."""
    factors = []
    for scene in scenes:
        if bool(scene.tracks.visible.any()):
            geometry = track_geometry(predict(network, scene.views), scene.tracks)
            factors.append(scene_factor(geometry.points_cam, scene.tracks))
    return float(torch.stack(factors).median()) if factors else 1.0


def with_hidden_intrinsics(config: AdaptConfig, network: Model) -> AdaptConfig:
    """Intrinsics hidden from a network that predicts them."""
    hide = config.batch.hide_intrinsics or network.predicts_intrinsics
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, hide_intrinsics=hide))


class Adaptation:
    """What of a network is trained."""

    def __init__(self, network: Model, config: AdaptConfig) -> None:
        self.network, self.config = network, config
        self.lora = Lora(network, config.lora, seed=config.seed) if config.train == "lora" else None
        if config.train == "last":
            heads = {name for name, _ in network.named_parameters() if _is_head(name)}
            train_last(network, network.trunk(), config.last, heads)

    def hand_over(self, folder: Path) -> Model:
        """Write ``checkpoint`` (a whole network) and, of LoRA, ``adapter`` to ``folder``; the network, merged."""
        if self.lora is not None:
            self.lora.save(folder / "adapter")
            self.network = cast(Model, self.lora.merge())
        self.network.cpu().save_pretrained(folder / "checkpoint")
        return self.network


def _is_head(name: str) -> bool:
    """Whether a weight belongs to a head, by its name: ours, and those of the networks in ``model.foreign``."""
    return any(part.endswith(("_head", "_decoder")) or part in ("head", "cam_dec") for part in name.split("."))
