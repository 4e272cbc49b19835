"""An adaptation from footage to a verdict; only what is judged better becomes the result."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from reliev3r.core.device import resolve_device
from reliev3r.core.files import atomic_directory, write_json
from reliev3r.core.progress import Report, silent, staged
from reliev3r.core.settings import to_plain
from reliev3r.model.load import load_model, weights_hash
from reliev3r.runs.adapt.footage import labelled, prepared, spaced_captures, tracked_scenes, with_fitting_samples
from reliev3r.runs.adapt.network import Adaptation, network_unit, weak_objective, with_hidden_intrinsics
from reliev3r.runs.adapt.settings import AdaptConfig
from reliev3r.runs.run_folder import Resume, RunFolder, absolute, first_process, one_process
from reliev3r.training.batches import SceneBatches
from reliev3r.training.captures import LabelledCaptures, labelled_capture, usable_captures
from reliev3r.training.forecast import Estimate, estimate_training
from reliev3r.training.loop import TrainResult, train
from reliev3r.training.validation import figures
from reliev3r.verdict.evidence import HeldoutCapture, gather_evidence
from reliev3r.verdict.page import write_verdict_page
from reliev3r.verdict.rule import JudgeConfig, Verdict, judge

logger = logging.getLogger(__name__)


def judged(
    model: str, adapted: nn.Module, pair: str, captures: LabelledCaptures, config: AdaptConfig, out: Path
) -> Verdict:
    """The verdict on ``adapted`` against the base, which is read again from its file; its page goes to ``out``."""
    heldout = evidence(pair, captures, config, trained=True)
    replay = [
        each
        for other in config.replay
        for each in evidence(other, prepared(other, config, captures.patch, silent), config, trained=False)
    ]
    device = resolve_device(config.device)
    before, adapted = load_model(model).to(device), adapted.to(device).eval()
    settings = JudgeConfig(views=max(config.batch.views[1], 4))
    verdict = judge(before, adapted, heldout, replay, settings)
    write_verdict_page(out / "report.html", verdict, before, adapted, heldout, settings)
    return verdict


def evidence(pair: str, captures: LabelledCaptures, config: AdaptConfig, *, trained: bool) -> list[HeldoutCapture]:
    """Matches found anew in the images of some captures; ``trained``: they have held-out frames and tracks."""
    tasks = {task.name: task for task in usable_captures(pair)}
    return [
        gather_evidence(
            labelled_capture(tasks[each.name]), long_side=config.prepare.image_size, patch=captures.patch,
            frames=each.heldout_views(config.heldout_every) if trained else (),
            labels=each.heldout() if trained else None,
            hide_intrinsics=config.batch.hide_intrinsics, name=each.name,
        )
        for each in spaced_captures(captures, config.judged)
    ]  # fmt: skip


def promote_or_reject(out: Path, verdict: Verdict) -> Path:
    """Make what was judged better the run's result and keep all else aside; where the adapted checkpoint is then."""
    for name in ("checkpoint", "adapter"):
        if (out / name).exists():  # of a verdict that no longer holds
            shutil.rmtree(out / name)
        if verdict.verdict == "better" and (out / "rejected" / name).exists():
            os.replace(out / "rejected" / name, out / name)
    if verdict.verdict != "better":
        return out / "rejected" / "checkpoint"
    shutil.rmtree(out / "rejected")
    return out / "checkpoint"


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
    resume: Resume = False,
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
        resume: go on with the interrupted run in ``out``; ``auto``: where there is one.
        report: hears of the progress.
        announce: hears what memory and time the training needs, before it starts.

    Returns ``None`` after Ctrl-C (a checkpoint was saved; ``resume`` goes on), and in processes that do not write.

    Raises:
        UserError: bad input, unusable labels, or an ``out`` that holds something else.
        TrainingStopped: the loss is not finite, or the prediction has collapsed.
    """
    inputs = {"model": model, "model_sha256": weights_hash(model), "footage": str(footage.resolve())}
    run = RunFolder(path=out, verb="adapt", inputs=inputs)
    with run.held():
        return _adapt(
            model, footage, run, config, resume=run.goes_on(resume), report=report or silent, announce=announce
        )


def _adapt(
    model: str, footage: Path, run: RunFolder, config: AdaptConfig, *, resume: bool, report: Report,
    announce: Callable[[Estimate], None] | None,
) -> AdaptResult | None:  # fmt: skip
    out = run.path
    config = dataclasses.replace(config, labels=absolute(config.labels))
    config = run.settings(config, AdaptConfig(), resume=resume)
    resolve_device(config.device)
    if not resume:
        run.begin(config)
    network = load_model(model)
    config = with_hidden_intrinsics(config, network)
    pair = labelled(footage, out, config, report)
    captures = prepared(pair, config, network.patch_size, report)
    config = with_fitting_samples(config, captures)
    scenes = tracked_scenes(captures, config)
    unit = network_unit(network, scenes)
    adaptation = Adaptation(network, config)
    batches = SceneBatches([captures], [1.0], config.batch, seed=config.seed)
    weak = weak_objective(config, unit=unit)
    estimate = None
    if one_process():
        network.to(resolve_device(config.device))
        estimate = estimate_training(network, weak, batches, config)
        (announce or _announce)(estimate)
    training = train(
        network, weak, batches, dataclasses.replace(config, best=""), folder=out, resume=resume,
        evaluate=lambda trained: figures(trained, scenes),
        progress=staged(report, "train"),
    )  # fmt: skip
    if not training.finished or not first_process():
        return None
    report("verdict", 0, 1, "before and after on held-out frames and tracks")
    facts = _facts(model, footage, len(captures), config, training)
    adaptation.network.describe(image_size=config.prepare.image_size, precision=config.precision, facts=facts)
    with atomic_directory(out / "rejected") as unjudged:  # until it is judged, and if this process dies
        adapted = adaptation.hand_over(unjudged)
    del network, adaptation, batches
    verdict = judged(model, adapted, pair, captures, config, out)
    write_json(out / "verdict.json", {**to_plain(verdict), "base_sha256": weights_hash(model)})
    checkpoint = promote_or_reject(out, verdict)
    adapted.facts["Verdict, without ground truth"] = f"{verdict.verdict}: {verdict.reasons[0]}"
    adapted.write_card(checkpoint)
    report("verdict", 1, 1, verdict.verdict)
    return AdaptResult(verdict=verdict, checkpoint=checkpoint, estimate=estimate, training=training)


def _facts(model: str, footage: Path, captures: int, config: AdaptConfig, training: TrainResult) -> dict[str, str]:
    """For the model card."""
    trained = {
        "lora": "low-rank adapters on the attention, merged",
        "last": f"the last {config.last} blocks and the heads",
    }
    return {
        "Trained by": "`reliev3r adapt`, from frames alone (no ground truth was read)",
        "Started from": model,
        "Adapted to": f"{footage.name}, {captures} capture{'s' if captures > 1 else ''}",
        "What was trained": trained.get(config.train, "all weights"),
        "Steps": f"{training.steps}",
    }


def _announce(estimate: Estimate) -> None:
    logger.info("%s", estimate.to_text())
