"""One adaptation from end to end."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reliev3r.acceptance import Verdict
from reliev3r.adapt.footage import (
    Report,
    labelled,
    one_process,
    prepared,
    silent,
    tracked_scenes,
    with_fitting_samples,
)
from reliev3r.adapt.judging import judged, placed
from reliev3r.adapt.network import Adaptation, with_hidden_intrinsics
from reliev3r.adapt.objective import network_unit, weak_objective
from reliev3r.adapt.settings import AdaptConfig, checked_settings
from reliev3r.estimate import Estimate, estimate_training
from reliev3r.files import atomic_directory, write_json
from reliev3r.model.foreign import base_hash, load_adaptable, patch_size
from reliev3r.model.precision import own_device
from reliev3r.scenes import figures, first_process
from reliev3r.settings import to_plain
from reliev3r.train.loop import TrainResult, train
from reliev3r.train.samples import SceneBatches

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """What ``adapt`` hands back; all of it is in the run's folder too."""

    verdict: Verdict
    checkpoint: Path
    """RUN/checkpoint where the verdict is ``better``, else RUN/rejected/checkpoint."""
    estimate: Estimate | None
    """``None`` where several processes trained."""
    training: TrainResult


def adapt(
    model: str,
    footage: Path,
    out: Path,
    config: AdaptConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
    announce: Callable[[Estimate], None] | None = None,
) -> AdaptResult | None:
    """Fine-tune a network on footage without annotation, and judge it on frames and tracks that it never saw.

    Args:
        model: a checkpoint's folder, or ``pi3:`` or another system's prefix (``model.foreign.FOREIGN``) and where the
            weights are; never written to.
        footage: a capture (folder of images or video), a folder of captures, or a .txt file that lists captures.
        out: where everything goes.
        config: all settings; on ``resume`` the run's own hold.
        resume: go on with the interrupted run in ``out``.
        report: hears of the progress.
        announce: hears what memory and time the training needs, before it starts.

    Returns ``None`` after Ctrl-C (a checkpoint was saved; ``resume`` goes on), and in processes that do not write.

    Raises:
        UserError: bad input, unusable labels, or an ``out`` that holds something else.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
    """
    report = report or silent
    config = checked_settings(out, model, footage, config, resume=resume)
    network = load_adaptable(model)
    config = with_hidden_intrinsics(config, network)
    pair = labelled(footage, out, config, report)
    captures = prepared(pair, config, patch_size(network), report)
    config = with_fitting_samples(config, captures)
    scenes = tracked_scenes(captures, config)
    unit = network_unit(network, scenes)
    adaptation = Adaptation(network, config)
    batches = adaptation.batches(SceneBatches([captures], [1.0], config.batch, seed=config.seed))
    weak = weak_objective(config, unit=unit)
    estimate = None
    if one_process():
        network.to(own_device())
        estimate = estimate_training(network, weak, batches, config, frozen_copy=adaptation.original)
        (announce or _announce)(estimate)
    training = train(
        network, weak, batches, dataclasses.replace(config, best=""), folder=out, resume=resume,
        evaluate=lambda trained: figures(trained, scenes),
        progress=lambda done, total, what: report("train", done, total, what),
    )  # fmt: skip
    if not training.finished or not first_process():
        return None
    report("verdict", 0, 1, "before and after on held-out frames and tracks")
    with atomic_directory(out / "rejected") as unjudged:  # until it is judged, and if this process dies
        adapted = adaptation.hand_over(unjudged)
    del network, adaptation, batches
    verdict = judged(model, adapted, pair, captures, config, out)
    write_json(out / "verdict.json", {**to_plain(verdict), "base_sha256": base_hash(model)})
    checkpoint = placed(out, verdict)
    report("verdict", 1, 1, verdict.verdict)
    return AdaptResult(verdict=verdict, checkpoint=checkpoint, estimate=estimate, training=training)


def _announce(estimate: Estimate) -> None:
    logger.info("%s", estimate.to_text())
