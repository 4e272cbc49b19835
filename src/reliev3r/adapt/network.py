"""What of a network is adapted, the network as it was before, and both on disk."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reliev3r.adapt.objective import AnchoredLabels
from reliev3r.adapt.settings import AdaptConfig
from reliev3r.model.foreign import predicts_intrinsics, trunk
from reliev3r.model.lora import Lora, train_last
from reliev3r.train.loop import Batches, is_head
from reliev3r.train.samples import SceneBatches
from reliev3r.types import Prediction, PseudoLabels, Views


def with_hidden_intrinsics(config: AdaptConfig, network: nn.Module) -> AdaptConfig:
    """Intrinsics hidden from a network that predicts them."""
    hide = config.batch.hide_intrinsics or predicts_intrinsics(network)
    return dataclasses.replace(config, batch=dataclasses.replace(config.batch, hide_intrinsics=hide))


class Adaptation:
    """What of a network is trained, and the network as it was before."""

    def __init__(self, network: nn.Module, config: AdaptConfig) -> None:
        self.network, self.config = network, config
        self.original = copy.deepcopy(network).eval() if config.anchor > 0 and config.train != "lora" else None
        self.lora = Lora(network, config.lora, seed=config.seed) if config.train == "lora" else None
        if config.train == "last":
            heads = {name for name, _ in network.named_parameters() if is_head(name)}
            train_last(network, trunk(network), config.last, heads)

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

    def hand_over(self, folder: Path) -> nn.Module:
        """Write ``checkpoint`` (a whole network) and, of LoRA, ``adapter`` to ``folder``; the network, merged."""
        if self.lora is not None:
            self.lora.save(folder / "adapter")
            self.network = self.lora.merge()
        self.network.cpu().save_pretrained(folder / "checkpoint")  # type: ignore[operator]
        return self.network
