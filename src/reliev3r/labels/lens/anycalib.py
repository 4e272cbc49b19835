"""AnyCalib (Tirado-Garin and Civera 2025) through its own package: focal length and radial distortion."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from reliev3r.core.errors import UserError, first_line
from reliev3r.data.capture import Capture, Frame
from reliev3r.labels.expert import LensGuess
from reliev3r.labels.expert_weights import OneFileExpert, fill, read_state, rgb_tensor, weights_file

INSTALL = "pip install --no-deps git+https://github.com/javrtg/AnyCalib@cc0399c4f563ceffb3edcb02342febf150c53893"


@dataclass(frozen=True, kw_only=True)
class AnyCalib(OneFileExpert):
    """The network gives a ray for each pixel; a camera model is fitted to them.

    Its principal point is fitted too, but not used: the crop of a photograph is known better than that. Upstream's
    fallback to random samples is off, so that the same image gives the same lens; an image that the fit fails on says
    nothing.
    """

    weights: str | None = None
    """``anycalib_pinhole.pt`` or a sibling, or the folder it lies in; None: javrtg/AnyCalib of the Hugging Face hub
    (Apache-2.0)."""
    device: str = "cpu"
    radial: bool = False
    """One coefficient of radial distortion is fitted too, by default with ``anycalib_gen.pt``, which has seen it."""
    long_side: int = 1024
    """All images are resized to it before: the network sees about 320 x 320 pixels, and rounds the sides of small ones
    by more than one focal length can have."""

    def _find(self) -> Path:
        name = "anycalib_gen.pt" if self.radial else "anycalib_pinhole.pt"
        return weights_file(self._name, self.weights, "javrtg/AnyCalib", name)

    @property
    def _name(self) -> str:
        return "anycalib-radial" if self.radial else "anycalib"

    def fingerprint(self) -> dict[str, Any]:
        """Checkpoint hash and settings."""
        return {"name": self._name, "version": 1, "weights_sha256": self._hash, "long_side": self.long_side}

    @torch.inference_mode()
    def lens(self, image: UInt8[np.ndarray, "h w 3"], frame: Frame, capture: Capture) -> LensGuess | None:
        """Focal length and, with ``radial``, k1; None where the fit fails or no lens is like it."""
        scale = self.long_side / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its fit failed; all intrinsics are 1 then
            output = self._model.predict(
                rgb_tensor(resized).to(self.device), "simple_radial:1" if self.radial else "simple_pinhole"
            )
        focal, _, _, *k1 = output["intrinsics"][0].tolist()  # f, cx, cy and k1, in pixels
        return LensGuess.of(frame, focal * frame.width / width, *k1)

    def _load(self, file: Path) -> torch.nn.Module:
        try:
            from anycalib import AnyCalib as Network
        except ImportError as error:
            raise UserError(f"anycalib needs its package ({first_line(error)}): {INSTALL}") from error
        model = Network(model_id=None, fallback_to_sac=False)  # an id would be downloaded
        fill(model, read_state(file), file)
        return model
