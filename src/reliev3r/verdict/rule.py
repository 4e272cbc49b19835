"""Better, no change or worse: paired figures of two networks, bootstrap intervals, and a rule that doubts "better"."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from reliev3r.core.errors import UserError
from reliev3r.geometry.rigid import relative, rotation_angle
from reliev3r.model.predict import predict
from reliev3r.verdict.bootstrap import resampled
from reliev3r.verdict.evidence import HeldoutCapture
from reliev3r.verdict.measure import Measured, label_agreement, measure, view_sets

Outcome = Literal["better", "no change", "worse"]


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How strict the judge is."""

    views: int = 8
    """Frames of one prediction; as many as the networks are used to."""
    sets: int = 5
    """Predictions with each held-out frame, of different other frames as far as there are any."""
    resamples: int = 1000
    level: float = 0.95
    """Of the bootstrap intervals."""
    margin: float = 0.03
    """Relative change of an angle or error, and change of a share, that an interval must exclude to count."""
    doubt: float = 0.15
    """Nothing is better while a deciding figure looks worse by more than this, however uncertain that is."""
    least_agreement: float = 0.2
    """Nothing is better by labels of which a smaller share agrees with the images (those of another capture do not)."""
    min_frames: int = 2
    """Held-out frames without which nothing is said."""
    min_pairs: int = 8
    """Pairs of frames likewise."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One quantity before and after; means over pairs of frames (geometric ones of angles and errors)."""

    name: str
    meaning: str
    unit: str
    before: float
    after: float
    change: tuple[float, float, float]
    """(estimate, low, high): relative for angles and errors (-0.2: a fifth less), a difference for shares."""
    sign: int
    """+1 clearly better, -1 clearly worse, 0 neither."""
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be believed of an adaptation, and why."""

    verdict: Outcome
    reasons: tuple[str, ...]
    """Plain English; the first says what decided."""
    figures: tuple[Figure, ...] = ()
    moved: dict[str, dict[str, float]] = field(default_factory=dict)
    """By replay capture: median relative change of depth and median change of relative rotations in degrees."""
    label_agreement: dict[str, float] = field(default_factory=dict)
    """By capture: share of the labels' held-out tracks that agree with what the images say."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How a figure is compared."""

    meaning: str
    unit: str
    lower_is_better: bool
    floor: float = 0.0
    """Angles and errors below are as good as it: the ratio of two tiny errors says nothing."""


KINDS = {
    "angle": _Kind(
        meaning="angle between a ray and the point that another frame predicts, at matches found anew",
        unit="degrees", lower_is_better=True, floor=0.1,
    ),
    "epipolar": _Kind(
        meaning="share of matches within 1 degree of the epipolar plane of the predicted cameras",
        unit="share", lower_is_better=False,
    ),
    "rotation": _Kind(
        meaning="error of relative rotations against cameras solved from the matches", unit="degrees",
        lower_is_better=True, floor=0.1,
    ),
    "direction": _Kind(
        meaning="error of the direction from camera to camera, against the same", unit="degrees",
        lower_is_better=True, floor=0.1,
    ),
    "depth": _Kind(
        meaning="relative error of depth at points triangulated from the matches", unit="relative",
        lower_is_better=True, floor=0.01,
    ),
    "labels": _Kind(
        meaning="the same angle at the labels' own held-out tracks (shown, not decisive: they may be wrong)",
        unit="degrees", lower_is_better=True, floor=0.1,
    ),
}  # fmt: skip
DECISIVE = "angle"
SHOWN_ONLY = ("labels",)
LABELS_FIT = 0.5
"""Labels of which a smaller share agrees with the images are called wrong."""


