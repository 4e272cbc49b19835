"""The vocabulary of the project: frozen dataclasses of tensors that flow through data, model, losses and evaluation.

Conventions (docs/conventions.md): transforms are ``a_from_b``; OpenCV camera axes (x right, y down, z forward); pixel
``uv`` has (0, 0) at the top-left *corner* of the image, so the first pixel's centre is (0.5, 0.5); ``K`` is in pixels
of the tensor it travels with; ``depth`` is z; masks are boolean and tensors never carry NaN or infinity as a sentinel.

``*b`` stands for any number of leading batch dimensions, ``v`` views, ``h w`` pixels, ``m`` tracks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Ambiguity = Literal["metric", "scale", "scale+shift"]
"""What a depth label leaves open: nothing, one factor per view, or one factor and one offset per view."""


_Self = TypeVar("_Self", bound="TensorStruct")  # typing.Self is beyond the shape checks of the tests


class TensorStruct:
    """Base of frozen dataclasses of tensors: moving and mapping every tensor field, nested ones included."""

    _AXES: ClassVar[dict[str, dict[str, int]]]
    """Position, from the end, of the view axis "v" and the track axis "m" of each tensor field."""

    def map(self: _Self, function: Any) -> _Self:
        """A copy in which ``function`` was applied to every tensor (fields that are ``None`` or no tensor stay)."""
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = function(value)
            elif isinstance(value, TensorStruct):
                changed[field.name] = value.map(function)
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self: _Self, target: torch.device | torch.dtype | str, *, non_blocking: bool = False) -> _Self:
        """The same on another device, or with floating-point tensors in another dtype.

        ``non_blocking`` copies of pinned memory to a GPU go on while the CPU does something else.
        """
        if isinstance(target, torch.dtype):
            return self.map(lambda x: x.to(target) if x.is_floating_point() else x)
        return self.map(lambda x: x.to(target, non_blocking=non_blocking))

    def pin_memory(self: _Self) -> _Self:
        """The same in memory that a GPU reads by itself; torch's loader calls this."""
        return self.map(lambda x: x.pin_memory())

    def detach(self: _Self) -> _Self:
        """The same without autograd history."""
        return self.map(lambda x: x.detach())

    def select_views(self: _Self, index: Tensor | list[int]) -> _Self:
        """The views named by ``index`` (1D, in order); the view axis comes before each field's own dimensions."""
        return self._take(index, "v")

    def _take(self: _Self, index: Tensor | list[int], axis: str) -> _Self:
        changed: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, TensorStruct):
                changed[field.name] = value._take(index, axis)
            elif isinstance(value, Tensor):
                position = self._AXES[field.name].get(axis)
                if position is not None:
                    chosen = index if isinstance(index, Tensor) else torch.tensor(index, dtype=torch.long)
                    changed[field.name] = value.index_select(value.ndim + position, chosen.to(value.device))
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]


