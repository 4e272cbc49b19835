"""From figures to a verdict that a person can act on: what is wrong, and what to do about it.

Every threshold has a reason that does not depend on the captures at hand:

- A capture is trained on as one scene. Where the largest part that tracks tie holds less than half of the views, most
  pairs of views never meet: unusable. Where it holds less than all: weak.
- Depth is learnt from parallax. Where rotations alone explain four tracks of five as precisely as matches are, there
  is none: unusable. A median angle below 1.5 degrees is where the camera solve itself stops to trust points: weak.
- One set of cameras must explain the tracks. Where a third of the observations contradicts it, a track of three views
  has a wrong observation on average: unusable. A seventh (one wrong in a track of seven): weak. Each pair of views may
  be fine by itself all the same: matches that follow a repeating structure from copy to copy obey a two-view geometry
  each, but not one common one. A structure that repeats inside the pictures then names the cause.
- A monocular depth that fits the tracks no better than a constant teaches nothing: weak.
- Fields of view that differ by over 20 % in focal length cannot both be right: weak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from reliev3r.core.types import Tracks
from reliev3r.labels.quality.figures import FovFigures, ImageFigures, LabelFigures, focal_ratio
from reliev3r.sfm.track_graph import connected_parts, shared_tracks

LabelVerdict = Literal["good", "weak", "unusable"]

LARGEST_PART = 0.5
TURNED_ONLY = 0.8
PARALLAX_DEG = 1.5
CONTRADICTED, DOUBTFUL = 2 / 3, 6 / 7  # explained share below which the tracks are unusable, weak
OBEDIENT = 0.6  # share of matches that must obey the geometry of their pair; below, most are chance
LONG_TRACKS = 0.05  # share of the tracks that should reach three views: two-view tracks carry no scale along
COPIES, MANY_COPIES = 0.04, 0.25  # share of keypoints with a look-alike: other scenes have up to 0.03; half a wall
SOFT, STREAKED, STREAK = 0.65, 0.55, 0.18  # blur; blur and its direction: crisp photographs have up to 0.53 and 0.13
BARE = 0.15  # share of blocks that show anything
SKY = 0.6
FOCAL_RATIO = 1.2
FEW = 30  # a view with fewer observations is named as weakly tied


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with the labels of a capture."""

    code: str
    """For programs."""
    level: Literal["weak", "unusable"]
    reason: str
    """For people: what was seen."""
    remedy: str
    """What to do."""


def judge_labels(figures: LabelFigures) -> tuple[LabelVerdict, tuple[Finding, ...]]:
    """The verdict and its reasons, the gravest first."""
    rules: Sequence[Callable[[LabelFigures], Finding | None]] = (
        _pictures, _ties, _rotation, _contradiction, _pairs, _parallax, _length, _few, _some_blurred, _depth, _fov,
        _sky,
    )  # fmt: skip
    findings = [finding for rule in rules if (finding := rule(figures)) is not None]
    findings.sort(key=lambda finding: finding.level != "unusable")
    return ("unusable" if findings[0].level == "unusable" else "weak") if findings else "good", tuple(findings)


def explain_pictures(images: ImageFigures) -> Finding | None:
    """Why these pictures give few matches, if it can be seen in them: no texture, blur, repetition."""
    if median(images.texture) < BARE:
        return Finding(
            code="texture", level="unusable",
            reason=f"the images show hardly any texture ({median(images.texture):.0%} of their area varies at all)",
            remedy="matches need something to hold on to: include textured surroundings, or light the scene",
        )  # fmt: skip
    blurred = blurred_frames(images)
    if len(blurred) >= 0.5 * len(images.frames):
        moved = median(images.streak) > STREAK
        kind = "smeared by motion" if moved else "out of focus or blurred"
        return Finding(
            code="blur", level="unusable",
            reason=f"{len(blurred)} of {len(images.frames)} images looked at are {kind}",
            remedy="use shorter exposures (more light) or a slower camera" if moved else "use sharp images",
        )  # fmt: skip
    if max(images.copies, images.mirrored) >= MANY_COPIES:
        return _repeating(images, "unusable", "matches cannot tell the copies apart")
    return None


def blurred_frames(images: ImageFigures) -> list[str]:
    """The frames that are out of focus or smeared in one direction."""
    return [
        frame
        for frame, blur, streak in zip(images.frames, images.blur, images.streak, strict=True)
        if blur > SOFT or (blur > STREAKED and streak > STREAK)
    ]


