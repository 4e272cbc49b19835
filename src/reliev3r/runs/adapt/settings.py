"""Settings of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from reliev3r.core.settings import require
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.losses.weak import ObjectiveConfig
from reliev3r.model.lora import LoraConfig
from reliev3r.training.batches import SceneBatchConfig
from reliev3r.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainConfig):
    """Settings of ``reliev3r adapt``; those of the training loop are its own."""

    minutes: float = 20.0
    lr: float = 1e-4
    """For LoRA; give a tenth of it or less where the network's own weights are trained (--train last, all)."""
    warmup: float = 0.05
    weight_decay: float = 0.01
    evaluate_every: float = 0.25
    train: Literal["lora", "last", "all"] = "lora"
    """Low-rank adapters on the attention projections; the ``last`` blocks and the heads; or everything."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    last: int = 4
    """Blocks before the heads that --train last opens."""
    labels: str | None = None
    """Folder of labels that `reliev3r label` wrote, or is to be written; OUT/labels unless given. Captures that have
    none are labelled first, by the experts below."""
    depth: str = "depth-anything-v2-small"
    """Depth expert, as of `reliev3r label`."""
    tracks: str = "sift"
    """Track expert."""
    intrinsics: str | None = None
    """FILE, fov:DEG (horizontal), exif, expert, expert:EXPERT, or estimate."""
    views: int | None = None
    """Of each capture; by default all images of a folder, and 60 frames of a video."""
    workers: int = 1
    """Processes that label many captures."""
    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(image_size=224))
    sample_tracks: int = 512
    """Tracks of a sample."""
    heldout_every: int = 10
    """Hold out every N-th frame of each capture for the verdict, as the held-out tracks are."""
    batch: SceneBatchConfig = field(default_factory=lambda: SceneBatchConfig(views=(2, 8), images=8))
    """Intrinsics are hidden wherever the network predicts them."""
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(
            depth_weight=0.25, tracks_weight=5.0, teacher_weight=1.0, fov_weight=1.0
        )
    )
    teacher_until: float = 1.0
    """Share of the run at which the handover from the pseudo cameras to the tracks themselves ends; 0: tracks alone.
    On rendered rooms a teacher that ended at half of a short run left the tracks to undo what was learned
    (docs/results/study.md); for adaptation as such it is not measured."""
    judged: int = 12
    """Most captures that the verdict looks at, evenly chosen."""
    replay: tuple[str, ...] = ()
    """IMAGES=STORE pairs of other scenes, as of `reliev3r label`: the verdict says how far predictions moved there."""

    def __post_init__(self) -> None:
        """Settings that cannot work are told at once."""
        super().__post_init__()
        require(self, last=(0, inf), views=(2, inf), workers=(1, inf), sample_tracks=(1, inf), heldout_every=(0, inf),
                teacher_until=(0, inf), judged=(1, inf))  # fmt: skip
