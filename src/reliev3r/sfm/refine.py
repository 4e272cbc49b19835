"""Refinement of a reconstruction by bundle adjustment: sub-pixel cameras for those who need them."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import transform
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import inside, sample_bilinear
from reliev3r.geometry.triangulate import reprojection_errors, triangulate, world_rays
from reliev3r.sfm.bundle_pycolmap import Bundle, NotAdjusted, adjust_bundle

_log = logging.getLogger(__name__)

_MIN_HELDOUT = 20
"""Fewer held-out tracks than this cannot judge: then every tenth training track is held out as well."""
_TRIMMED = 0.2
"""Share of the largest held-out errors that the trimmed mean ignores: false matches are held out too."""
_MIN_RATIOS = 10
"""Fewer sparse points than this do not set the scale of a view's depth map."""


@dataclass(frozen=True, kw_only=True)
class HeldoutError:
    """Reprojection error in original pixels of held-out tracks, triangulated with the cameras under judgement."""

    median_px: float
    trimmed_mean_px: float
    """Without the largest fifth."""
    views_px: float
    """Mean over views of the view's median, so that a single spoilt view shows."""

    def not_worse_than(self, other: HeldoutError) -> bool:
        """Whether no figure is above the other's."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return all(mine <= theirs for mine, theirs in pairs)


@dataclass(frozen=True, kw_only=True)
class RefineResult:
    """The reconstruction to use and how it was chosen."""

    reconstruction: Reconstruction
    """With refined cameras and rescaled depth if ``kept``, else the one that came in."""
    kept: bool
    reason: str
    """One sentence for the log and the report."""
    before: HeldoutError | None = None
    after: HeldoutError | None = None
    unrefined_views: tuple[str, ...] = ()
    """Views with too few consistent tracks: they only moved along with their nearest refined neighbour."""


def refine_cameras(
    reconstruction: Reconstruction, tracks: Tracks, heldout: Tracks | None, *, estimate_focal: bool = False
) -> RefineResult:
    """Bundle-adjust the cameras on ``tracks`` and keep the outcome only where ``heldout`` tracks do not disagree.

    Both are [v, m] in original pixels. The refined cameras stay in the gauge of the prediction, and each depth map is
    multiplied by the factor that makes it agree with the adjusted points. ``estimate_focal`` adjusts one focal length
    per image size too (for intrinsics that were not given). Lack of tracks or a failed adjustment raises nothing: the
    input is handed back and ``reason`` says why.
    """
    try:
        tracks, judges = _split(tracks, heldout)
        before = heldout_error(reconstruction, judges)
        bundle = adjust_bundle(
            tracks,
            reconstruction.K_original,
            reconstruction.prediction.world_from_cam,
            reconstruction.sizes,
            estimate_focal=estimate_focal,
        )
        refined = _with_bundle(reconstruction, tracks, bundle)
        after = heldout_error(refined, judges)
    except (NotAdjusted, RuntimeError, ValueError) as error:  # pycolmap and torch raise the latter two
        reason = f"not refined because {error}"
        _log.warning(reason)
        return RefineResult(reconstruction=reconstruction, kept=False, reason=reason)
    kept = after.not_worse_than(before)
    left_out = tuple(reconstruction.names[view] for view in (~bundle.adjusted).nonzero()[:, 0].tolist())
    reason = _reason(kept, before, after, left_out)
    _log.log(logging.INFO if kept and not left_out else logging.WARNING, reason)
    return RefineResult(
        reconstruction=refined if kept else reconstruction,
        kept=kept,
        reason=reason,
        before=before,
        after=after,
        unrefined_views=left_out,
    )


def _reason(kept: bool, before: HeldoutError, after: HeldoutError, left_out: tuple[str, ...]) -> str:
    change = (
        f"{before.median_px:.2f} to {after.median_px:.2f} pixels in the median (trimmed mean "
        f"{before.trimmed_mean_px:.2f} to {after.trimmed_mean_px:.2f}, mean over views {before.views_px:.2f} to "
        f"{after.views_px:.2f})"
    )
    if not kept:
        return f"not refined because the error of held-out matches did not fall: {change}"
    moved = f"; too few tracks to refine {', '.join(left_out)}: moved with their neighbours" if left_out else ""
    return f"cameras refined: the error of held-out matches went from {change}{moved}"


def heldout_error(reconstruction: Reconstruction, tracks: Tracks) -> HeldoutError:
    """Reprojection error of tracks (original pixels, at least one seen twice) under the reconstruction's cameras.

    Every observation of a track that is seen twice counts, false ones too; a point behind a camera counts as the
    image's diagonal.
    """
    K, world_from_cam = reconstruction.K_original, reconstruction.prediction.world_from_cam.double()
    rays = world_rays(tracks.to(torch.float64), K, world_from_cam)
    points = triangulate(rays, world_from_cam[:, :3, 3], tracks.weight.double())
    error, in_front = reprojection_errors(points, tracks, K, world_from_cam)
    diagonal = torch.tensor([math.hypot(*size) for size in reconstruction.sizes], dtype=error.dtype)[:, None]
    error = torch.where(in_front, torch.minimum(error, diagonal), diagonal)
    judged = tracks.visible & (tracks.visible.sum(0) >= 2)
    ordered = error[judged].sort().values
    views = [error[view, judged[view]].median() for view in range(len(error)) if judged[view].any()]
    return HeldoutError(
        median_px=ordered.median().item(),
        trimmed_mean_px=ordered[: math.ceil((1 - _TRIMMED) * len(ordered))].mean().item(),
        views_px=torch.stack(views).mean().item(),
    )


def _split(tracks: Tracks, heldout: Tracks | None) -> tuple[Tracks, Tracks]:
    """Tracks to adjust on and tracks to judge by, of those that are seen at least twice."""
    tracks = _paired(tracks)
    judges = tracks.select_tracks([]) if heldout is None else _paired(heldout)
    if judges.uv.shape[1] < _MIN_HELDOUT:
        tenth = torch.arange(tracks.uv.shape[1]) % 10 == 0
        extra = tracks.select_tracks(tenth.nonzero()[:, 0])
        tracks = tracks.select_tracks((~tenth).nonzero()[:, 0])
        judges = Tracks(
            uv=torch.cat([judges.uv, extra.uv], dim=1), weight=torch.cat([judges.weight, extra.weight], dim=1)
        )
    if judges.uv.shape[1] < _MIN_HELDOUT:
        raise NotAdjusted(f"only {judges.uv.shape[1]} tracks are there to judge it by ({_MIN_HELDOUT} needed)")
    return tracks, judges


def _paired(tracks: Tracks) -> Tracks:
    return tracks.select_tracks((tracks.visible.sum(0) >= 2).nonzero()[:, 0])


def _with_bundle(reconstruction: Reconstruction, tracks: Tracks, bundle: Bundle) -> Reconstruction:
    """The reconstruction under adjusted cameras: rays follow the focal length, depth the adjusted points."""
    old, new = reconstruction.K_original, bundle.K
    stretch = torch.stack([old[:, 0, 0] / new[:, 0, 0], old[:, 1, 1] / new[:, 1, 1], torch.ones(len(old))], dim=-1)
    prediction = reconstruction.prediction
    prediction = dataclasses.replace(
        prediction,
        depth=prediction.depth * _depth_factors(reconstruction, tracks, bundle)[:, None, None].float(),
        rays=prediction.rays * stretch[:, None, None].float(),
    )
    return dataclasses.replace(reconstruction, prediction=prediction).with_cameras(bundle.world_from_cam, refined=True)


def _depth_factors(reconstruction: Reconstruction, tracks: Tracks, bundle: Bundle) -> Float[Tensor, " v"]:
    """Per view the median of adjusted over predicted depth; the median view's where a view has too few points."""
    depth, covered = _depth_at(reconstruction, tracks)
    points = bundle.points.expand(len(depth), -1, -1)
    ratio = transform(invert(bundle.world_from_cam), points)[..., 2] / depth
    usable = bundle.kept & covered
    rich = usable.sum(1) >= _MIN_RATIOS
    if not rich.any():
        return torch.ones(len(depth), dtype=torch.float64)
    factors = torch.stack([ratio[view, usable[view]].median() for view in rich.nonzero()[:, 0].tolist()])
    result = factors.median().expand(len(depth)).clone()
    result[rich] = factors
    return result


def _depth_at(reconstruction: Reconstruction, tracks: Tracks) -> tuple[Float[Tensor, "v m"], Bool[Tensor, "v m"]]:
    """Predicted depth under each observation, and whether the observation lies on the map."""
    depth = reconstruction.prediction.depth.double()
    height, width = depth.shape[-2:]
    regions = reconstruction.regions.double()[:, None]
    uv = (tracks.uv.double() - regions[..., :2]) / regions[..., 2:] * torch.tensor([width, height])
    return sample_bilinear(depth, uv), tracks.visible & inside(uv, height, width)
