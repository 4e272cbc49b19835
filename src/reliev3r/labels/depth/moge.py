"""MoGe-2 (Wang et al. 2025) and MoGe-3 (Kong et al. 2026) through their own package: depth, its mask, field of view."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError, first_line
from reliev3r.core.types import Ambiguity
from reliev3r.data.capture import Capture, Frame
from reliev3r.geometry.camera import fov_from_focal
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.expert_weights import OneFileExpert, weights_file

_UTILS = "git+https://github.com/EasternJournalist/utils3d@3fab839f0be9931dac7c8488eb0e1600c236e183"
_LEAST = 0.01


@dataclass(frozen=True, kw_only=True)
class Release:
    """What tells one version of MoGe from the other."""

    title: str
    module: str
    """Of its package: where its class ``MoGeModel`` is."""
    model_id: str
    """On the Hugging Face hub; its file is ``model.pt``."""
    install: str
    package: str
    """Its presence tells whether this was installed."""
    refined: bool = False
    """Whether its network has a refiner: sparse convolutions of FlexGEMM, whose kernels (Triton) need a GPU."""
    fp16: bool = False
    """Whether it works in half precision on a GPU."""
    settings: Mapping[str, int] = field(default_factory=dict)
    """What else its ``infer`` is told, and the fingerprint with it."""


RELEASES = {
    "moge-2": Release(
        title="MoGe-2",
        module="moge.model.v2",
        model_id="Ruicheng/moge-2-vitl",
        install="pip install --no-deps "
        f"git+https://github.com/microsoft/MoGe@07444410f1e33f402353b99d6ccd26bd31e469e8 {_UTILS}",
        package="moge",
        fp16=True,
    ),
    "moge-3": Release(
        title="MoGe-3",
        module="moge.model.v3",
        model_id="Ruicheng/moge-3-vitl",
        install="pip install --no-deps "
        f"git+https://github.com/microsoft/MoGe@74fbce054ebed49800de42d0ad0e83495065719a {_UTILS} "
        "git+https://github.com/JeffreyXiang/FlexGEMM@b2fadb29d41846c7981ade6801ffc689fae119cf",
        package="flex_gemm",
        refined=True,
        settings={"refine_steps": 3},
    ),
}


@dataclass(frozen=True, kw_only=True)
class MoGe(OneFileExpert):
    """Metric depth, of which only the shape is trusted: one factor per view is left open.

    The network says which pixels it has no depth for (sky); they are invalid, as is the whole map where it accepts
    less than 1 % of it: upstream then hands back a made-up field of view. It sees the image alone, not its K.

    Raises:
        UserError: MoGe-3 without a GPU.
    """

    version: str = "moge-2"
    """A key of ``RELEASES``."""
    weights: str | None = None
    """``model.pt``, or the folder it lies in; None: the large network of the Hugging Face hub (MIT)."""
    device: str = "cpu"
    resolution_level: int = 9
    """0 to 9: how many tokens the network works with."""
    long_side: int = 1024
    """Larger images are shrunk before: even at the highest level the network sees no more."""
    ambiguity: Ambiguity = "scale"

    def __post_init__(self) -> None:
        if self._release.refined and not self._on_gpu:
            raise UserError(
                f"{self.version} needs a GPU (its refinement has no code for others) and was to run on {self.device}; "
                "where there is none use moge-2"
            )

    @property
    def _release(self) -> Release:
        return RELEASES[self.version]

    @property
    def _on_gpu(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def _find(self) -> Path:
        return weights_file(self.version, self.weights, self._release.model_id, "model.pt")

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        settings = {"resolution_level": self.resolution_level, "long_side": self.long_side, **self._release.settings}
        return {"name": self.version, "version": 1, "weights_sha256": self._hash, **settings}

    def inputs(self, frame: Frame, capture: Capture) -> list[Path]:
        """Nothing but the image."""
        return []

    @torch.inference_mode()
    def predict(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> DepthMap:
        """Depth in metres at the image's resolution (at most ``long_side``), and the horizontal field of view."""
        shrink = min(1.0, self.long_side / max(image.shape[:2]))
        height, width = (max(1, round(side * shrink)) for side in image.shape[:2])
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        pixels = torch.from_numpy(resized).permute(2, 0, 1).float().to(self.device) / 255
        fp16 = self._release.fp16 and self._on_gpu
        output = self._model.infer(
            pixels, resolution_level=self.resolution_level, use_fp16=fp16, **self._release.settings
        )
        depth = output["depth"].float().cpu().numpy()  # infinite where masked
        fov = fov_from_focal(float(output["intrinsics"][0, 0]))  # K is in widths and heights of the image
        found = DepthMap.from_values(depth, fov=fov)
        return found if found.valid.mean() >= _LEAST else DepthMap.from_values(np.zeros_like(depth))

    def _load(self, file: Path) -> torch.nn.Module:
        release = self._release
        try:
            network = importlib.import_module(release.module).MoGeModel
        except ImportError as error:
            raise UserError(f"{self.version} needs its package ({first_line(error)}): {release.install}") from error
        try:
            checkpoint = read_torch(file)
            config = checkpoint["model_config"]
            _refuse_other_release(file, bool(config.get("refiner")), self.version)
            model: torch.nn.Module = network(**config)
            # Upstream's own loader goes on with random weights where some are missing.
            missing = model.load_state_dict(checkpoint["model"], strict=False).missing_keys
        except UserError:
            raise
        except Exception as error:  # whatever torch and the model's constructor raise on foreign files
            raise UserError(
                f"{file}: holds no readable {release.title} checkpoint ({first_line(error)}); download it again"
            ) from error
        if missing:
            raise UserError(
                f"{file}: lacks {len(missing)} weights of a {release.title} network; download the matching checkpoint"
            )
        return model


def _refuse_other_release(file: Path, refined: bool, version: str) -> None:
    # MoGe-2's class would ignore the refiner and read MoGe-3's logarithm of depth as depth.
    if refined != RELEASES[version].refined:
        other, has = ("moge-3", "has a refiner") if refined else ("moge-2", "has none")
        raise UserError(
            f"{file}: no {RELEASES[version].title} checkpoint: its network {has}; for {RELEASES[other].title}'s use "
            f"{other}:{file}"
        )
