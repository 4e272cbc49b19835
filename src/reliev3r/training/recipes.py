"""Recipes: complete settings of training across scenes, as functions; ``reliev3r train --list`` shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from reliev3r.core.settings import require
from reliev3r.core.types import Supervision
from reliev3r.data.augment import AugmentConfig, PhotoConfig
from reliev3r.data.augment_colour import WorldConfig
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.losses.full import SupervisedConfig
from reliev3r.losses.weak import ObjectiveConfig
from reliev3r.model.network import PRESETS, NetworkConfig
from reliev3r.sfm.bundle_batched import PolishConfig
from reliev3r.synthetic.experts import TrackNoise
from reliev3r.synthetic.room_stream import StreamConfig
from reliev3r.training.batches import SceneBatchConfig
from reliev3r.training.captures import CapturesConfig
from reliev3r.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class ScenesConfig(TrainConfig):
    """Settings of ``reliev3r train``; those of the training loop are its own."""

    supervision: Supervision = "weak"
    """weak: pseudo-labels alone; full: ground truth (pi3-dagger), the same data and schedule otherwise."""
    network: NetworkConfig = PRESETS["tiny"]
    model: str = "random"
    """The network to start from: random, the folder of a checkpoint, or pi3:PATH_OR_ID; the latter bring their own
    sizes instead of ``network`` (docs/weights.md)."""
    init_from: str | None = None
    """Weights for a part of a random network: dinov2:PATH (the encoder) or vggt:PATH (encoder and decoder)."""
    captures: CapturesConfig = field(default_factory=CapturesConfig)
    """Labelled captures, by ``--data IMAGES=STORE ...``; weak supervision only."""
    annotated: tuple[str, ...] = ()
    """Scenes with true poses and depth, as FORMAT:PATH (``reliev3r datasets`` lists formats); full supervision only.
    They and the rooms, if any, come up equally often. Their tracks are *simulated* from the truth."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """Rendered rooms, as training asks for them. Their pseudo-labels come from a *simulated* expert."""
    stream_weight: float = 1.0
    """Share of the batches that are rendered rooms; the rest are labelled captures. 0: captures alone."""
    batch: SceneBatchConfig = field(default_factory=SceneBatchConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Of weak supervision."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Of full supervision."""
    polish: PolishConfig = field(default_factory=PolishConfig)
    """Of the pseudo cameras that samples without any get, the early teacher; ``steps`` 0: none."""
    teacher_until: float = 1.0
    """Share of the run at which the handover from the pseudo cameras to the tracks themselves ends."""
    heldout_scenes: int = 24
    """Rooms that are never trained on; the checkpoint whose median angle over their tracks is least is the best."""

    def __post_init__(self) -> None:
        """Settings that cannot work together are told at once."""
        super().__post_init__()
        require(self, stream_weight=(0, 1), teacher_until=(0, inf), heldout_scenes=(0, inf))
        if self.captures.data and self.supervision == "full":
            raise ValueError("labelled captures have no ground truth: full supervision takes the stream or --annotated")
        if self.annotated and self.supervision == "weak":
            raise ValueError("annotated scenes are ground truth, which weak supervision never sees; drop --annotated")


def tiny_cpu() -> ScenesConfig:
    """About 2 M parameters, 128-pixel images, 4 views of rendered rooms, solved cameras: an hour of one CPU core."""
    return ScenesConfig(
        minutes=60.0, optimizer="muon", lr=1e-3, network=dataclasses.replace(PRESETS["tiny"], patch_size=16),
        evaluate_every=0.1, save_every=300.0, alarm_checks=300, captures=_captures(128),
        stream=StreamConfig(
            width=128, height=96, span=(5.0, 40.0), rooms=2500, track_noise=TrackNoise(count=256, pixel=0.15)
        ),
        batch=SceneBatchConfig(images=16, tracks=96, augment=_other_worlds()),
        objective=ObjectiveConfig(depth_weight=0.5, tracks_weight=5.0, teacher_weight=1.0),
    )  # fmt: skip


