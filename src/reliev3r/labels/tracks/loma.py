"""LoMa (Nordström et al. 2026, ECCV) through lomatch: DaD's keypoints, DeDoDe's descriptors, a matcher like LightGlue.

lomatch needs torchvision, which has to fit the installed torch, and einops.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from reliev3r.core.errors import UserError, first_line
from reliev3r.labels.expert_weights import (
    OneFileExpert,
    checkpoint_file,
    fill,
    read_state,
    rgb_tensor,
    same_device,
    without_download,
)
from reliev3r.labels.tracks.matcher import Features, IndexMatches

INSTALL = "pip install einops torchvision && pip install --no-deps lomatch==1.0.0"
MODELS = {"loma_B.pt": "LoMaB", "loma_B128.pth": "LoMaB128", "loma_L.pth": "LoMaL", "loma_G.pth": "LoMaG"}
_SOURCE = "https://github.com/davnords/storage/releases/download/loma/loma_B.pt (MIT; matcher Apache-2.0)"
_DETECTOR, _DINO = "_detector.", "_descriptor.encoder.frozen_dinov2.dinov2_vitl14."


@dataclass(frozen=True, kw_only=True, eq=False)
class _Described(Features):
    length: Float[np.ndarray, "n 1"]
    """Of the descriptors as they are: LoMa has learned from these."""


@dataclass(frozen=True, kw_only=True)
class LomaMatcher(OneFileExpert):
    """Each image is detected and described once, at upstream's sizes; the network sees the keypoints of a pair."""

    name: ClassVar[str] = "loma"
    grey: ClassVar[bool] = False

    weights: str | None = None
    """``loma_B.pt`` or a sibling, whose name tells the model, or a folder with one; None: torch.hub's cache. A file
    holds detector, descriptor (with DINOv2) and matcher."""
    device: str = "cpu"
    features: int = 2048
    """Keypoints an image, the strongest."""
    detector_side: int = 1024
    """Long side of what the detector sees, in pixels; rounded down to multiples of 8."""
    descriptor_side: int = 784
    """Side of the square that the descriptor sees, a multiple of 56."""
    confidence: float = 0.1
    """Least score of a match."""

    def _find(self) -> Path:
        return checkpoint_file(self.name, self.weights, MODELS, _SOURCE)

    def _load(self, file: Path) -> torch.nn.Module:
        if file.name not in MODELS:
            raise UserError(f"{file}: its name must tell the model: {', '.join(MODELS)}")
        try:
            import loma
            from loma.device import device
        except (ImportError, RuntimeError) as error:  # the latter: of a torchvision of another torch
            raise UserError(f"{self.name} needs its packages ({first_line(error)}): {INSTALL}") from error
        same_device(self.name, device, self.device)
        state = read_state(file)
        settings = dataclasses.replace(getattr(loma, MODELS[file.name])(), weights_url=None)
        answer = {"load_state_dict_from_url": lambda url, **_: _part(state, url)}
        with without_download("LoMa", file, self.device, **answer):
            network = loma.LoMa(settings)
        deeper = {name for name in state if network._is_unexpected_extra_layer_key(name, settings.n_layers)}
        fill(network, {name: value for name, value in state.items() if name not in deeper}, file)
        return network

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        names = ("features", "detector_side", "descriptor_side", "confidence")
        return {"model": self._file.stem, "weights_sha256": self._hash} | {name: getattr(self, name) for name in names}

    @torch.inference_mode()
    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> Features:
        """DaD's keypoints with DeDoDe's descriptors; none outside the image, where its refinement may put them."""
        scale = self.detector_side / max(image.shape[:2])
        height, width = (max(8, int(side * scale // 8 * 8)) for side in image.shape[:2])
        seen = self._resized(image, width, height)
        found = self._model._detector.detect(seen, num_keypoints=min(self.features, width * height))
        keypoints = found["keypoints"][0]
        keypoints = keypoints[(found["keypoint_probs"][0] > 0) & (keypoints.abs() <= 1).all(-1)]
        square = self._resized(image, self.descriptor_side, self.descriptor_side)
        described = self._model._descriptor.describe_keypoints(square, keypoints[None])["descriptions"][0]
        descriptor = described.float().cpu().numpy()
        length = np.linalg.norm(descriptor, axis=1, keepdims=True)
        size = (image.shape[1], image.shape[0])
        return _Described(
            uv=(keypoints.cpu().double().numpy() + 1) / 2 * size,  # -1 and 1 are the image's edges
            descriptor=descriptor / np.maximum(length, 1e-9),
            length=length,
            size=size,
        )

    def _resized(self, image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> Tensor:
        return rgb_tensor(np.asarray(Image.fromarray(image).resize((width, height)))).to(self.device)

    @torch.inference_mode()
    def match(self, a: Features, b: Features) -> IndexMatches:
        """The network's mutual matches."""
        from loma.loma import filter_matches

        places = (torch.from_numpy(side.uv / side.size * 2 - 1).float()[None].to(self.device) for side in (a, b))
        scores = self._model(*places, self._descriptors(a), self._descriptors(b))["scores"]
        second, _, score, _ = filter_matches(scores, self.confidence)
        first = np.nonzero(second[0].cpu().numpy() >= 0)[0]
        return IndexMatches(
            first=first,
            second=second[0].cpu().numpy()[first],
            doubt=1 - score[0].cpu().double().numpy()[first],
            sure=np.ones(len(first), dtype=bool),
        )

    def _descriptors(self, side: Features) -> Tensor:
        assert isinstance(side, _Described)
        return torch.from_numpy(side.descriptor * side.length)[None].to(self.device)


def _part(state: Mapping[str, Tensor], url: str) -> dict[str, Tensor]:
    """What upstream would download to build the network, DaD or DINOv2, and then replace from the same file."""
    prefix = _DETECTOR if Path(url).name == "dad.pth" else _DINO
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
