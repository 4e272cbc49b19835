"""Refinement of a reconstruction by bundle adjustment: sub-pixel cameras for those who need them."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import pixel_grid, ray_map, transform
from reliev3r.geometry.radial import distort
from reliev3r.geometry.rigid import invert
from reliev3r.geometry.sampling import inside, sample_bilinear
from reliev3r.sfm.bundle_pycolmap import Bundle, adjust_bundle
from reliev3r.sfm.held_views import NotAdjusted
from reliev3r.sfm.heldout_error import HeldoutError, heldout_error, observation_errors
from reliev3r.sfm.lens import CameraLens, LensPrior, adjust_with_lens
from reliev3r.sfm.place_views import place_views, trusted

_log = logging.getLogger(__name__)

_MIN_HELDOUT = 20
"""Fewer held-out tracks than this cannot judge: then every tenth training track is held out as well."""
_UNSEEN_CONFIDENCE = 0.01
"""Of pixels that only the image without distortion has."""
_MIN_RATIOS = 10
"""Fewer sparse points than this do not set the scale of a view's depth map."""


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
    placed_views: tuple[str, ...] = ()
    """Views that were placed anew, by points of the others."""
    guesses: tuple[str, ...] = ()
    """Views whose cameras came in as guesses and could not be placed: none of their observations counts."""
    lenses: tuple[CameraLens, ...] = ()
    """What was found about each camera's lens, if that was asked for and the outcome is kept."""


def refine_cameras(
    reconstruction: Reconstruction,
    tracks: Tracks,
    heldout: Tracks | None,
    *,
    lens: LensPrior | None = None,
    guessed: Bool[Tensor, " v"] | None = None,
    progress: Progress | None = None,
) -> RefineResult:
    """Bundle-adjust the cameras on ``tracks`` and keep the outcome only where ``heldout`` tracks do not disagree.

    Both are [v, m] in original pixels. The refined cameras stay in the gauge of the prediction, and each depth map is
    multiplied by the factor that makes it agree with the adjusted points. With ``lens`` focal lengths are found too,
    and radial distortion where it is evident (:mod:`reliev3r.sfm.lens`); the refined reconstruction is then
    about images without it (``Reconstruction.radial``). Views that adjustment leaves wrong are placed anew by points of
    the others (:mod:`reliev3r.sfm.place_views`); so are those that ``guessed`` names, whose cameras nothing is known
    about, and whose observations do not count before. Lack of tracks or a failed adjustment raises nothing: the input
    is handed back and ``reason`` says why. ``progress`` hears of the rounds of adjustment.
    """
    try:
        tracks, judges = _split(tracks, heldout)
        K, cameras, sizes = reconstruction.K_original, reconstruction.prediction.world_from_cam, reconstruction.sizes
        before = heldout_error(*observation_errors(judges, K, cameras, sizes))
        guessed = torch.zeros(len(K), dtype=torch.bool) if guessed is None else guessed
        lenses: tuple[CameraLens, ...] = ()
        own = trusted(tracks, ~guessed)
        if lens is None:
            first = adjust_bundle(own, K, cameras, sizes, progress=progress)
        else:
            first, lenses = adjust_with_lens(own, K, cameras, sizes, lens, progress)
        outcome = place_views(tracks, first, sizes, guessed)
        bundle = outcome.bundle
        refined = _with_bundle(reconstruction, outcome.tracks, bundle)
        after = heldout_error(*observation_errors(judges, bundle.K, bundle.world_from_cam, sizes, bundle.radial))
    except (NotAdjusted, RuntimeError, ValueError) as error:  # pycolmap and torch raise the latter two
        reason = f"not refined because {error}"
        _log.warning(reason)
        return RefineResult(reconstruction=reconstruction, kept=False, reason=reason)
    kept = after.not_worse_than(before)
    left_out, placed, guesses = (
        tuple(reconstruction.names[view] for view in views.nonzero()[:, 0].tolist())
        for views in (~bundle.adjusted, outcome.placed, ~outcome.seen)
    )
    reason = _reason(kept, before, after, left_out, placed)
    reason += _about(lenses, reconstruction.names) if kept else ""
    _log.log(logging.INFO if kept and not left_out else logging.WARNING, reason)
    return RefineResult(
        reconstruction=refined if kept else reconstruction,
        kept=kept,
        reason=reason,
        before=before,
        after=after,
        unrefined_views=left_out,
        placed_views=placed if kept else (),
        guesses=guesses if kept else (),
        lenses=lenses if kept else (),
    )


