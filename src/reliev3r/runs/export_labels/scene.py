"""From the labels of one capture to a scene that a supervised trainer can read. Ground truth is not read."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.core.types import DepthLabels, Tracks
from reliev3r.data.capture import Capture
from reliev3r.export.trainers.scene import TrainingScene
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.geometry.triangulate import consistent_points
from reliev3r.labels.catalogue import licence_of
from reliev3r.labels.prepare import PrepareConfig, Prepared, prepare_capture
from reliev3r.labels.quality.assess import LabelQuality
from reliev3r.labels.store import CaptureLabels

FEWEST_VIEWS = 3
"""A scene of fewer is none: two views have no scale to check, and VGGT-Omega's loader warns."""
_FEWEST = 20
"""Observations that must agree with a view's camera."""
_LONGEST_NAME = 240
"""Bytes: 255 on every usual disk, without what names its temporary folder."""
_EXPLAINED = 2 / 3
"""Their share below which it is no camera to learn from, as of labels that are unusable (``labels.quality``)."""


class LeftOut(UserError):
    """A capture that is no training scene for a good reason: nothing failed."""


def training_scene(
    name: str, capture: Capture, labels: CaptureLabels, quality: LabelQuality, config: PrepareConfig, *,
    progress: Progress | None = None,
) -> TrainingScene:  # fmt: skip
    """The views whose camera the tracks support and whose depth they bring to the cameras' unit.

    All images get one size, by ``config.image_size`` and the shape of most: others are cropped to it, and K says so.
    Confidence is the trust in a view's expert, times a pixel's weight where depth is swept.

    Raises:
        LeftOut: no depth, no cameras, or too few such views.
        UserError: damaged labels or images, or settings under which depth and cameras have no unit in common.
    """
    if not config.register:
        raise UserError("register=false: depth would stay in the expert's unit, apart from the cameras; leave it on")
    prepared = prepare_capture(capture, labels, config, patch=1, progress=progress)
    pseudo, K = prepared.labels, prepared.views.K if prepared.labels.K is None else prepared.labels.K
    if pseudo.cameras is None or K is None:
        raise LeftOut("; ".join(prepared.notes) or "no cameras could be solved")
    if not bool(pseudo.depth.valid.any()):
        raise LeftOut("it has no depth: label it with a depth expert, or add sweep=true")
    agreement, reasons = _judge_views(prepared, K, config, capture.names)
    kept = [index for index, view in enumerate(capture.names) if view not in reasons]
    if len(kept) < FEWEST_VIEWS:
        first = next(iter(reasons.items()), ("", ""))
        told = f" ({first[0]}: {first[1]})" if reasons else ""
        raise LeftOut(f"only {len(kept)} of {len(capture.names)} views have a good camera and depth{told}")
    images = (prepared.views.image[kept].movedim(1, -1) * 255).round().to(torch.uint8)
    known = pseudo.depth.valid[kept]
    frames = [
        {"name": capture.names[index], "observations": int(agreement.seen[index]),
         "explained": round(float(agreement.share[index]), 4), "trust": round(float(_trust(pseudo.depth)[index]), 4)}
        for index in kept
    ]  # fmt: skip
    return TrainingScene(
        name=name,
        frames=tuple(capture.names[index] for index in kept),
        images=images.numpy(),
        depth=(pseudo.depth.depth[kept] * known).float().numpy(),
        confidence=_confidence(pseudo.depth)[kept].float().numpy(),
        K=K[kept].double().numpy(),
        world_from_cam=_rigid(pseudo.cameras.world_from_cam[kept]).numpy(),
        note={
            "unit": "free: the tracks' geometric mean distance from the cameras that see them is 1; not metres",
            "experts": experts_of(labels, capture, config),
            "licences": "those of the experts above apply to what they made, that of the images to the images",
            "intrinsics": capture.K_source or "the focal length that the tracks suggest, shared by all views",
            "verdict": quality.verdict, "reasons": list(quality.sentences),
            "heldout": _heldout_evidence(prepared, K, kept, config),
            "frames": frames, "left_out": reasons,
        },
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Agreement:
    """Of the training tracks with the cameras, for each view."""

    seen: Tensor
    """Observations of tracks that another kept view sees too."""
    share: Tensor
    """Of these that agree."""


def _judge_views(
    prepared: Prepared, K: Tensor, config: PrepareConfig, names: tuple[str, ...]
) -> tuple[_Agreement, dict[str, str]]:
    """How far the tracks agree with each camera, and why views are left out, by name."""
    cameras, tracks, depth = prepared.labels.cameras, prepared.labels.tracks, prepared.labels.depth
    assert cameras is not None
    reasons = {
        names[i]: "too few matches tie it to the others" for i in torch.nonzero(cameras.weight == 0)[:, 0].tolist()
    }
    kept = cameras.weight > 0
    while True:
        seen, agrees = _agreeing(tracks, K, cameras.world_from_cam, kept, config)
        seen_count, agree_count = seen.sum(1), agrees.sum(1)
        share = agree_count / seen_count.clamp_min(1)
        bad = kept & ((agree_count < _FEWEST) | (share < _EXPLAINED))
        if not bool(bad.any()):
            break
        for index in torch.nonzero(bad)[:, 0].tolist():
            reasons[names[index]] = (
                f"its camera agrees with {int(agree_count[index])} of {int(seen_count[index])} observations"
            )
        kept = kept & ~bad  # what they said of the points no longer counts
    usable = _scaled_by(tracks, depth)
    least = config.registration.min_tracks
    for index in torch.nonzero(kept & (usable < least))[:, 0].tolist():
        reasons[names[index]] = (
            f"only {int(usable[index])} solved tracks lie on its depth, {least} are needed to bring it to scale"
        )
    return _Agreement(seen=seen_count, share=share), reasons


def _agreeing(
    tracks: Tracks, K: Tensor, world_from_cam: Tensor, kept: Bool[Tensor, " v"], config: PrepareConfig
) -> tuple[Bool[Tensor, "v m"], Bool[Tensor, "v m"]]:
    """Observations of tracks that two kept views see, and those that agree with their common point."""
    among = dataclasses.replace(tracks, weight=tracks.weight * kept[:, None])
    seen = among.visible & (among.visible.sum(0) >= 2)
    _, agrees = consistent_points(among, K, world_from_cam, max_angle=config.solver.inlier_angle)
    return seen, agrees & seen


def _scaled_by(tracks: Tracks, depth: DepthLabels) -> Int[Tensor, " v"]:
    """Solved tracks of each view that lie on its depth."""
    assert tracks.depth is not None
    on_depth = sample_bilinear(depth.valid.float(), tracks.uv) > 0.5
    return ((tracks.depth > 0) & tracks.visible & on_depth).sum(1)


def _trust(depth: DepthLabels) -> Float[Tensor, " v"]:
    return torch.ones(len(depth.depth)) if depth.trust is None else depth.trust


def _confidence(depth: DepthLabels) -> Float[Tensor, "v h w"]:
    weight = depth.valid.float() if depth.weight is None else depth.weight * depth.valid
    return weight * _trust(depth)[:, None, None]


def _rigid(poses: Float[Tensor, "v 4 4"]) -> Float[Tensor, "v 4 4"]:
    """float64 with rotations that are rotations to its precision: some loaders check."""
    poses = poses.double().clone()
    u, _, vh = torch.linalg.svd(poses[:, :3, :3])
    poses[:, :3, :3] = u @ vh
    return poses


def _heldout_evidence(prepared: Prepared, K: Tensor, kept: list[int], config: PrepareConfig) -> dict[str, Any]:
    """What tracks that neither cameras nor depth were made from say about both."""
    cameras, depth = prepared.labels.cameras, prepared.labels.depth.select_views(kept)
    assert cameras is not None
    tracks, poses, K = prepared.heldout.select_views(kept), cameras.world_from_cam[kept].double(), K[kept]
    seen = tracks.visible & (tracks.visible.sum(0) >= 2)
    points, agrees = consistent_points(
        tracks, K, poses, max_angle=config.solver.inlier_angle, min_parallax=config.solver.min_parallax
    )
    z = ((points[None] - poses[:, None, :3, 3]) * poses[:, None, :3, 2]).sum(-1)
    on_depth = agrees & (z > 0) & (sample_bilinear(depth.valid.float(), tracks.uv) > 0.5)
    error = (sample_bilinear(depth.depth, tracks.uv)[on_depth] / z[on_depth] - 1).abs()
    return {
        "tracks_share": config.heldout, "observations": int(seen.sum()),
        "explained": round(float(agrees.sum() / seen.sum()), 4) if bool(seen.any()) else None,
        "median_depth_error": round(float(error.median()), 4) if len(error) else None,
    }  # fmt: skip


def experts_of(labels: CaptureLabels, capture: Capture, config: PrepareConfig) -> list[dict[str, Any]]:
    """Role, name, licence and fingerprint of all that had a part in the labels."""
    used = [("depth", labels.fingerprints["depth"]), ("tracks", labels.fingerprints["tracks"])]
    if capture.K_source is not None and capture.K_source.startswith("expert "):
        used.append(("intrinsics", {"name": capture.K_source.removeprefix("expert ")}))
    if config.sweep:
        used.append(("sweep", {"name": "network"}))
    return [
        {"role": role, "name": fingerprint["name"], "licence": licence_of(role, str(fingerprint["name"])),
         "fingerprint": fingerprint}
        for role, fingerprint in used
    ]  # fmt: skip


def scene_name(capture: str) -> str:
    """Folder of a capture's scene: one level. Lists of scenes are split at white space; "#" starts their comments."""
    return re.sub("^#", "_", "_".join(capture.replace("/", " ").split()))


def scene_names(captures: list[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Scene by capture. ``reserved`` are names that other things have where the scenes are.

    Raises:
        UserError: two captures would become one scene, or a name is reserved or too long for a folder.
    """
    taken: dict[str, str] = {}
    for capture in captures:
        name = scene_name(capture)
        other = taken.setdefault(name.lower(), capture)
        if other != capture:
            raise UserError(f"captures {other} and {capture} would both become scene {name}; rename one")
        if name.lower() in reserved:
            raise UserError(f"capture {capture}: its scene cannot have the name of what lists the scenes; rename it")
        if len(name.encode()) > _LONGEST_NAME:
            raise UserError(
                f"capture {capture}: its scene's name is longer than {_LONGEST_NAME} bytes; shorten the folders' names"
            )
    return {capture: scene_name(capture) for capture in captures}
