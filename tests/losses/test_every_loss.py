"""What holds for every loss: finite, true gradients, blind to what it claims, a batch is its samples, weights count.

Hand values and what is special to one loss are in the files beside this one.
"""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

import builders
from reliev3r.core.types import FullLabels, Prediction, PseudoLabels, TensorStruct
from reliev3r.geometry.camera import ray_map
from reliev3r.losses.cameras import focal_loss, relative_pose_gap, relative_pose_loss
from reliev3r.losses.depth import DepthLossConfig, depth_loss
from reliev3r.losses.full import SupervisedConfig, normal_loss, supervised
from reliev3r.losses.matching import CorrespondenceConfig, correspondence_loss
from reliev3r.losses.tracks import (
    ReprojectionConfig,
    gauge_loss,
    reprojection_loss,
    track_depth_loss,
    track_geometry,
)
from reliev3r.losses.weak import ObjectiveConfig, objective

VIEWS, SIZE = 3, (8, 12)
LEAVES = ("depth", "rays", "conf", "world_from_cam", "descriptors")
TEACHER = 0.25
WEAK = ObjectiveConfig(teacher_weight=0.7, fov_weight=0.5, correspondence_weight=0.3)
FULL = SupervisedConfig(fov_weight=1.0, correspondence_weight=1.0)
NO_NORMALS = dataclasses.replace(FULL, normals_weight=0.0)


@dataclass(frozen=True, kw_only=True)
class Case(TensorStruct):
    """All that any loss looks at, in one batch."""

    prediction: Prediction
    weak: PseudoLabels
    full: FullLabels

    _AXES: ClassVar = {}


@functools.cache  # nothing writes into one
def case(scenes: int = 2, *, everything_counts: bool = False, seed: int = 0) -> Case:
    """Random; with a part of the pixels, tracks and cameras without weight, unless ``everything_counts``."""
    label = builders.taught(builders.labels(VIEWS, scenes=scenes, seed=seed + 1, count=9, size=SIZE))
    made = Case(
        prediction=builders.prediction(VIEWS, scenes=scenes, seed=seed, size=SIZE, smooth=True, channels=4),
        weak=label,
        full=builders.full_labels(VIEWS, scenes=scenes, seed=seed + 3, size=SIZE),
    ).to(torch.float64)
    return weighted(made, 1.0) if everything_counts else made