def named_tensors(struct: TensorStruct, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor field, nested ones included, by its dotted name."""
    for field in dataclasses.fields(struct):  # type: ignore[arg-type]
        value = getattr(struct, field.name)
        if isinstance(value, Tensor):
            yield prefix + field.name, value
        elif isinstance(value, TensorStruct):
            yield from named_tensors(value, f"{prefix}{field.name}.")


def stack(samples: Sequence[_Self]) -> _Self:
    """Samples of equal shape as one batch, along a new first dimension.

    Raises:
        ValueError: a field is given in some samples and ``None`` in others, or is no tensor and differs.
    """
    first = samples[0]
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(first):  # type: ignore[arg-type]
        values = [getattr(sample, field.name) for sample in samples]
        if any(type(value) is not type(values[0]) for value in values):
            raise ValueError(f"{field.name} is given in some samples only")
        if isinstance(values[0], Tensor):
            changed[field.name] = torch.stack(values)
        elif isinstance(values[0], TensorStruct):
            changed[field.name] = stack(values)
        elif any(value != values[0] for value in values):
            raise ValueError(f"{field.name} differs between samples")
    return dataclasses.replace(first, **changed)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class Views(TensorStruct):
    """What a model sees: images and, where known, their intrinsics."""

    image: Float[Tensor, "*b v 3 h w"]
    """RGB in [0, 1]."""
    K: Float[Tensor, "*b v 3 3"] | None = None
    """Pinhole intrinsics in pixels of ``image``; ``None`` where unknown."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {"image": {"v": -4}, "K": {"v": -3}}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Truth(TensorStruct):
    """Ground truth, for scoring and for the fully-supervised sibling only: no weak loss accepts it."""

    depth: Float[Tensor, "*b v h w"]
    """z-depth; positive where ``valid``."""
    valid: Bool[Tensor, "*b v h w"]
    K: Float[Tensor, "*b v 3 3"]
    world_from_cam: Float[Tensor, "*b v 4 4"]
    metric: bool = True
    """Whether lengths are metres."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {
        "depth": {"v": -3},
        "valid": {"v": -3},
        "K": {"v": -3},
        "world_from_cam": {"v": -3},
    }


@dataclass(frozen=True, kw_only=True)
class DepthLabels(TensorStruct):
    """Pseudo depth of a monocular expert."""

    depth: Float[Tensor, "*b v h w"]
    """z-depth up to ``ambiguity``, positive where ``valid`` (finite elsewhere)."""
    valid: Bool[Tensor, "*b v h w"]
    ambiguity: Ambiguity = "scale"
    """Declared by the expert."""
    trust: Float[Tensor, "*b v"] | None = None
    """In [0, 1]: how far the tracks agree with the expert in each view; ``None`` counts as 1."""
    weight: Float[Tensor, "*b v h w"] | None = None
    """In [0, 1]: what each pixel's label is worth, where depth was swept; ``None`` counts as 1."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {
        "depth": {"v": -3},
        "valid": {"v": -3},
        "trust": {"v": -1},
        "weight": {"v": -3},
    }