@torch.no_grad()
def judge(
    before: nn.Module,
    after: nn.Module,
    heldout: Sequence[HeldoutCapture],
    replay: Sequence[HeldoutCapture] = (),
    config: JudgeConfig | None = None,
) -> Verdict:
    """Compare two networks on captures whose images are the evidence; see docs/verdict.md for the rule.

    ``better`` needs the decisive figure (``angle``) to be clearly better, no other one to look worse, and labels that
    are of these images; ``worse`` is said of a collapse, of predictions that are not finite, and where a figure is
    clearly worse and none clearly better. Clearly: the bootstrap interval over frames excludes the margin. The modes
    and devices of the networks stay.

    Raises:
        UserError: the predictions of ``before`` are not finite.
    """
    config = config or JudgeConfig()
    usable = [capture for capture in heldout if capture.K is not None]
    moved = {capture.name: _moved(before, after, capture, config) for capture in replay if capture.K is not None}
    try:
        old = [measure(before, capture, config.views, config.sets) for capture in usable]
    except FloatingPointError as error:
        raise UserError(
            "the network predicts no finite numbers before any adaptation; are its weights whole?"
        ) from error
    try:
        new = [measure(after, capture, config.views, config.sets) for capture in usable]
    except FloatingPointError:
        return Verdict(verdict="worse", reasons=("The predictions after the adaptation are not finite.",))
    figures = compare(old, new, config)
    agreement = {c.name: share for c in usable if (share := label_agreement(c)) is not None}
    verdict, reasons = _rule(figures, agreement, old, new, config)
    return Verdict(
        verdict=verdict, reasons=(*reasons, *_remarks(figures, agreement, moved, [*heldout, *replay])),
        figures=figures, moved=moved, label_agreement=agreement,
    )  # fmt: skip


def compare(before: Sequence[Measured], after: Sequence[Measured], config: JudgeConfig) -> tuple[Figure, ...]:
    """Figures with bootstrap intervals over captures, and in each over its held-out and its other frames."""
    rows = [
        (capture, old, new)
        for capture, (one, other) in enumerate(zip(before, after, strict=True))
        for old, new in zip(one.pairs, other.pairs, strict=True)
    ]
    drawn = [(capture, *old.frames) for capture, old, _ in rows]
    weights = resampled(drawn, config.resamples, config.seed, alike=False) if rows else torch.zeros(0)
    figures = []
    for name in KINDS:
        pairs = [(getattr(old, name), getattr(new, name)) for _, old, new in rows]
        kept = [k for k, pair in enumerate(pairs) if None not in pair]
        if kept:
            values = torch.tensor([pairs[k] for k in kept]).double()
            figures.append(_figure(name, values, weights[:, kept], config))
    return tuple(figures)


def _figure(name: str, values: Tensor, weights: Tensor, config: JudgeConfig) -> Figure:
    kind = KINDS[name]
    ratio = kind.lower_is_better
    if ratio:
        values = values.clamp_min(kind.floor).log()
    difference = values[:, 1] - values[:, 0]
    total = weights.sum(1)
    means = (weights @ difference)[total > 0] / total[total > 0]
    tail = (1 - config.level) / 2
    spread = torch.stack([difference.mean(), *means.quantile(torch.tensor([tail, 1 - tail]).double())])
    estimate, low, high = (spread.expm1() if ratio else spread).tolist()
    before, after = (values.mean(0).exp() if ratio else values.mean(0)).tolist()
    good = high < -config.margin if ratio else low > config.margin
    bad = low > config.margin if ratio else high < -config.margin
    return Figure(
        name=name, meaning=kind.meaning, unit=kind.unit, before=before, after=after, change=(estimate, low, high),
        sign=int(good) - int(bad), pairs=len(difference),
    )  # fmt: skip