def weighted(c: Case, weight: float) -> Case:
    """The same with one weight (0 or 1) for every pixel, track and camera."""
    valid = torch.full_like(c.weak.depth.valid, bool(weight))

    def tracks(old):
        depth = None if old.depth is None else old.depth.clamp_min(0.5)
        return dataclasses.replace(old, weight=torch.full_like(old.weight, weight), depth=depth)

    weak = dataclasses.replace(
        c.weak,
        depth=dataclasses.replace(c.weak.depth, valid=valid),
        tracks=tracks(c.weak.tracks),
        cameras=dataclasses.replace(c.weak.cameras, weight=torch.full_like(c.weak.cameras.weight, weight)),
    )
    truth = dataclasses.replace(c.full.truth, valid=valid)
    return dataclasses.replace(c, weak=weak, full=FullLabels(truth=truth, tracks=tracks(c.full.tracks)))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A loss as one number of a case, and what its docstring claims."""

    value: Callable[[Case], Tensor]
    blind: tuple[str, ...] = ("turn", "scale")
    """Names of ``CHANGES`` that it does not see."""
    stopped: tuple[str, ...] = ()
    """Parts of the prediction that it reads without their gradient as well, so that finite differences differ."""
    of_batch: str = "sum"
    """What the value of a batch is of those of its samples."""


def total(values_and_weight: tuple[Tensor, Tensor]) -> Tensor:
    values, weight = values_and_weight
    return (values * weight).sum()


def of_depth(config: DepthLossConfig, ambiguity: str = "scale") -> Callable[[Case], Tensor]:
    def value(c: Case) -> Tensor:
        label = dataclasses.replace(c.weak.depth, ambiguity=ambiguity)
        return total(depth_loss(c.prediction.depth, c.prediction.conf, label, config))

    return value


def of_tracks(form: str) -> Callable[[Case], Tensor]:
    return lambda c: total(reprojection_loss(c.prediction, c.weak.tracks, ReprojectionConfig(form=form)))


def of_poses(c: Case) -> Tensor:
    cameras = c.weak.cameras
    unit = c.prediction.depth.detach().mean((-3, -2, -1))  # the prediction's, whatever that is
    return total(relative_pose_loss(c.prediction.world_from_cam, cameras.world_from_cam, cameras.weight, scale=unit))


def of_pose_gap(c: Case) -> Tensor:
    rotation, gap = relative_pose_gap(c.prediction.world_from_cam, c.full.truth.world_from_cam)
    return (rotation * (1 - torch.eye(VIEWS).to(rotation))).sum() + gap.square().sum()  # a kink where i = j


def of_normals(c: Case) -> Tensor:
    truth = c.full.truth
    target = ray_map(truth.K, *SIZE) * truth.depth[..., None]
    return total(normal_loss(c.prediction.points_cam, target, truth.valid))


LOSSES = {
    **{
        f"depth, {kind} of {space}, {average} deviation": Entry(
            value=of_depth(DepthLossConfig(deviation=average, space=space), kind),
            blind=("turn", "scale", "scale of a view", "unit of a label")
            + ("shift of a view",) * (kind == "scale+shift" and space == "depth"),
            stopped=("conf",),
        )
        for kind, space in itertools.product(("scale", "scale+shift"), ("depth", "log", "disparity"))
        for average in ("mean", "median")
    },
    "depth without confidence": Entry(
        value=of_depth(DepthLossConfig(confidence=False)),
        blind=("turn", "scale", "scale of a view", "unit of a label", "confidence"),
    ),
    **{
        f"tracks, {form}": Entry(value=of_tracks(form), blind=("turn", "scale", "confidence"))
        for form in ("angle", "focal_angle", "pixel", "cosine", "point")
    },
    "gauge": Entry(
        value=lambda c: gauge_loss(c.prediction, c.weak.tracks).sum(), blind=("turn", "confidence"), stopped=("rays",)
    ),
    "depth of tracks": Entry(
        value=lambda c: total(track_depth_loss(track_geometry(c.prediction, c.weak.tracks), c.weak.tracks)),
        blind=("turn", "confidence"),
    ),
    "poses": Entry(value=of_poses, blind=("turn", "scale", "turn of the cameras", "confidence"), stopped=("depth",)),
    "pose gap": Entry(value=of_pose_gap, blind=("turn", "confidence")),
    "focal length": Entry(
        value=lambda c: focal_loss(c.prediction, c.weak.K).sum(),
        blind=("turn", "scale", "scale of a view", "confidence"),
    ),
    "normals": Entry(value=of_normals, blind=("turn", "scale", "scale of a view", "confidence")),
    "correspondence": Entry(
        value=lambda c: total(correspondence_loss(c.prediction, c.weak.tracks, CorrespondenceConfig())),
        blind=("turn", "scale", "scale of a view", "confidence"),
    ),
    "weak sum": Entry(
        value=lambda c: objective(c.prediction, c.weak.to(torch.float32), WEAK, teacher=TEACHER).total,
        blind=("turn", "turn of the cameras", "unit of a label"),
        of_batch="mean",
    ),
    "full sum without normals": Entry(
        value=lambda c: supervised(c.prediction, c.full, NO_NORMALS).total,
        blind=("turn", "scale", "similarity of the truth"),
        stopped=("depth", "rays"),
        of_batch="mean",
    ),
    "full sum": Entry(
        value=lambda c: supervised(c.prediction, c.full, FULL).total,
        blind=("turn", "scale", "similarity of the truth"),
        stopped=("depth", "rays"),  # through the scale; test_supervised.py holds it and looks at them
        of_batch="mean",
    ),
}  # fmt: skip
every_loss = pytest.mark.parametrize("name", LOSSES)


def leaves(c: Case) -> dict[str, Tensor]:
    return {name: getattr(c.prediction, name).clone().requires_grad_() for name in LEAVES}


def value_and_gradient(entry: Entry, c: Case) -> tuple[Tensor, dict[str, Tensor]]:
    parts = leaves(c)
    value = entry.value(dataclasses.replace(c, prediction=Prediction(**parts)))
    found = torch.autograd.grad(value, tuple(parts.values()), allow_unused=True, materialize_grads=True)
    return value.detach(), dict(zip(parts, found, strict=True))


@every_loss
def test_value_and_gradient_are_finite_and_there_is_one(name: str) -> None:
    value, gradient = value_and_gradient(LOSSES[name], case())
    assert value.shape == ()
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in gradient.values())
    assert any(g.abs().max() > 1e-4 for g in gradient.values())


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "weak sum"])  # float32; it has the next test
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    entry, c = LOSSES[name], case(1)
    parts = {leaf: value for leaf, value in leaves(c).items() if leaf not in entry.stopped}

    def value(*tensors: Tensor) -> Tensor:
        changed = dict(zip(parts, tensors, strict=True))
        return entry.value(dataclasses.replace(c, prediction=dataclasses.replace(c.prediction, **changed)))

    assert torch.autograd.gradcheck(value, tuple(parts.values()), fast_mode=True)


def test_the_weak_sum_has_the_gradients_of_its_losses() -> None:
    c = case(1, everything_counts=True)
    c = dataclasses.replace(c, weak=dataclasses.replace(c.weak, depth=dataclasses.replace(c.weak.depth, trust=None)))
    pixels, seen = c.weak.depth.valid.sum(), c.weak.tracks.weight.sum()
    ordered = VIEWS * (VIEWS - 1)
    pairs = seen / VIEWS * ordered
    shares = {
        "depth, scale of depth, mean deviation": WEAK.depth_weight / pixels,
        f"tracks, {WEAK.reprojection.form}": (1 - TEACHER) * WEAK.tracks_weight / pairs,
        "gauge": WEAK.gauge_weight,
        "depth of tracks": TEACHER * WEAK.teacher_weight / seen,
        "focal length": (TEACHER * WEAK.teacher_weight + WEAK.fov_weight) / VIEWS,
        "correspondence": WEAK.correspondence_weight / pairs,
    }
    value, gradient = value_and_gradient(LOSSES["weak sum"], c)
    parts = {name: value_and_gradient(LOSSES[name], c) for name in shares}

    def poses(d: Case) -> Tensor:  # in the unit that the gauge asks for
        cameras, unit = d.weak.cameras, torch.ones(1, dtype=torch.float64)
        p = d.prediction.world_from_cam
        return total(relative_pose_loss(p, cameras.world_from_cam, cameras.weight, scale=unit))

    shares["poses"] = TEACHER * WEAK.teacher_weight / ordered
    parts["poses"] = value_and_gradient(Entry(value=poses), c)
    assert value.item() == pytest.approx(sum(share * parts[name][0] for name, share in shares.items()).item(), rel=1e-5)
    for leaf in LEAVES:
        wanted = sum(share * parts[name][1][leaf] for name, share in shares.items())
        assert (gradient[leaf] - wanted).norm() < 1e-4 * wanted.norm(), leaf


def with_prediction(c: Case, **changes: Tensor) -> Case:
    return dataclasses.replace(c, prediction=dataclasses.replace(c.prediction, **changes))


def turned_cameras(c: Case) -> Case:
    cameras = c.weak.cameras
    other = dataclasses.replace(cameras, world_from_cam=builders.moved_cameras(cameras.world_from_cam, 1.0, seed=6))
    return dataclasses.replace(c, weak=dataclasses.replace(c.weak, cameras=other))


def other_truth(c: Case) -> Case:
    truth = c.full.truth
    cameras = builders.moved_cameras(truth.world_from_cam, 0.1, seed=6)
    truth = dataclasses.replace(truth, depth=0.1 * truth.depth, world_from_cam=cameras)
    return dataclasses.replace(c, full=dataclasses.replace(c.full, truth=truth))


def other_label(c: Case) -> Case:
    depth = dataclasses.replace(c.weak.depth, depth=factors(c, 5.0) * c.weak.depth.depth)
    return dataclasses.replace(c, weak=dataclasses.replace(c.weak, depth=depth))


def factors(c: Case, most: float) -> Tensor:
    """One a view, from 0.1 to ``most``."""
    shape = c.prediction.depth.shape[:-2]
    return torch.linspace(0.1, most, shape.numel(), dtype=c.prediction.depth.dtype).reshape(*shape, 1, 1)


CHANGES = {
    "turn": lambda c: dataclasses.replace(c, prediction=builders.moved(c.prediction, 1.0)),
    "scale": lambda c: dataclasses.replace(c, prediction=builders.moved(c.prediction, 7.0)),
    "scale of a view": lambda c: with_prediction(c, depth=factors(c, 40.0) * c.prediction.depth),
    "shift of a view": lambda c: with_prediction(c, depth=factors(c, 2.0) + c.prediction.depth),
    "confidence": lambda c: with_prediction(c, conf=0.3 * c.prediction.conf),
    "unit of a label": other_label,
    "turn of the cameras": turned_cameras,
    "similarity of the truth": other_truth,
}
"""Changes of the case that some loss must not see."""
SEEN_BY = {
    "turn": (),  # nothing may see the world frame
    "scale": ("gauge", "depth of tracks", "pose gap", "weak sum"),
    "scale of a view": ("tracks, angle", "gauge", "weak sum", "full sum"),
    "shift of a view": (
        "depth, scale of depth, mean deviation",
        "depth, scale of log, mean deviation",
        "normals",
        "full sum",
    ),
    "confidence": (
        "depth, scale+shift of depth, mean deviation",
        "depth, scale of log, mean deviation",
        "weak sum",
        "full sum",
    ),
    "unit of a label": (),
    "turn of the cameras": (),
    "similarity of the truth": ("pose gap",),
}
"""Losses that must see the change: blindness of everything would be no merit."""


@pytest.mark.parametrize(("name", "change"), [(name, change) for name in LOSSES for change in LOSSES[name].blind])
def test_a_loss_is_blind_to_what_it_claims(name: str, change: str) -> None:
    c, entry = case(), LOSSES[name]
    torch.testing.assert_close(entry.value(CHANGES[change](c)), entry.value(c), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "change"), [(name, change) for change in SEEN_BY for name in SEEN_BY[change]])
def test_and_sees_what_it_does_not_claim(name: str, change: str) -> None:
    c, entry = case(), LOSSES[name]
    assert abs(entry.value(CHANGES[change](c)) - entry.value(c)) > 1e-3 * abs(entry.value(c))


@every_loss
def test_the_order_of_the_views_does_not_matter(name: str) -> None:
    c, entry = case(), LOSSES[name]
    torch.testing.assert_close(entry.value(c.select_views([2, 0, 1])), entry.value(c), rtol=1e-5, atol=1e-6)


@every_loss
def test_a_batch_is_its_samples(name: str) -> None:
    entry = LOSSES[name]
    c = case(4, everything_counts=name == "weak sum")  # its means are over the whole batch: of equal weights here
    single = torch.stack([entry.value(c.map(operator.itemgetter(s))) for s in range(4)])
    wanted = single.sum() if entry.of_batch == "sum" else single.mean()
    torch.testing.assert_close(entry.value(c), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entry.value(c.map(lambda x: x.unflatten(0, (2, 2)))), wanted, rtol=1e-5, atol=1e-6)


@every_loss
def test_float32_and_float64_agree(name: str) -> None:
    c, entry = case(), LOSSES[name]
    torch.testing.assert_close(entry.value(c.to(torch.float32)).double(), entry.value(c).double(), rtol=2e-5, atol=1e-5)


def spoilt(c: Case) -> Case:
    """Other numbers wherever a label has no weight."""

    def where_invalid(labels):
        return dataclasses.replace(labels, depth=torch.where(labels.valid, labels.depth, 3 * labels.depth + 5))

    def where_unseen(tracks):
        uv = torch.where(tracks.visible[..., None], tracks.uv, tracks.uv.flip(-2) / 2)
        depth = None if tracks.depth is None else torch.where(tracks.visible, tracks.depth, 9.0)
        return dataclasses.replace(tracks, uv=uv, depth=depth)

    cameras = c.weak.cameras
    elsewhere = builders.moved_cameras(cameras.world_from_cam, 3.0)
    known = (cameras.weight > 0)[..., None, None]
    cameras = dataclasses.replace(cameras, world_from_cam=torch.where(known, cameras.world_from_cam, elsewhere))
    tracks = where_unseen(c.weak.tracks)
    weak = dataclasses.replace(c.weak, depth=where_invalid(c.weak.depth), tracks=tracks, cameras=cameras)
    full = FullLabels(truth=where_invalid(c.full.truth), tracks=where_unseen(c.full.tracks))
    return dataclasses.replace(c, weak=weak, full=full)


# (not the full sum with normals: which normals count depends on the depth beside a hole, pi^3's edge mask)
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "full sum"])
def test_what_has_no_weight_has_no_influence(name: str) -> None:
    c, entry = case(), LOSSES[name]
    (value, gradient), (other, its_gradient) = (value_and_gradient(entry, each) for each in (c, spoilt(c)))
    torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-9)
    for leaf in LEAVES:
        torch.testing.assert_close(its_gradient[leaf], gradient[leaf], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in LOSSES if name.startswith("depth, ")])
def test_pixels_without_a_label_get_no_gradient(name: str) -> None:
    c = case()
    _, gradient = value_and_gradient(LOSSES[name], c)
    assert not gradient["depth"][~c.weak.depth.valid].any()
    assert not gradient["conf"][~c.weak.depth.valid].any()


@every_loss
def test_without_any_weight_all_is_finite(name: str) -> None:
    value, gradient = value_and_gradient(LOSSES[name], weighted(case(), 0.0))
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in gradient.values())
    if name not in (
        "gauge",
        "pose gap",
        "focal length",
        "weak sum",
        "full sum",
        "full sum without normals",
    ):  # these have something left to say
        assert value == 0
        assert not any(g.any() for g in gradient.values())
