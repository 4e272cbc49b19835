"""Settings of an adaptation, and the file of its folder that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from reliev3r.errors import UserError
from reliev3r.files import read_json, write_json
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.losses.objective import ObjectiveConfig
from reliev3r.model.foreign import base_hash
from reliev3r.model.lora import LoraConfig
from reliev3r.scenes import first_process
from reliev3r.settings import from_plain, refuse_changes, to_plain
from reliev3r.train.config import TrainConfig
from reliev3r.train.overlap import CurriculumConfig
from reliev3r.train.samples import SceneBatchConfig


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(TrainConfig):
    """Settings of ``reliev3r adapt``; those of the training loop are its own."""

    minutes: float = 20.0
    lr: float = 1e-4
    """For LoRA; give a tenth of it or less where the network's own weights are trained (--train last, all)."""
    warmup: float = 0.05
    heads_from: float = 0.2
    weight_decay: float = 0.01
    evaluate_every: float = 0.25
    train: Literal["lora", "last", "all"] = "lora"
    """Low-rank adapters on the attention projections; the ``last`` blocks and the heads; or everything."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    last: int = 4
    """Blocks before the heads that --train last opens."""
    anchor: float = 0.0
    """Weight of staying near the original network's predictions on the same views: log depth ratio and relative poses.
    Costs a second forward pass a step (and, but for LoRA, a second copy of the weights)."""
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
    device: str = "cpu"
    """Of the experts: cpu or cuda."""
    workers: int = 1
    """Processes that label many captures."""
    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(image_size=224))
    sample_tracks: int = 512
    """Tracks of a sample."""
    heldout_every: int = 10
    """Every how manieth frame of a capture is never trained on; with the held-out tracks these frames judge."""
    batch: SceneBatchConfig = field(
        default_factory=lambda: SceneBatchConfig(views=(2, 8), images=8, curriculum=CurriculumConfig(until=0.0))
    )
    """Intrinsics are hidden wherever the network predicts them."""
    objective: ObjectiveConfig = field(
        default_factory=lambda: ObjectiveConfig(depth_weight=1.0, tracks_weight=5.0, teacher_weight=1.0, fov_weight=1.0)
    )
    teacher_until: float = 1.0
    """Share of the run at which the handover from the pseudo cameras to the tracks themselves ends; 0: tracks alone.
    On rendered rooms a teacher that ended at half of a short run left the tracks to undo what was learned
    (docs/study.md); for adaptation as such it is not measured."""
    judged: int = 12
    """Most captures that the verdict looks at, evenly chosen."""
    replay: tuple[str, ...] = ()
    """IMAGES=STORE pairs of other scenes, as of `reliev3r label`: the verdict says how far predictions moved there."""


def checked_settings(out: Path, model: str, footage: Path, config: AdaptConfig, *, resume: bool) -> AdaptConfig:
    """Refuse a folder that holds something else; on resume take the run's own settings."""
    path = out / "config.json"
    run = {"format": "reliev3r-adaptation/1", "model": model, "model_sha256": base_hash(model),
           "footage": str(footage.resolve())}  # fmt: skip
    if resume:
        if not path.is_file():
            raise UserError(f"{path}: not found, so there is no run to resume; drop --resume")
        stored = read_json(path)
        for name in ("footage", "model_sha256"):
            if stored[name] != run[name]:
                what = f"{stored['model']} to {stored['footage']}"
                raise UserError(
                    f"{path}: this run adapts {what}, which was not given or has changed; choose another --out"
                )
        kept = from_plain(AdaptConfig, stored["settings"], source=str(path))
        refuse_changes(kept, config, AdaptConfig(), source=str(path))
        return kept
    unstarted = path.is_file() and not (out / "training").exists()  # it failed before training: labels are reused
    if out.exists() and not unstarted and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another --out, or --resume the run in it")
    if first_process():
        write_json(path, {**run, "settings": to_plain(config)})
    return config
