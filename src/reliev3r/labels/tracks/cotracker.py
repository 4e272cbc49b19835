"""CoTracker3 (Karaev et al. 2024) through its own package: points followed through a video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError
from reliev3r.labels.tracks.video_tracker import VideoTracker

INSTALL = "pip install --no-deps git+https://github.com/facebookresearch/co-tracker"
_TRAINED_WINDOW = 60


@dataclass(frozen=True, kw_only=True)
class CoTracker3(VideoTracker):
    """Offline: scaled_offline.pth or baseline_offline.pth (CC-BY-NC 4.0). It was trained with up to 60 frames.

    It sees 512 x 384 pixels, taken without filtering.
    """

    name: ClassVar[str] = "cotracker3"
    title: ClassVar[str] = "CoTracker"
    source: ClassVar[str] = (
        "get scaled_offline.pth with `hf download facebook/cotracker3 scaled_offline.pth --local-dir DIR` "
        "(CC-BY-NC 4.0: not for commercial use)"
    )

    @cached_property
    def _predictor(self) -> Any:
        return load_predictor(self.checkpoint, self.device)

    @torch.no_grad()
    def _predict(
        self, video: UInt8[np.ndarray, "t h w 3"], asked: Int[np.ndarray, " n"], where: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, "n t 2"], Bool[np.ndarray, "n t"]]:
        """As :class:`VideoTracker` says; the network has pixel centres at integers."""
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)[None].float().to(self.device)  # 0 to 255
        uv = np.zeros((len(asked), len(video), 2))
        seen = np.zeros(uv.shape[:2], bool)
        for first in range(0, len(asked), self.batch):
            part = slice(first, first + self.batch)
            queries = np.concatenate([asked[part, None], where[part] - 0.5], axis=1)
            tracks, visible = self._predictor(
                frames, queries=torch.from_numpy(queries).float().to(self.device)[None], backward_tracking=True
            )
            uv[part] = tracks[0].transpose(0, 1).double().cpu().numpy() + 0.5
            seen[part] = visible[0].T.cpu().numpy()
        return uv, seen


def import_predictor() -> Any:
    """Upstream's class.

    Raises:
        UserError: the package is not installed.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # upstream seeds torch as it is imported
            from cotracker.predictor import CoTrackerPredictor
    except ImportError as error:
        raise UserError(f"cotracker needs its package, CC-BY-NC 4.0, not for commercial use: {INSTALL}") from error
    return CoTrackerPredictor


def load_predictor(checkpoint: Path, device: str) -> Any:
    """Upstream's predictor with the weights of a file, of which nothing but tensors is read.

    Raises:
        UserError: the package is not installed, or the file holds something else than an offline CoTracker3.
    """
    kind = import_predictor()
    try:
        predictor = kind(checkpoint=None, offline=True, window_len=_TRAINED_WINDOW)
        state = read_torch(checkpoint)
        predictor.model.load_state_dict(state.get("model", state))
    except Exception as error:  # whatever torch raises on foreign files
        raise UserError(
            f"{checkpoint}: holds no weights of an offline CoTracker3 ({type(error).__name__}); get scaled_offline.pth "
            "of facebook/cotracker3"
        ) from error
    return predictor.eval().to(device)