def tiny_cpu_regressed() -> ScenesConfig:
    """The paper's kind of cameras at the size of tiny-cpu: regressed by a head, 64-pixel images, AdamW."""
    network = dataclasses.replace(PRESETS["tiny"], patch_size=8, match_dim=64, cameras="regressed")
    return ScenesConfig(
        minutes=60.0, lr=1e-3, network=network, evaluate_every=0.1, save_every=300.0, alarm_checks=300,
        captures=_captures(64), stream=StreamConfig(span=(5.0, 16.0), rooms=2500),
        objective=ObjectiveConfig(
            depth_weight=0.5, tracks_weight=5.0, teacher_weight=1.0, correspondence_weight=0.3
        ),
        supervised=SupervisedConfig(correspondence_weight=0.3),
    )  # fmt: skip


def reliev3r_tiny() -> ScenesConfig:
    """The network that comes with the package: tiny-cpu on rooms of all textures and focal lengths, a core-hour."""
    start = tiny_cpu()
    stream = dataclasses.replace(start.stream, texture="both", fov=(38.0, 82.0), span=(5.0, 45.0), rooms=3000)
    return dataclasses.replace(start, steps=2800, precision="fp32", stream=stream)


def _other_worlds() -> AugmentConfig:
    """Mirrors and other colours, no crops: rooms come in any shape already."""
    return AugmentConfig(zoom=(1.0, 1.0), offset=0.0, photo=PhotoConfig.none(), world=WorldConfig())


def small_gpu() -> ScenesConfig:
    """About 30 M parameters, 224-pixel images, 2 to 8 views, solved cameras, for one GPU."""
    return dataclasses.replace(
        tiny_cpu(), network=PRESETS["small"], steps=20_000, optimizer="adamw", lr=3e-4, ema=0.999,
        captures=_captures(224),
        stream=StreamConfig(height=168, width=224, supersample=1, span=(10.0, 45.0)),
        batch=SceneBatchConfig(views=(2, 8), images=128, augment=_other_worlds()),
    )  # fmt: skip


def paper() -> ScenesConfig:
    """The paper's run: base (456 M), labelled DL3DV-10K, 8 views, 64 scenes a step over all GPUs, 60 k steps."""
    return ScenesConfig(
        steps=60_000, lr=1e-4, network=PRESETS["base"], stream_weight=0.0, captures=_captures(224),
        batch=SceneBatchConfig(views=(8, 8), images=64, augment=AugmentConfig()), checkpoint_activations=True,
        objective=ObjectiveConfig(depth_weight=1.0, tracks_weight=0.5), save_every=900.0, evaluate_every=0.02,
        alarm_checks=500,
    )  # fmt: skip


def pi3_dagger() -> ScenesConfig:
    """The fully-supervised sibling of tiny-cpu: the same rooms, network and schedule, with ground truth."""
    return dataclasses.replace(tiny_cpu(), supervision="full")


def synthetic_full() -> ScenesConfig:
    """Full supervision on rooms of all focal lengths, with a head that predicts the field of view."""
    start = tiny_cpu()
    return dataclasses.replace(
        start, supervision="full", network=dataclasses.replace(start.network, fov="shared"),
        batch=dataclasses.replace(start.batch, hide_intrinsics=True),
        stream=dataclasses.replace(start.stream, fov=(40.0, 85.0)),
        supervised=dataclasses.replace(start.supervised, fov_weight=1.0),
    )  # fmt: skip


def synthetic_to_real() -> ScenesConfig:
    """Weak fine-tuning of a synthetic-full checkpoint (--model) on labelled captures of unknown intrinsics."""
    start = synthetic_full()
    return dataclasses.replace(
        start, supervision="weak", lr=1e-4, minutes=20.0, stream_weight=0.0,
        batch=dataclasses.replace(start.batch, augment=AugmentConfig()),
        objective=dataclasses.replace(start.objective, fov_weight=1.0),
    )  # fmt: skip


def _captures(long_side: int) -> CapturesConfig:
    return CapturesConfig(prepare=PrepareConfig(image_size=long_side))


RECIPES: dict[str, Callable[[], ScenesConfig]] = {
    "tiny-cpu": tiny_cpu,
    "tiny-cpu-regressed": tiny_cpu_regressed,
    "reliev3r-tiny": reliev3r_tiny,
    "small-gpu": small_gpu,
    "paper": paper,
    "pi3-dagger": pi3_dagger,
    "synthetic-full": synthetic_full,
    "synthetic-to-real": synthetic_to_real,
}
"""By the name that the command line takes."""