def _pictures(figures: LabelFigures) -> Finding | None:
    """Pictures that explain why the views are not tied, or that spoil the labels even if they are."""
    finding = explain_pictures(figures.images)
    if finding is None or finding.code == "repetition":  # repetition that does no harm is a remark, see _contradiction
        return finding if finding is not None and not _tied(figures) else None
    if _tied(figures):
        return Finding(code=finding.code, level="weak", reason=finding.reason, remedy=finding.remedy)
    return finding


def _tied(figures: LabelFigures) -> bool:
    """Whether nearly all views are tied to one another."""
    return len(figures.tracks.parts[0]) >= 0.75 * figures.views and figures.tracks.count > 0


def _ties(figures: LabelFigures) -> Finding | None:
    parts = figures.tracks.parts
    if len(parts) == 1:
        return None
    largest = len(parts[0]) / figures.views
    groups = [part for part in parts if len(part) > 1]
    lonely = [part[0] for part in parts if len(part) == 1]
    reasons = []
    if len(groups) > 1:
        named = "; ".join(listed(list(part), 4) for part in groups[:4])
        reasons.append(f"the images fall into {len(groups)} parts that no track connects ({named})")
    if lonely:
        reasons.append(f"no track ties {listed(lonely, 6)} to the other images")
    apart = len(groups) > 1 and figures.views == sum(map(len, groups))
    return Finding(
        code="parts", level="unusable" if largest < LARGEST_PART or not groups else "weak",
        reason=", and ".join(reasons),
        remedy="if they show different places, label each by itself; else add images between them"
        if apart else "remove those that show something else, or add images between",
    )  # fmt: skip


def _rotation(figures: LabelFigures) -> Finding | None:
    pairs = figures.pairs
    if pairs is None or pairs.turned_only < TURNED_ONLY:
        return None
    return Finding(
        code="rotation", level="unusable",
        reason=f"the camera only turns: rotation alone explains {pairs.turned_only:.0%} of the tracks, "
        "so they hold no depth",
        remedy="move the camera sideways between images, by a tenth of the distance to the scene or more",
    )  # fmt: skip


def _contradiction(figures: LabelFigures) -> Finding | None:
    """Repetition, and tracks that no set of cameras explains; the first names the cause of the second."""
    images, cameras = figures.images, figures.cameras
    copies = max(images.copies, images.mirrored)
    explained = 1.0 if cameras is None else cameras.explained
    if explained >= DOUBTFUL:
        harmless = "the tracks agree with one set of cameras, but may all follow the wrong copy"
        return _repeating(images, "weak", harmless) if copies >= MANY_COPIES and cameras is not None else None
    level: Literal["weak", "unusable"] = "unusable" if explained < CONTRADICTED else "weak"
    reason = f"{1 - explained:.0%} of the observations contradict one set of cameras"
    if copies >= COPIES:
        return _repeating(images, level, reason)
    return Finding(
        code="contradiction", level=level, reason=reason,
        remedy="look for moving things, look-alike places or wrong intrinsics; take images closer together",
    )  # fmt: skip


def _repeating(images: ImageFigures, level: Literal["weak", "unusable"], consequence: str) -> Finding:
    shares = [f"{images.copies:.0%} of the keypoints have a copy in the same image"]
    if images.mirrored >= COPIES:
        shares.append(f"{images.mirrored:.0%} a mirrored one")
    return Finding(
        code="repetition", level=level, reason=f"the scene repeats itself ({', '.join(shares)}): {consequence}",
        remedy="take in surroundings that are there only once, and images closer together than half a period",
    )  # fmt: skip


def _pairs(figures: LabelFigures) -> Finding | None:
    pairs = figures.pairs
    if pairs is None or pairs.epipolar_inliers >= OBEDIENT:
        return None
    return Finding(
        code="matches", level="unusable" if pairs.epipolar_inliers < 0.5 * OBEDIENT else "weak",
        reason=f"only {pairs.epipolar_inliers:.0%} of the matches obey the two-view geometry of their images",
        remedy="use another track expert, or images with more overlap",
    )  # fmt: skip


def _parallax(figures: LabelFigures) -> Finding | None:
    cameras = figures.cameras
    angle = None if cameras is None else cameras.parallax_deg.get("median")
    if angle is None or angle >= PARALLAX_DEG:
        return None
    return Finding(
        code="parallax", level="weak", reason=f"the camera hardly moves: the median track spans {angle:.1f} degrees",
        remedy="spread the images further apart",
    )  # fmt: skip


