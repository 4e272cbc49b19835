"""A prediction and its truth brought side by side, in float64, before any protocol looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_type_hints

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.core.types import Prediction, Truth
from reliev3r.evaluation.metrics import Seen, auc, pair_errors
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import invert


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Predicted and true cameras of one set of views, each with the first found camera as the world frame."""

    predicted: Float[Tensor, "v 4 4"]
    """Identity where not found."""
    true: Float[Tensor, "v 4 4"]
    found: Bool[Tensor, " v"]

    def centres(self) -> tuple[Float[Tensor, "f 3"], Float[Tensor, "f 3"]]:
        """Predicted and true centres of the cameras that were found."""
        return self.predicted[self.found, :3, 3], self.true[self.found, :3, 3]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The valid pixels of all views: z-depth, and points in view 0's camera frame."""

    view: Int[Tensor, " n"]
    depth: Float[Tensor, "n 1"]
    true_depth: Float[Tensor, "n 1"]
    points: Float[Tensor, "n 3"]
    true_points: Float[Tensor, "n 3"]


def cameras_of(prediction: Prediction, truth: Truth, found: Bool[Tensor, " v"] | None) -> Cameras:
    """Cameras in the first found one's frame; a camera with a non-finite entry counts as not found."""
    predicted, true = prediction.world_from_cam.double(), truth.world_from_cam.double()
    finite = predicted.isfinite().flatten(1).all(1)
    found = finite if found is None else finite & found
    anchor = int(found.int().argmax())
    if found.any():
        predicted = invert(predicted[anchor]) @ predicted
    predicted = torch.where(found[:, None, None], predicted, torch.eye(4, dtype=torch.float64))
    return Cameras(predicted=predicted, true=invert(true[anchor]) @ true, found=found)


def pixels_of(prediction: Prediction, truth: Truth, cameras: Cameras) -> Pixels | None:
    """Valid pixels on the grid that both share; ``None`` where the truth has no depth or a camera is missing.

    A missing camera leaves its view's points without a place, so point and depth figures of such a set would not be
    comparable with those of other systems.

    Raises:
        UserError: the prediction has non-finite depth.
    """
    if not truth.valid.any() or not cameras.found.all():
        return None
    if not (prediction.depth.isfinite().all() and prediction.rays.isfinite().all()):
        raise UserError("the prediction has depth or rays that are not finite; predict again")
    valid = truth.valid
    rays = ray_map(truth.K.double(), *truth.depth.shape[-2:])
    true = Prediction(
        depth=truth.depth.double(),
        rays=rays,
        conf=torch.ones_like(truth.depth),
        world_from_cam=cameras.true,
    )
    own = Prediction(
        depth=prediction.depth.double(),
        rays=prediction.rays.double(),
        conf=prediction.conf,
        world_from_cam=cameras.predicted,
    )
    return Pixels(
        view=valid.nonzero()[:, 0],
        depth=own.depth[valid][:, None],
        true_depth=true.depth[valid][:, None],
        points=own.points_world[valid],
        true_points=true.points_world[valid],
    )


Protocol = Literal["strict", "mapanything", "pi3"]