def _rule(
    figures: Sequence[Figure],
    agreement: Mapping[str, float],
    before: Sequence[Measured],
    after: Sequence[Measured],
    config: JudgeConfig,
) -> tuple[Outcome, list[str]]:
    frames = {(k, pair.frames[0]) for k, one in enumerate(after) for pair in one.pairs}
    pairs = sum(len(one.pairs) for one in after)
    alarms = _collapsed(after)
    if alarms and not _collapsed(before):
        return "worse", [f"The adapted network has collapsed: {alarms[0]}."]
    if len(frames) < config.min_frames or pairs < config.min_pairs:
        return "no change", [
            f"Too little evidence: {len(frames)} held-out frames in {pairs} pairs with matches; give more footage, or "
            "a track expert that finds more in it."
        ]
    judged = {figure.name: figure for figure in figures if figure.name not in SHOWN_ONLY}
    gains = [figure for figure in judged.values() if figure.sign > 0]
    losses = [figure for figure in judged.values() if figure.sign < 0]
    if losses and gains:
        return "no change", [f"Mixed: {_told(gains[0])}; but {_told(losses[0])}."]
    if losses:
        return "worse", [f"{_capital(_told(losses[0]))}; nothing else is clearly better."]
    if alarms:
        return "no change", [f"Both networks look collapsed: {alarms[0]}."]
    if judged[DECISIVE].sign <= 0:
        return "no change", ["No change of the decisive figure is certain: " + _told(judged[DECISIVE]) + "."]
    if agreement and statistics.median(agreement.values()) < config.least_agreement:
        return "no change", [
            f"The labels are not of these images: {_told(judged[DECISIVE])}, but what such labels teach is not trusted."
        ]
    if doubts := [figure for figure in judged.values() if _loss(figure) > config.doubt]:
        return "no change", [f"In doubt: {_told(judged[DECISIVE])}; but {_told(doubts[0])}."]
    return "better", [f"{_capital(_told(judged[DECISIVE]))}; nothing is worse."]


def _loss(figure: Figure) -> float:
    """How much worse it looks."""
    return figure.change[0] if KINDS[figure.name].lower_is_better else -figure.change[0]


def _collapsed(measured: Sequence[Measured]) -> list[str]:
    """The advice, where more than half of the predictions show a sign of collapse."""
    alarms = [alarm for one in measured for alarm in one.alarms]
    return alarms if 2 * len(alarms) > sum(len(one.predictions) for one in measured) else []


def _told(figure: Figure) -> str:
    estimate, low, high = figure.change
    change = (
        f"{estimate:+.0%}, {low:+.0%} to {high:+.0%}"
        if KINDS[figure.name].lower_is_better
        else (f"{estimate:+.2f}, {low:+.2f} to {high:+.2f}")
    )
    unit = " degrees" if figure.unit == "degrees" else ""
    return f"{figure.name} went from {figure.before:.3g} to {figure.after:.3g}{unit} ({change}; {figure.meaning})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _moved(before: nn.Module, after: nn.Module, capture: HeldoutCapture, config: JudgeConfig) -> dict[str, float]:
    """How far the predictions moved: no judgement, for a replay capture has no better evidence than footage has."""
    depths, turns = [], []
    for chosen in view_sets(capture, config.views, 1):
        old, new = (predict(model, capture.views.select_views(chosen)) for model in (before, after))
        ratio = (new.depth / old.depth).flatten().log()
        depths.append((ratio - ratio.median()).abs().median())
        one, other = (relative(each.world_from_cam.double())[..., :3, :3] for each in (old, new))
        turns.append(rotation_angle(one.mT @ other).rad2deg().median())
    if not depths:
        return {}
    return {"depth": float(torch.stack(depths).mean().expm1()), "rotation_deg": float(torch.stack(turns).mean())}


def _remarks(
    figures: Sequence[Figure],
    agreement: dict[str, float],
    moved: dict[str, dict[str, float]],
    captures: Sequence[HeldoutCapture],
) -> list[str]:
    remarks = []
    wrong = [name for name, share in agreement.items() if share < LABELS_FIT]
    if wrong:
        remarks.append(
            f"The labels of {', '.join(wrong)} do not fit the images: only {min(agreement.values()):.0%} of their "
            "held-out tracks agree with the matches found anew; label again, and look at labels/quality.json."
        )
    known = {figure.name: figure for figure in figures}
    if "labels" in known and DECISIVE in known and known["labels"].sign * known[DECISIVE].sign < 0:
        remarks.append("The labels' own held-out tracks say the opposite of the images; the images were believed.")
    for name, change in moved.items():
        if change:
            remarks.append(
                f"On the replay capture {name} depth moved by {change['depth']:.1%} and rotations by "
                f"{change['rotation_deg']:.1f} degrees (medians)."
            )
    if left := [capture.name for capture in captures if capture.K is None]:
        remarks.append(f"Not judged, for lack of intrinsics or matches: {', '.join(left)}.")
    return remarks
