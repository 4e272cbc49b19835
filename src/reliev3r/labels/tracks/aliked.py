"""ALIKED (Zhao et al. 2023) through kornia: learned keypoints that hold up on wider baselines than SIFT's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8

from reliev3r.core.errors import UserError
from reliev3r.labels.expert_weights import checkpoint_file, fill, joint_hash, read_state, require, rgb_tensor
from reliev3r.labels.tracks.matcher import Features, IndexMatches, match_by_ratio

INSTALL = "pip install 'reliev3r[matchers]'"
MODELS = ("aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16")
LIGHTGLUE = "aliked_lightglue.pth"
_SOURCE = "github.com/Shiaoming/ALIKED (models/, BSD-3)"


@dataclass(frozen=True, kw_only=True)
class AlikedMatcher:
    """ALIKED with mutual nearest neighbours, or with LightGlue where its weights lie beside ALIKED's."""

    name: ClassVar[str] = "aliked"
    grey: ClassVar[bool] = False

    weights: str | None = None
    """A checkpoint, named as the model (aliked-n16.pth), or a folder with one; None: torch.hub's cache. A folder may
    hold LightGlue's weights for ALIKED too (aliked_lightglue.pth): then LightGlue matches."""
    device: str = "cpu"
    features: int = 4096
    """Keypoints an image, the strongest."""
    detection: float = 0.01
    """Least score of a keypoint: a twentieth of the authors' gives three times as many, as often matched truly."""
    ratio: float = 0.9
    """Of the distances to nearest and second-nearest descriptor, below which a mutual match is sure."""

    @cached_property
    def _file(self) -> Path:
        return checkpoint_file("aliked", self.weights, [f"{model}.pth" for model in MODELS], _SOURCE)

    @cached_property
    def _lightglue_file(self) -> Path | None:
        path = self._file.parent / LIGHTGLUE
        return path if self.weights is not None and Path(self.weights).is_dir() and path.is_file() else None

    @cached_property
    def _version(self) -> str:
        return str(require("kornia", self.name, INSTALL).__version__)

    @cached_property
    def _hash(self) -> str:
        return joint_hash([self._file] if self._lightglue_file is None else [self._file, self._lightglue_file])

    @cached_property
    def _detector(self) -> Any:
        kornia = require("kornia.feature", self.name, INSTALL)
        if self._file.stem not in MODELS:
            raise UserError(f"{self._file}: its name must tell the model: {', '.join(f'{m}.pth' for m in MODELS)}")
        model = kornia.ALIKED(self._file.stem, max_num_keypoints=self.features, detection_threshold=self.detection)
        fill(model, read_state(self._file), self._file)
        return model.eval().to(self.device)

    @cached_property
    def _lightglue(self) -> Any:
        path = self._lightglue_file
        if path is None:
            return None
        kornia = require("kornia.feature", self.name, INSTALL)
        model = kornia.LightGlue(None, input_dim=128, n_layers=_layers(state := _renamed(read_state(path))))
        fill(model, state, path)
        return model.eval().to(self.device)

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash, settings and the version of kornia."""
        settings = {"features": self.features, "detection": self.detection, "ratio": self.ratio}
        return {"kornia": self._version, "model": self._file.stem, "weights_sha256": self._hash, **settings}

    @torch.inference_mode()
    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Features:
        """Keypoints with unit descriptors."""
        (found,) = self._detector(rgb_tensor(image).to(self.device))
        uv = found.keypoints.double().cpu().numpy() + 0.5  # kornia's pixel centres are integers
        return Features(
            uv=uv, descriptor=found.descriptors.float().cpu().numpy(), size=(image.shape[1], image.shape[0])
        )

    @torch.inference_mode()
    def match(self, a: Features, b: Features) -> IndexMatches:
        """LightGlue's matches where its weights were given, else mutual nearest neighbours and the ratio test."""
        if self._lightglue is None:
            return match_by_ratio(a, b, self.ratio)
        found = self._lightglue({"image0": self._side(a), "image1": self._side(b)})
        pairs = found["matches"][0].cpu().numpy()
        doubt = 1 - found["scores"][0].double().cpu().numpy()
        return IndexMatches(first=pairs[:, 0], second=pairs[:, 1], doubt=doubt, sure=np.ones(len(pairs), dtype=bool))

    def _side(self, features: Features) -> dict[str, torch.Tensor]:
        return {
            "keypoints": torch.from_numpy(features.uv - 0.5).float()[None].to(self.device),
            "descriptors": torch.from_numpy(features.descriptor)[None].to(self.device),
            "image_size": torch.tensor([features.size], device=self.device),
        }


def _renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published checkpoints name their layers the other way round: self_attn.3 is transformers.3.self_attn."""
    renamed = {}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        if head in ("self_attn", "cross_attn"):
            layer, _, tail = rest.partition(".")
            name = f"transformers.{layer}.{head}.{tail}"
        renamed[name] = value
    return renamed


def _layers(state: dict[str, torch.Tensor]) -> int:
    """How many layers a LightGlue checkpoint has."""
    numbers = [int(name.split(".")[1]) for name in state if name.startswith("transformers.")]
    return 1 + max(numbers, default=0)