DEFINITIONS: dict[Protocol, str] = {
    "strict": (
        "strict: points in view 0's frame under one L1-optimal scale, depth under one scale per scene, rel = |p-q|/|q| "
        "(mean over pixels, then views), tau = share with rel < 0.10, on the truth's pixels (long side <= 640); ATE = "
        "RMSE after Sim(3), divided by the RMS spread of the true centres; AUC@30 over all pairs of max(rotation, "
        "signed translation direction), seen from either camera."
    ),
    "mapanything": (
        "mapanything: everything in view 0's frame, divided by the mean distance of valid points (one factor each), on "
        "the prediction's pixels; rel = |p-q|/|q| (mean over pixels, then views), tau = share with max(|p|/|q|, "
        "|q|/|p|) < 1.10; ATE = mean distance after rigid alignment, in that unit (where there are no points, the mean "
        "distance of the cameras from view 0); AUC@30 over all pairs of "
        "max(rotation, sign-ambiguous translation direction)."
    ),
    "pi3": (
        "pi3: points under Sim(3) + ICP (0.1), accuracy / completeness / normal consistency on the truth's pixels "
        "(long side <= 640); depth rel and delta < 1.25 (as depth tau) under one scale, or scale and shift, per "
        "sequence, all pixels pooled; ATE = RMSE after Sim(3) in the truth's unit; AUC@30 over all pairs of "
        "max(rotation, sign-ambiguous translation direction)."
    ),
}
"""One line each, printed below every table; the modules of the same names have the full definitions."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of one prediction under one protocol; ``None`` where a quantity is not predicted or has no truth.

    The same field means different things under different protocols: never compare across them.
    """

    protocol: Protocol
    point_rel: float | None = None
    """Relative error of the point map, lower is better."""
    point_tau: float | None = None
    """Share of inlier points, in [0, 1]."""
    ate: float | None = None
    """Absolute trajectory error, lower is better; its unit is the protocol's."""
    auc30: float | None = None
    """Pose AUC at 30 degrees, in percent."""
    depth_rel: float | None = None
    """Relative error of z-depth, lower is better."""
    depth_tau: float | None = None
    """Share of inlier depths, in [0, 1]."""
    rotation_median_deg: float | None = None
    """Median rotation error over all pairs, in degrees."""
    translation_median_deg: float | None = None
    """Median error of the translation direction over all pairs, in degrees."""
    views: int
    """How many views were scored."""
    views_without_camera: int = 0
    """Views whose camera the system did not find: their pairs count as 180 degrees, the ATE leaves them out."""
    extras: dict[str, float] = field(default_factory=dict)
    """Further figures of the protocol."""
    pair_errors_deg: tuple[float, ...] = ()
    """Errors that ``auc30`` is made of, max(rotation, translation direction) of each pair: for pooling over scenes."""


def score_poses(protocol: Protocol, cameras: Cameras, *, ate: float | None, signed: bool, seen: Seen) -> Scores:
    """The part of the scores that comes from cameras alone; ``signed`` and ``seen`` as in ``metrics.pair_errors``."""
    rotation, translation = pair_errors(cameras.predicted, cameras.true, cameras.found, signed=signed, seen=seen)
    return Scores(
        protocol=protocol,
        ate=ate,
        auc30=auc(rotation, translation),
        rotation_median_deg=float(rotation.median()) if len(rotation) else None,
        translation_median_deg=float(translation.median()) if len(rotation) else None,
        views=len(cameras.true),
        views_without_camera=int((~cameras.found).sum()),
        pair_errors_deg=tuple(torch.maximum(rotation, translation).tolist()),
    )


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Mean over scenes of each figure, where a scene has it; views are counted together.

    Under ``pi3``, AUC@30 is that of the pairs of all scenes pooled, as its published numbers are.

    Raises:
        ValueError: no scores, or of different protocols.
    """
    if len({each.protocol for each in scores}) != 1:
        raise ValueError("scores of one protocol are needed")
    names = [name for name, kind in get_type_hints(Scores).items() if kind == float | None]
    extras = dict.fromkeys(name for each in scores for name in each.extras)
    pairs = tuple(error for each in scores for error in each.pair_errors_deg)
    means = {name: _mean([getattr(each, name) for each in scores]) for name in names}
    if scores[0].protocol == "pi3":
        pooled = torch.tensor(pairs, dtype=torch.float64)
        means["auc30"] = auc(pooled, torch.zeros_like(pooled))
    return Scores(
        protocol=scores[0].protocol,
        **means,
        views=sum(each.views for each in scores),
        views_without_camera=sum(each.views_without_camera for each in scores),
        extras={
            name: mean for name in extras if (mean := _mean([each.extras.get(name) for each in scores])) is not None
        },
        pair_errors_deg=pairs,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
