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
    """weak: pseudo-labels alone; full: ground truth (the sibling), the same data and schedule otherwise."""
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
    depth_truth: str | None = None
    """Depth of annotated scenes that have none of their own (DL3DV): wai:PATH, cut3r:PATH or colmap:PATH, {scene} for
    a scene's name. Scenes that it has no depth of are left out."""
    stream: StreamConfig = field(default_factory=StreamConfig)
    """Rendered rooms, as training asks for them. Their pseudo-labels come from a *simulated* expert."""
    stream_weight: float = 1.0
    """Share of the batches that are rendered rooms; the rest are labelled captures. 0: captures alone."""
    batch: SceneBatchConfig = field(default_factory=SceneBatchConfig)
    scenes: int | None = None
    """Scenes of a step of the optimiser, over all processes together: each goes through its share in as few batches as
    ``batch.images`` allows. None: one batch of as many as it holds, on each process."""
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
        require(self, stream_weight=(0, 1), teacher_until=(0, inf), heldout_scenes=(0, inf), scenes=(1, inf))
        if self.captures.data and self.supervision == "full":
            raise ValueError("labelled captures have no ground truth: full supervision takes the stream or --annotated")
        if self.annotated and self.supervision == "weak":
            raise ValueError("annotated scenes are ground truth, which weak supervision never sees; drop --annotated")
        solved = self.captures.prepare.solve or self.network.cameras == "regressed"
        if self.captures.data and not solved and self.model == "random":
            raise ValueError(
                "a network that solves its cameras is taught depth under those of the label-side solve: "
                "set captures.prepare.solve=true, or network.cameras=regressed"
            )


KEPT = ("shape", "camera_contrast", "guided", "fov", "match_dim", "cameras")
"""What a preset leaves as the recipe has it: how the network works, not how large it is."""


def with_preset(config: ScenesConfig, preset: str) -> ScenesConfig:
    """The recipe with a network of another size (:data:`reliev3r.model.network.PRESETS`) that works the same way."""
    kept = {name: getattr(config.network, name) for name in KEPT}
    return dataclasses.replace(config, network=dataclasses.replace(PRESETS[preset], **kept))


def captures_for(config: ScenesConfig, network: NetworkConfig) -> CapturesConfig:
    """Its captures, prepared with no more than the run uses.

    Label-side cameras are solved for the teacher, for registration and for a network that solves its own.
    """
    prepare = config.captures.prepare
    used = config.objective.teacher_weight > 0 or prepare.register or network.cameras == "solved"
    return dataclasses.replace(config.captures, prepare=dataclasses.replace(prepare, solve=prepare.solve and used))


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
    """The paper's run and nothing else: base (456 M), labelled DL3DV-10K, 8 views, 64 scenes a step, 60 k steps.

    Its two losses (alpha 1, lambda 0.5), lr 1e-4 with a cosine, 2 % of the captures held out. No cameras are solved for
    the labels, no depth is registered, nothing is augmented; there is no teacher, no curriculum and no gauge term (a
    fit without one was as good: docs/method.md; ``objective.gauge_weight=2`` brings it back). The one deviation: a
    tenth of each capture's tracks is not trained on, and those of the held-out captures choose the best checkpoint.

    Where our sources say nothing, we chose: images of 224 pixels, AdamW, a warm-up of 3 %, 512 tracks a sample, views
    that tracks tie, and the open points of Eq. 4 (:class:`reliev3r.losses.depth.DepthLossConfig`).
    """
    return ScenesConfig(
        steps=60_000, lr=1e-4, network=PRESETS["base"], stream_weight=0.0, captures=_unsolved(224),
        scenes=64, batch=SceneBatchConfig(views=(8, 8), images=64), recompute="cheap", data_workers=8,
        objective=ObjectiveConfig(depth_weight=1.0, tracks_weight=0.5, gauge_weight=0.0), save_every=900.0,
        evaluate_every=0.02, alarm_checks=500,
    )  # fmt: skip