def _length(figures: LabelFigures) -> Finding | None:
    share = figures.tracks.survival.get("3")
    if share is None or share >= LONG_TRACKS:
        return None
    return Finding(
        code="short", level="weak", reason=f"only {share:.0%} of the tracks reach a third image: the scale can drift",
        remedy="use images with more overlap, or another track expert",
    )  # fmt: skip


def _few(figures: LabelFigures) -> Finding | None:
    few = [count for count in figures.tracks.per_view if count < FEW]
    if len(few) < 0.25 * figures.views:
        return None
    return Finding(
        code="few", level="weak", reason=f"{len(few)} of {figures.views} images have fewer than {FEW} tracks",
        remedy="use images with more overlap or texture, or another track expert",
    )  # fmt: skip


def _some_blurred(figures: LabelFigures) -> Finding | None:
    blurred = blurred_frames(figures.images)
    if not blurred or len(blurred) >= 0.5 * len(figures.images.frames):
        return None
    if len(blurred) < 0.2 * len(figures.images.frames):
        return None
    return Finding(
        code="blur", level="weak", reason=f"{listed(blurred, 6)} are blurred", remedy="leave them out or replace them"
    )


def _depth(figures: LabelFigures) -> Finding | None:
    depth = figures.depth
    if depth is None or depth.scale_error is None or depth.flat_error is None or depth.rank_correlation is None:
        return None
    if depth.scale_error < depth.flat_error or depth.rank_correlation > 0.5:
        return None
    return Finding(
        code="depth", level="weak",
        reason=f"the depth expert disagrees with the tracks: {depth.scale_error:.0%} off, where a constant depth is "
        f"{depth.flat_error:.0%} off",
        remedy="use another depth expert, or train with less depth weight",
    )  # fmt: skip


def _fov(figures: LabelFigures) -> Finding | None:
    """Opinions on the field of view that cannot both be right; what is used is compared with the others."""
    fov: FovFigures = figures.fov
    used = fov.given if fov.given is not None else fov.tracks
    others = {"EXIF": fov.exif, "the depth expert": fov.expert, "the tracks": fov.tracks}
    repeating = max(figures.images.copies, figures.images.mirrored) >= COPIES
    if used is None or (repeating and figures.cameras is not None and figures.cameras.explained < DOUBTFUL):
        return None  # where the tracks are wrong, what they say about the lens is, too
    for name, other in others.items():
        ratio = 1.0 if other is None else focal_ratio(used, other)
        if other is not None and max(ratio, 1 / ratio) > FOCAL_RATIO:
            source = fov.source or "the tracks"
            return Finding(
                code="fov", level="weak",
                reason=f"the field of view is in doubt: {used:.0f} degrees by {source}, {other:.0f} by {name}",
                remedy="check the intrinsics (--intrinsics FILE or fov:DEG)",
            )  # fmt: skip
    return None


def _sky(figures: LabelFigures) -> Finding | None:
    depth = figures.depth
    if depth is None or depth.invalid <= SKY:
        return None
    return Finding(
        code="sky", level="weak", reason=f"the depth expert leaves out {depth.invalid:.0%} of the pixels (sky, doubt)",
        remedy="point the camera at the scene, or use another depth expert",
    )  # fmt: skip


def check_labels(tracks: Tracks, names: Sequence[str]) -> list[str]:
    """Warnings in plain language: images that nothing ties, parts that no track connects, weakly tied images."""
    parts = connected_parts(tracks.visible)
    lonely = [names[part[0]] for part in parts if len(part) == 1]
    groups = [part for part in parts if len(part) > 1]
    warnings = []
    if len(groups) > 1:
        sets = "; ".join(listed([names[index] for index in part]) for part in groups)
        warnings.append(
            f"the images fall into {len(groups)} parts that no track connects ({sets}): "
            "they cannot be placed relative to each other; add images between them or use one part alone"
        )
    if lonely:
        warnings.append(f"no track ties {listed(lonely)} to the other images; remove them or add images between")
    counts = shared_tracks(tracks.visible).diagonal().tolist()
    weak = [f"{names[i]} ({counts[i]} tracks)" for part in groups for i in part if counts[i] < FEW]
    if weak:
        warnings.append(f"few tracks tie {listed(weak)}; expect uncertain cameras there")
    return warnings


def listed(names: list[str], most: int = 12) -> str:
    """Names in a row; beyond ``most`` how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
