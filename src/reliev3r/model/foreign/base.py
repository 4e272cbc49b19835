"""What other systems' networks have in common once they are wrapped."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from reliev3r.core.device import Precision
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path, read_json, write_json
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.collapse_signs import CONF_LOGIT_BOUND
from reliev3r.model.card import model_card, write_card

TRAINED_AS = "reliev3r.json"
"""Beside adapted weights: what inference must match."""
LEAST_DEPTH = 1e-4
"""Of a sample's median: depth that leaves an activation as 0 has no logarithm."""


class ForeignNetwork(nn.Module, ABC):
    """Another system's network as ``model(views) -> Prediction``, with gradients.

    Its weights keep upstream's names below ``network.``, of several names of one weight the first; what is saved is
    upstream's own file.
    """

    system: ClassVar[str]
    """Its name, for people."""
    prefix: ClassVar[str]
    """Its name in ``--model PREFIX:PATH``."""
    terms: ClassVar[str] = "that of the weights which it began with"
    """The licence of what training makes of its weights."""
    patch_size: int = 14
    image_size: int = 518
    """Long side in pixels of the images that it expects: what all of these systems were trained up to."""
    precision: Precision = "auto"
    """Arithmetic that it expects."""
    predicts_intrinsics: ClassVar[bool] = True
    """Whether it needs no K."""

    def __init__(
        self, network: nn.Module, *, rest: dict[str, Tensor] | None = None, config: dict[str, Any] | None = None
    ) -> None:
        """What is not run is written back as it was.

        Args:
            network: upstream's module, or what of it is run.
            rest: the other weights of upstream's file.
            config: of upstream's ``config.json``, where it has one.
        """
        super().__init__()
        self.network = network
        self.rest = rest or {}
        self.facts: dict[str, str] = {}
        self.upstream_config = config  # `config` would be read by peft
        self.aliases = {
            alias: first for first, *others in _names_of_each(self.state_dict(keep_vars=True)) for alias in others
        }
        self.register_state_dict_post_hook(_without_aliases)
        self.register_load_state_dict_pre_hook(_with_aliases)

    @abstractmethod
    def predict_batch(self, views: Views) -> Prediction:
        """Views with exactly one batch dimension, K known or not, to a prediction."""

    @abstractmethod
    def trunk(self) -> nn.ModuleList:
        """The blocks between the encoder and the heads, in order."""

    def forward(self, views: Views) -> Prediction:
        """As :meth:`Reliev3R.forward`: rays come from ``views.K`` where it is known, else from the network.

        Raises:
            ValueError: image size is no multiple of the patch.
        """
        batch, (height, width) = views.image.shape[:-4], views.size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"image size {height}x{width} is no multiple of the patch size {self.patch_size}")
        count = math.prod(batch)
        flat = views.map(lambda x: x.reshape(count, *x.shape[len(batch) :]))
        return self.predict_batch(flat).map(lambda x: x.reshape(*batch, *x.shape[1:]))

    def describe(self, *, image_size: int, precision: Precision, facts: Mapping[str, str]) -> None:
        """As :meth:`Reliev3R.describe`."""
        self.image_size, self.precision, self.facts = image_size, precision, dict(facts)

    def recall(self, weights: Path) -> None:
        """Take what :meth:`save_pretrained` wrote beside ``weights`` about the training; upstream's files have none."""
        path = weights.parent / TRAINED_AS
        if not path.is_file():
            return
        told = read_json(path)
        try:
            size, precision = told["image_size"], told["precision"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: says no image_size and precision; delete it, and give --image-size") from error
        if not isinstance(size, int) or not 16 <= size <= 8192 or precision not in get_args(Precision):
            raise UserError(f"{path}: image_size {size} or precision {precision} cannot be; delete the file")
        self.image_size, self.precision = size, precision

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``model.safetensors`` (and ``config.json``) with upstream's names: its code and ``--model`` load it.

        Image size and arithmetic go to ``reliev3r.json`` beside them, for upstream's ``config.json`` has no place.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / TRAINED_AS, {"image_size": self.image_size, "precision": self.precision})
        self.write_card(Path(folder))
        own = self.network.state_dict()
        stored = {min(names): own[names[0]] for names in _names_of_each(own)}  # the name that safetensors chooses
        tensors = {**self.rest, **stored}
        with atomic_path(Path(folder) / "model.safetensors") as temporary:
            save_file({name: value.cpu().contiguous().clone() for name, value in tensors.items()}, temporary)
        if self.upstream_config is not None:
            with atomic_path(Path(folder) / "config.json") as temporary:
                temporary.write_text(json.dumps(self.upstream_config, indent=2), encoding="utf8")

    def write_card(self, folder: Path) -> None:
        """Write the model card alone, for facts that came after the weights."""
        millions = sum(p.numel() for p in self.parameters()) / 1e6
        what = {
            "network": f"{self.system}, {millions:.1f} M parameters, in its own code",
            "images": f"{self.image_size} pixels on the long side, multiples of {self.patch_size} pixels",
            "licence": self.terms,
        }
        load = f'import reliev3r as r3\n\nmodel = r3.load_model("{self.prefix}:THIS FOLDER")'
        title = f"{self.system}, adapted without annotation"
        write_card(folder, model_card(title=title, licence="other", what=what, load=load, facts=self.facts))


def assembled(
    views: Views,
    *,
    depth: Float[Tensor, "b v h w"],
    rays: Float[Tensor, "b v h w 3"],
    logit: Float[Tensor, "b v h w"],
    world_from_cam: Float[Tensor, "b v 4 4"],
) -> Prediction:
    """float32; ``rays`` are replaced by those of K where it is known; ``logit`` of a confidence that means the same
    from 0 to infinity as ours from 0 to 2."""
    return Prediction(
        depth=torch.maximum(depth, least_depth(depth)),
        rays=rays if views.K is None else ray_map(views.K.float(), *views.size),
        conf=2 * torch.sigmoid(logit.clamp(-CONF_LOGIT_BOUND, CONF_LOGIT_BOUND)),
        world_from_cam=world_from_cam,
    )


def least_depth(depth: Float[Tensor, "b v h w"]) -> Float[Tensor, "b 1 1 1"]:
    """The smallest that is let through, of each sample."""
    return LEAST_DEPTH * depth.detach().flatten(1).median(1).values.clamp_min(1e-8)[:, None, None, None]


def read_config(files: list[Path], where: str) -> dict[str, Any]:
    """Upstream's ``config.json``, beside its weights.

    Raises:
        UserError: there is none, or it is no JSON object.
    """
    path = files[0].parent / "config.json"
    if not path.is_file():
        raise UserError(
            f"{path}: not found; put upstream's config.json beside its weights (of a hub id: `hf download {where}`)"
        )
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no settings; download it again")
    return config


def load_exactly(network: nn.Module, tensors: dict[str, Any], source: str) -> None:
    """Load all of ``tensors``, and every weight of ``network`` from them; of a shared weight's names one is enough.

    Raises:
        UserError: a weight is missing, surplus or misshapen; names it.
    """
    expected = network.state_dict()
    complete = dict(tensors)
    for names in _names_of_each(expected):
        given = [tensors[name] for name in names if name in tensors]
        if not given or given[0].shape != expected[names[0]].shape:
            raise UserError(f"{source}: {names[0]} is missing or has another shape; are these weights of this system?")
        complete.update({name: given[0] for name in names})
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise UserError(f"{source}: holds {surplus[0]}, which the network has not; are these weights of this system?")
    network.load_state_dict(complete)


def _names_of_each(state: dict[str, Tensor]) -> list[list[str]]:
    """The names of each tensor: a module that is held twice has its weights listed twice, but stored once."""
    names: dict[Any, list[str]] = {}
    for name, value in state.items():
        names.setdefault((value.data_ptr(), value.shape) if value.numel() else name, []).append(name)
    return list(names.values())


def _without_aliases(network: ForeignNetwork, state: dict[str, Any], prefix: str, _: Any) -> None:
    for alias in network.aliases:
        state.pop(prefix + alias, None)


def _with_aliases(network: ForeignNetwork, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for alias, first in network.aliases.items():
        if prefix + first in state:
            state.setdefault(prefix + alias, state[prefix + first])
