"""Before against after, on what was kept out of training; only what is better becomes the result."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from torch import nn

from reliev3r.acceptance import HeldoutCapture, JudgeConfig, Verdict, gather_evidence, judge, write_verdict_page
from reliev3r.adapt.footage import prepared, silent, spaced_captures
from reliev3r.adapt.settings import AdaptConfig
from reliev3r.model.foreign import load_adaptable
from reliev3r.model.precision import own_device
from reliev3r.train.captures import LabelledCaptures, labelled_capture, usable_captures


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
    device = own_device()
    before, adapted = load_adaptable(model).to(device), adapted.to(device).eval()
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
            labels=each.heldout if trained else None,
            hide_intrinsics=config.batch.hide_intrinsics, name=each.name,
        )
        for each in spaced_captures(captures, config.judged)
    ]  # fmt: skip


def placed(out: Path, verdict: Verdict) -> Path:
    """Where the adapted checkpoint stays: what was judged better becomes the run's result, all else is kept aside."""
    for name in ("checkpoint", "adapter"):
        if (out / name).exists():  # of a verdict that no longer holds
            shutil.rmtree(out / name)
        if verdict.verdict == "better" and (out / "rejected" / name).exists():
            os.replace(out / "rejected" / name, out / name)
    if verdict.verdict != "better":
        return out / "rejected" / "checkpoint"
    shutil.rmtree(out / "rejected")
    return out / "checkpoint"