@dataclass(frozen=True, kw_only=True)
class Tracks(TensorStruct):
    """Sparse 2D correspondences as one dense structure; a pairwise match is a track of length two."""

    uv: Float[Tensor, "*b v m 2"]
    """Pixels of the image they travel with; any finite value where not seen."""
    weight: Float[Tensor, "*b v m"]
    """In [0, 1]; 0 means that the track is not seen in the view."""
    depth: Float[Tensor, "*b v m"] | None = None
    """z-depth of the track's triangulated point, in the unit of ``CameraLabels``; 0 where it was not solved."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {
        "uv": {"v": -3, "m": -2},
        "weight": {"v": -2, "m": -1},
        "depth": {"v": -2, "m": -1},
    }

    @property
    def visible(self) -> Bool[Tensor, "*b v m"]:
        """Where a track is seen."""
        return self.weight > 0

    def select_tracks(self, index: Tensor | list[int]) -> Tracks:
        """The tracks named by ``index`` (1D)."""
        return self._take(index, "m")


@dataclass(frozen=True, kw_only=True)
class CameraLabels(TensorStruct):
    """Pseudo cameras solved from tracks alone (``sfm``): an optional early teacher, never ground truth."""

    world_from_cam: Float[Tensor, "*b v 4 4"]
    """In the unit in which the tracks' geometric mean distance from the cameras that see them is 1; any world frame."""
    weight: Float[Tensor, "*b v"]
    """In [0, 1]; 0 for views that the solve did not reach."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {"world_from_cam": {"v": -3}, "weight": {"v": -1}}


@dataclass(frozen=True, kw_only=True)
class PseudoLabels(TensorStruct):
    """Everything weak training may read: made from images, never from ground truth."""

    depth: DepthLabels
    tracks: Tracks
    K: Float[Tensor, "*b v 3 3"] | None = None
    """Pseudo intrinsics, where an expert gives them."""
    cameras: CameraLabels | None = None

    _AXES: ClassVar[dict[str, dict[str, int]]] = {"K": {"v": -3}}


@dataclass(frozen=True, kw_only=True)
class FullLabels(TensorStruct):
    """What the fully-supervised sibling reads: ground truth, and the tracks that its correspondence branch shares."""

    truth: Truth
    tracks: Tracks

    _AXES: ClassVar[dict[str, dict[str, int]]] = {}


Supervision = Literal["weak", "full"]
"""By pseudo-labels alone, or by ground truth (the fully-supervised sibling)."""

Labels = PseudoLabels | FullLabels


@dataclass(frozen=True, kw_only=True)
class Prediction(TensorStruct):
    """What a feed-forward model gives in one pass. Causes are stored, consequences are properties."""

    depth: Float[Tensor, "*b v h w"]
    """z-depth > 0, one unknown scale for all views together."""
    rays: Float[Tensor, "*b v h w 3"]
    """Camera-frame ray through each pixel's centre, with z = 1: from a known or predicted K, or a point head."""
    conf: Float[Tensor, "*b v h w"]
    """Confidence W in (0, 2) (paper, supplement C); 1 everywhere where nothing is known of it."""
    world_from_cam: Float[Tensor, "*b v 4 4"]
    """Camera to world, up to one global similarity shared by all views of a sample."""
    descriptors: Float[Tensor, "*b v gh gw c"] | None = None
    """Unit vectors, one a patch, from the auxiliary correspondence branch; ``None`` without it and outside training."""
    features: Float[Tensor, "*b v c fh fw"] | None = None
    """Dense features of a matching branch, all of one length: the dot product of two is the logit of their match.
    ``None`` without the branch and outside training."""
    reached: Bool[Tensor, "*b v"] | None = None
    """Of solved cameras: whether enough matches tie the view to the others. Where False its camera means nothing.
    ``None``: all are predicted."""
    has_cameras: bool = True
    """False for the training pass of a network that solves its cameras: ``world_from_cam`` is then the identity, and
    the losses take the cameras of the labels."""

    _AXES: ClassVar[dict[str, dict[str, int]]] = {
        "depth": {"v": -3},
        "rays": {"v": -4},
        "conf": {"v": -3},
        "world_from_cam": {"v": -3},
        "descriptors": {"v": -4},
        "features": {"v": -4},
        "reached": {"v": -1},
    }

    @property
    def knows_confidence(self) -> bool:
        """Whether W says anything: False where it is 1 everywhere."""
        return bool((self.conf != 1).any())

    @property
    def points_cam(self) -> Float[Tensor, "*b v h w 3"]:
        """Points in each view's own camera frame."""
        return self.rays * self.depth[..., None]

    @property
    def points_world(self) -> Float[Tensor, "*b v h w 3"]:
        """Points in the common world frame."""
        rotation = self.world_from_cam[..., :3, :3]
        centre = self.world_from_cam[..., None, None, :3, 3]
        return torch.einsum("...ij,...hwj->...hwi", rotation, self.points_cam) + centre

    @property
    def K(self) -> Float[Tensor, "*b v 3 3"]:
        """Pinhole intrinsics in pixels, the least-squares fit of u = fx * x/z + cx (and v alike) to ``rays``."""
        height, width = self.depth.shape[-2:]
        u = torch.arange(width, device=self.rays.device, dtype=self.rays.dtype) + 0.5
        v = torch.arange(height, device=self.rays.device, dtype=self.rays.dtype) + 0.5
        fx, cx = _line_fit(self.rays[..., 0], u.expand(height, width))
        fy, cy = _line_fit(self.rays[..., 1], v[:, None].expand(height, width))
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def _line_fit(x: Float[Tensor, "*b h w"], y: Float[Tensor, "h w"]) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the least-squares line y = slope * x + intercept over the last two axes."""
    x_mean, y_mean = x.mean((-2, -1), keepdim=True), y.mean()
    covariance = ((x - x_mean) * (y - y_mean)).sum((-2, -1))
    slope = covariance / (x - x_mean).square().sum((-2, -1)).clamp_min(1e-12)
    return slope, y_mean - slope * x_mean[..., 0, 0]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The number to descend and its named parts (unweighted)."""

    total: Float[Tensor, ""]
    parts: dict[str, Tensor]