def _about(lenses: tuple[CameraLens, ...], names: tuple[str, ...]) -> str:
    if len(lenses) < 2:
        return "".join(f"; {lens.sentence}" for lens in lenses)
    return "".join(
        f"; camera of {names[lens.view]} ({lens.views} view{'s' if lens.views > 1 else ''}): {lens.sentence}"
        for lens in lenses
    )


def _reason(
    kept: bool, before: HeldoutError, after: HeldoutError, left_out: tuple[str, ...], placed: tuple[str, ...]
) -> str:
    change = (
        f"{before.median_px:.2f} to {after.median_px:.2f} pixels in the median (trimmed mean "
        f"{before.trimmed_mean_px:.2f} to {after.trimmed_mean_px:.2f}, mean over views {before.views_px:.2f} to "
        f"{after.views_px:.2f})"
    )
    if not kept:
        return f"not refined because the error of held-out matches did not fall: {change}"
    moved = f"; too few tracks to refine {', '.join(left_out)}: moved with their neighbours" if left_out else ""
    anew = f"; placed anew by the points of the other views: {', '.join(placed)}" if placed else ""
    return f"cameras refined: the error of held-out matches went from {change}{anew}{moved}"


def _split(tracks: Tracks, heldout: Tracks | None) -> tuple[Tracks, Tracks]:
    """Tracks to adjust on and tracks to judge by, of those that are seen at least twice."""
    everybody = torch.ones(len(tracks.weight), dtype=torch.bool)
    tracks = trusted(tracks, everybody)
    judges = tracks.select_tracks([]) if heldout is None else trusted(heldout, everybody)
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
    refined = dataclasses.replace(reconstruction, prediction=prediction)
    refined = refined.with_cameras(bundle.world_from_cam, refined=True)
    return _straightened(refined, bundle.radial) if bundle.radial.any() else refined


def _straightened(reconstruction: Reconstruction, radial: Float[Tensor, " v"]) -> Reconstruction:
    """The same maps on the pixels of images without distortion: depth and confidence of the nearest pixel."""
    prediction = reconstruction.prediction
    height, width = prediction.depth.shape[-2:]
    K = prediction.K.double()
    uv = pixel_grid(height, width).double().reshape(-1, 2).expand(len(K), -1, -1)
    stored = distort(uv, K, radial)
    column, row = stored[..., 0].floor().long().clamp(0, width - 1), stored[..., 1].floor().long().clamp(0, height - 1)
    view = torch.arange(len(K))[:, None].expand_as(row)

    def nearest(maps: Tensor) -> Tensor:
        return maps[view, row, column].unflatten(-1, (height, width))

    unseen = ~inside(stored, height, width).unflatten(-1, (height, width))
    colours = [sample_bilinear(channel.double(), stored) for channel in reconstruction.image.unbind(-1)]
    image = torch.stack(colours, dim=-1).round().to(torch.uint8).unflatten(1, (height, width))
    prediction = dataclasses.replace(
        prediction,
        depth=nearest(prediction.depth),
        conf=torch.where(unseen, _UNSEEN_CONFIDENCE, nearest(prediction.conf)),
        rays=ray_map(K, height, width).float(),
    )
    return dataclasses.replace(
        reconstruction,
        prediction=prediction,
        image=torch.where(unseen[..., None], torch.zeros_like(image), image),
        radial=tuple(radial.tolist()),
    )


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