def paper_plus() -> ScenesConfig:
    """What we recommend for the paper's data: solved cameras, registered labels, other worlds of colour, crops.

    The data, size, views, scenes and steps of ``paper``; the balance of tiny-cpu, the one that solved cameras were
    measured with (docs/results/matching.md: at 2.8 M parameters; at this size it was not run). AdamW: no table of ours
    shows that Muon pays.
    """
    start = paper()
    return dataclasses.replace(
        start, network=dataclasses.replace(start.network, cameras="solved"), captures=_captures(224), ema=0.999,
        batch=dataclasses.replace(start.batch, augment=AugmentConfig(photo=PhotoConfig.none(), world=WorldConfig())),
        objective=tiny_cpu().objective,
    )  # fmt: skip


def pi3_dagger() -> ScenesConfig:
    """The paper's fully-supervised sibling: base, the same data with true poses and depth (--annotated), 30 k steps.

    Everything else as ``paper``; pi^3's losses against the truth (docs/method.md lists where they differ from its own).
    """
    return dataclasses.replace(paper(), supervision="full", steps=30_000)


def pi3_dagger_rooms() -> ScenesConfig:
    """The fully-supervised sibling of tiny-cpu: the same rooms, network and schedule, with ground truth."""
    return dataclasses.replace(tiny_cpu(), supervision="full")


def paper_synthetic() -> ScenesConfig:
    """The paper's semi-supervised run, first stage: full supervision on synthetic scenes (--annotated), 20 k steps.

    For ASE, TartanAir, MVS-Synth and BlendedMVS, 128 scenes a step, base, with a head that predicts the field of view
    of views whose intrinsics are hidden; crops are its augmentation (supplement, section B). Our choices: one field of
    view a sample, zoom up to 1.6, the loss |log f / f*|, and what ``pi3-dagger`` chooses.
    """
    start = pi3_dagger()
    return dataclasses.replace(
        start, steps=20_000, scenes=128, network=dataclasses.replace(start.network, fov="shared"),
        batch=dataclasses.replace(start.batch, hide_intrinsics=True, augment=_crops()),
        supervised=dataclasses.replace(start.supervised, fov_weight=1.0),
    )  # fmt: skip


def paper_semi() -> ScenesConfig:
    """Its second stage: 20 k weak steps from a paper-synthetic checkpoint (--model) on labelled DL3DV-10K.

    For labels by MoGe-2, its field of view among them (`reliev3r label --depth moge-2 --intrinsics expert`); the
    network is not shown it. Deviations and choices are those of ``paper``, and: the angles of the tracks are multiplied
    by the predicted focal length, for a longer lens alone would shrink them; 64 scenes a step.
    """
    start = paper()
    return dataclasses.replace(
        start, steps=20_000, network=dataclasses.replace(start.network, fov="shared"),
        batch=dataclasses.replace(start.batch, hide_intrinsics=True, augment=_crops()),
        objective=dataclasses.replace(start.objective, fov_weight=1.0),
    )  # fmt: skip


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


def _unsolved(long_side: int) -> CapturesConfig:
    """The experts' labels as they are."""
    return CapturesConfig(prepare=PrepareConfig(image_size=long_side, solve=False, register=False))


def _crops() -> AugmentConfig:
    """Crops alone: other fields of view."""
    return AugmentConfig(mirror=0.0, photo=PhotoConfig.none())


RECIPES: dict[str, Callable[[], ScenesConfig]] = {
    "tiny-cpu": tiny_cpu,
    "tiny-cpu-regressed": tiny_cpu_regressed,
    "reliev3r-tiny": reliev3r_tiny,
    "small-gpu": small_gpu,
    "paper": paper,
    "paper-plus": paper_plus,
    "pi3-dagger": pi3_dagger,
    "pi3-dagger-rooms": pi3_dagger_rooms,
    "paper-synthetic": paper_synthetic,
    "paper-semi": paper_semi,
    "synthetic-full": synthetic_full,
    "synthetic-to-real": synthetic_to_real,
}
"""By the name that the command line takes."""
