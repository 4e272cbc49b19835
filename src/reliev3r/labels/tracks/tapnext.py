"""TAPNext++ (Google DeepMind, 2026) through its own package: points followed through a video, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError, first_line
from reliev3r.labels.tracks.video_tracker import VideoTracker

INSTALL = (
    "pip install einops torchvision && pip install --no-deps "
    "git+https://github.com/google-deepmind/tapnet@c2cbab81cc06092b5f05bfe2da7bfec54e2079c9"
)
_SIDE = 256
"""Of the frames that the network sees, in pixels; they are stretched to a square."""


@dataclass(frozen=True, kw_only=True)
class TapNext(VideoTracker):
    """tapnextpp_ckpt.pt, or BootsTAPNext's weights in PyTorch (both Apache-2.0).

    The network goes forward in time only, so it is shown each clip from either end.
    """

    name: ClassVar[str] = "tapnext"
    title: ClassVar[str] = "TAPNext"
    source: ClassVar[str] = "get https://storage.googleapis.com/dm-tapnet/tapnextpp/tapnextpp_ckpt.pt (Apache-2.0)"

    batch: int = 512
    """Points followed at once: each is one of the network's tokens, beside 1024 of the image."""

    @cached_property
    def _model(self) -> Any:
        return load_network(self.checkpoint, self.device)

    @torch.no_grad()
    def _predict(
        self, video: UInt8[np.ndarray, "t h w 3"], asked: Int[np.ndarray, " n"], where: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, "n t 2"], Bool[np.ndarray, "n t"]]:
        """As :class:`VideoTracker` says; the network has corners as we do, and y before x."""
        scale = _SIDE / np.array(video.shape[2:0:-1])
        small = np.stack([cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in video])
        frames = torch.from_numpy(small).to(self.device).float() / 127.5 - 1
        last = len(video) - 1
        uv = np.zeros((len(asked), len(video), 2))
        seen = np.zeros(uv.shape[:2], bool)
        for first in range(0, len(asked), self.batch):
            part = np.arange(first, min(first + self.batch, len(asked)))
            later, earlier = part[asked[part] < last], part[asked[part] > 0]
            for rows, shown, time in ((later, frames, asked), (earlier, frames.flip(0), last - asked)):
                if len(rows) == 0:
                    continue
                there, visible = self._forward(shown, time[rows], where[rows] * scale)
                after = np.arange(len(video)) > time[rows, None]
                if shown is not frames:
                    there, visible, after = there[:, ::-1], visible[:, ::-1], after[:, ::-1]
                uv[rows] = np.where(after[..., None], there / scale, uv[rows])
                seen[rows] |= visible & after
        rows = np.arange(len(asked))
        uv[rows, asked], seen[rows, asked] = where, True
        return uv, seen

    def _forward(
        self, frames: Float[Tensor, "t h w 3"], asked: Int[np.ndarray, " n"], where: Float[np.ndarray, "n 2"]
    ) -> tuple[Float[np.ndarray, "n t 2"], Bool[np.ndarray, "n t"]]:
        """In pixels of the network; what it says of frames before ``asked`` means nothing."""
        queries = torch.from_numpy(np.concatenate([asked[:, None], where[:, ::-1]], axis=1)).float().to(self.device)
        tracks, _, visible, _ = self._model(video=frames[None], query_points=queries[None])
        uv = tracks[0].flip(-1).transpose(0, 1).double().cpu().numpy()
        return uv, (visible[0, ..., 0] > 0).T.cpu().numpy()


def load_network(checkpoint: Path, device: str) -> Any:
    """Upstream's network with the weights of a file, of which nothing but tensors is read.

    Raises:
        UserError: the package or torchvision is not installed, or the file holds something else.
    """
    try:
        from tapnet.tapnext.tapnext_torch import TAPNext
    except ImportError as error:
        raise UserError(f"tapnext needs its package and torchvision ({first_line(error)}): {INSTALL}") from error
    try:
        with torch.random.fork_rng(devices=[]):
            network = TAPNext(image_size=(_SIDE, _SIDE))
        state = read_torch(checkpoint)
        state = state.get("state_dict", state)
        network.load_state_dict({name.removeprefix("tapnext."): value for name, value in state.items()})
    except Exception as error:  # whatever torch raises on foreign files
        raise UserError(
            f"{checkpoint}: holds no weights of a TAPNext at {_SIDE} pixels ({type(error).__name__}); " + TapNext.source
        ) from error
    return network.eval().to(device)
