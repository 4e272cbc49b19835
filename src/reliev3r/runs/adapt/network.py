"""What an adaptation descends: the weak objective in the network's own unit of length, and the anchor."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn

from reliev3r.core.types import Loss, Prediction, PseudoLabels, Tracks, Views, _Tensors
from reliev3r.losses.anchor import anchor_loss
from reliev3r.losses.tracks import scene_factor, track_geometry
from reliev3r.losses.weak import objective
from reliev3r.model.load import Model
from reliev3r.model.lora import Lora, train_last
from reliev3r.model.predict import predict
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.train.loop import Batches, is_head
from reliev3r.train.sampling import SceneBatches
from reliev3r.train.schedule import teacher_share, weak_settings
from reliev3r.train.validation import HeldoutScene


@dataclass(frozen=True, kw_only=True)
class AnchoredLabels(_Tensors):
    """Labels of a batch, and what the original network says of it."""

    labels: PseudoLabels
    original: Prediction

    _AXES: ClassVar[dict[str, dict[str, int]]] = {}

    @property
    def tracks(self) -> Tracks:
        """Of the labels."""
        return self.labels.tracks


def weak_objective(
    config: AdaptConfig, *, unit: float = 1.0
) -> Callable[[Prediction, PseudoLabels | AnchoredLabels, float], Loss]:
    """The weak objective in units of ``unit``, and the anchor. A pretrained network keeps its own unit of length: the
    gauge, which would pull it to 1, asks for ``unit`` instead."""
    settings = weak_settings(config.objective, hide_intrinsics=config.batch.hide_intrinsics)

    def weak(prediction: Prediction, labels: PseudoLabels | AnchoredLabels, progress: float) -> Loss:
        teacher = teacher_share(progress, until=config.teacher_until)
        pseudo = labels.labels if isinstance(labels, AnchoredLabels) else labels
        loss = objective(in_unit(prediction, unit), pseudo, settings, teacher=teacher)
        if not isinstance(labels, AnchoredLabels):
            return loss
        anchor = anchor_loss(prediction.to(torch.float32), labels.original)
        return Loss(total=loss.total + config.anchor * anchor, parts={**loss.parts, "anchor": anchor})

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
    """What of a network is trained, and the network as it was before."""

    def __init__(self, network: Model, config: AdaptConfig) -> None:
        self.network, self.config = network, config
        self.original = copy.deepcopy(network).eval() if config.anchor > 0 and config.train != "lora" else None
        self.lora = Lora(network, config.lora, seed=config.seed) if config.train == "lora" else None
        if config.train == "last":
            heads = {name for name, _ in network.named_parameters() if is_head(name)}
            train_last(network, network.trunk(), config.last, heads)

    def batches(self, batches: SceneBatches) -> Batches:
        """The same, with what the original network predicts where the run is anchored to it."""
        if self.config.anchor <= 0:
            return batches

        def anchored(step: int, progress: float, micro: int) -> tuple[Views, Any]:
            views, labels = batches(step, progress, micro)
            assert isinstance(labels, PseudoLabels)
            return views, AnchoredLabels(labels=labels, original=self.before(views))

        return anchored

    @torch.no_grad()
    def before(self, views: Views) -> Prediction:
        """What the network predicted before it was adapted; on its device."""
        with self._as_it_was() as network:
            training = network.training
            network.eval()
            prediction: Prediction = network(views.to(next(network.parameters()).device))
            network.train(training)
        return prediction

    @contextmanager
    def _as_it_was(self) -> Iterator[nn.Module]:
        if self.original is not None:
            yield self.original.to(next(self.network.parameters()).device)
        elif self.lora is not None:
            with self.lora.off():
                yield self.network
        else:
            raise ValueError("only an anchored run keeps the original network")

    def hand_over(self, folder: Path) -> Model:
        """Write ``checkpoint`` (a whole network) and, of LoRA, ``adapter`` to ``folder``; the network, merged."""
        if self.lora is not None:
            self.lora.save(folder / "adapter")
            self.network = cast(Model, self.lora.merge())
        self.network.cpu().save_pretrained(folder / "checkpoint")
        return self.network
