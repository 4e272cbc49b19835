"""Samples rendered as training asks for them: rooms that are seen once, under simulated experts or with truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from reliev3r.core.errors import UserError
from reliev3r.core.types import FullLabels, Labels, PseudoLabels, Supervision, Truth, Views
from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks
from reliev3r.synthetic.scene import TextureFamily

HELDOUT_SEEDS = 2_000_000_000
"""Rooms from this seed on are never trained on."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """A distribution of rooms, cameras and simulated experts; pairs are (low, high) of a uniform draw."""

    texture: TextureFamily | Literal["both"] = "masonry"
    height: int = 48
    width: int = 64
    fov: tuple[float, float] = (58.0, 72.0)
    """Degrees, one for all views of a room."""
    span: tuple[float, float] = (10.0, 30.0)
    """Degrees of the arc that the views lie on."""
    overlap: float = 0.3
    supersample: int = 1
    rooms: int | None = None
    """Draw from this many rooms and keep as many samples in memory; None: every room is new, nothing is kept."""
    depth_noise: DepthNoise = field(default_factory=DepthNoise)
    """Of the simulated monocular expert."""
    track_noise: TrackNoise = field(default_factory=lambda: TrackNoise(count=256, pixel=0.1))
    """Of the simulated matcher, in pixels of this size."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        if self.rooms is not None and self.rooms < 1:
            raise ValueError(f"stream: rooms must be at least 1, got {self.rooms}")


class SyntheticStream:
    """Rooms by seed: the same seed gives the same sample on the same device."""

    def __init__(
        self,
        config: StreamConfig,
        *,
        supervision: Supervision,
        device: torch.device | str = "cpu",
        finish: Callable[[Views, PseudoLabels], PseudoLabels] | None = None,
    ) -> None:
        """``finish``: what else is made of weak labels, once for a room that is kept."""
        self.config, self.supervision, self.device, self.finish = config, supervision, device, finish
        self._kept: dict[tuple[int, int], tuple[Views, Labels]] = {}

    def size(self, group: int) -> tuple[int, int]:
        """All rooms have one size."""
        return self.config.height, self.config.width

    def sample(self, seed: int, *, group: int, views: int) -> tuple[Views, Labels]:
        """One room with its labels [v ...]."""
        if self.config.rooms is None:
            return self._made(seed, views)
        key = (seed % self.config.rooms, views)
        if key not in self._kept:
            if len(self._kept) >= self.config.rooms:  # the oldest; a room is kept once for each number of views
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._made(*key)
        return self._kept[key]

    def _made(self, seed: int, views: int) -> tuple[Views, Labels]:
        seen, truth = self.render(seed, views=views)
        tracks = simulate_tracks(truth, self.config.track_noise, seed)
        if self.supervision == "full":
            return seen, FullLabels(truth=truth, tracks=tracks)
        labels = PseudoLabels(depth=simulate_depth(truth, self.config.depth_noise, seed), tracks=tracks)
        return seen, labels if self.finish is None else self.finish(seen, labels)

    def render(self, seed: int, *, views: int) -> tuple[Views, Truth]:
        """The room of ``seed``; one where no camera path is found hands over to the next of its own series."""
        for attempt in range(20):
            try:
                return render_capture(self._settings(seed, attempt, views), device=self.device)
            except UserError:
                continue
        raise UserError(
            f"synthetic stream: no camera path with {views} views, spans of {self.config.span} degrees and an overlap "
            f"of {self.config.overlap:g} was found in 20 rooms; lower the span or the overlap"
        )

    def _settings(self, seed: int, attempt: int, views: int) -> SynthConfig:
        config = self.config
        generator = torch.Generator().manual_seed(seed * 20 + attempt)
        draw = torch.rand(3, generator=generator).tolist()
        families: tuple[TextureFamily, TextureFamily] = ("masonry", "terrazzo")
        return SynthConfig(
            seed=int(torch.randint(2**40, (1,), generator=generator)), views=views,
            width=config.width, height=config.height, supersample=config.supersample, path="random",
            fov=config.fov[0] + draw[0] * (config.fov[1] - config.fov[0]),
            span=config.span[0] + draw[1] * (config.span[1] - config.span[0]), overlap=config.overlap,
            texture=families[draw[2] > 0.5] if config.texture == "both" else config.texture,
        )  # fmt: skip
