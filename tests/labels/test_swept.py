"""Depth swept under the pseudo cameras as a label: right where it is sure, and nothing changes without cameras."""

import dataclasses

import pytest
import torch

import builders
from reliev3r.core.types import DepthLabels, Tracks
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.prepare import PrepareConfig, prepare_capture
from reliev3r.labels.registry import depth_expert, track_expert
from reliev3r.labels.swept import sweep_depth
from reliev3r.losses.weak import ObjectiveConfig, objective
from reliev3r.sfm.camera_solve import SolveConfig
from reliev3r.sfm.solve_cameras import solve_cameras

PATCH = 8
PLAIN, SWEPT = (PrepareConfig(image_size=64, heldout=0.1, sweep=sweep) for sweep in (False, True))


@pytest.fixture(scope="module")
def capture(rendered):
    return load_capture(rendered)


@pytest.fixture(scope="module")
def labels(capture, tmp_path_factory):
    """By the name of the depth expert."""
    root, tracks = tmp_path_factory.mktemp("swept"), track_expert("sift")
    return {
        name: label_capture(capture, depth=depth_expert(name), tracks=tracks, out=root / name)
        for name in ("simulated", "none")
    }


@pytest.fixture(scope="module")
def prepared(capture, labels):
    """By expert and settings."""
    return {
        (name, config.sweep): prepare_capture(capture, labels[name], config, patch=PATCH)
        for name in ("simulated", "none")
        for config in (PLAIN, SWEPT)
    }


@pytest.fixture(scope="module")
def truth(rendered, capture, prepared):
    made = prepared["none", True]
    return load_truth(rendered, capture.names, regions=made.regions, size=made.views.size)


def relative_errors(depth: torch.Tensor, truth, where: torch.Tensor) -> torch.Tensor:
    """Under one scale for the capture, by the pixels that are looked at."""
    ratio = (depth / truth.depth)[where & truth.valid]
    return (ratio / ratio.median() - 1).abs()


def test_swept_labels_are_the_truth_where_they_are_sure(prepared, truth) -> None:
    for name in ("simulated", "none"):
        label = prepared[name, True].labels.depth
        assert label.depth.shape == label.weight.shape == truth.depth.shape
        sure = label.weight > 0.8
        assert float(sure[truth.valid].float().mean()) > 0.25
        errors = relative_errors(label.depth, truth, sure)
        assert float(errors.median()) < 0.02
        assert float((errors > 0.1).float().mean()) < 0.1
        doubtful = relative_errors(label.depth, truth, label.valid & ~sure)
        assert float(doubtful.mean()) > 1.5 * float(errors.mean())


def test_swept_labels_are_better_than_the_experts(prepared, truth) -> None:
    plain, swept = (prepared["simulated", sweep].labels.depth for sweep in (False, True))

    def error(label: DepthLabels, where: torch.Tensor) -> float:
        return float(relative_errors(label.depth, truth, where).mean())

    assert error(swept, swept.weight > 0.8) < 0.8 * error(plain, swept.weight > 0.8)
    assert error(swept, swept.valid) < error(plain, swept.valid)
    assert bool(swept.valid.all())
    assert float(swept.weight.min()) > 0


def test_without_an_expert_there_is_a_label_where_views_agree_alone(prepared) -> None:
    assert not prepared["none", False].labels.depth.valid.any()
    label = prepared["none", True].labels.depth
    assert 0.3 < float(label.valid.float().mean()) < 1
    assert not label.weight[~label.valid].any()


def test_all_else_stays_as_it_was(prepared) -> None:
    plain, swept = (prepared["simulated", sweep] for sweep in (False, True))
    assert plain.labels.depth.weight is None
    assert torch.equal(plain.labels.tracks.uv, swept.labels.tracks.uv)
    assert torch.equal(plain.labels.cameras.world_from_cam, swept.labels.cameras.world_from_cam)
    assert torch.equal(plain.views.image, swept.views.image)
    assert plain.notes == swept.notes


def test_preparing_twice_gives_the_same(capture, labels, prepared) -> None:
    again = prepare_capture(capture, labels["none"], SWEPT, patch=PATCH).labels.depth
    first = prepared["none", True].labels.depth
    assert torch.equal(again.depth, first.depth)
    assert torch.equal(again.weight, first.weight)


def test_without_cameras_labels_stay_as_they_are(capture, labels) -> None:
    tracks = labels["simulated"].tracks
    alone = torch.zeros_like(tracks.weight)
    alone[torch.arange(tracks.weight.shape[1]) % len(alone), torch.arange(tracks.weight.shape[1])] = 1
    untied = dataclasses.replace(labels["simulated"], tracks=Tracks(uv=tracks.uv, weight=alone))
    plain, swept = (prepare_capture(capture, untied, config, patch=PATCH) for config in (PLAIN, SWEPT))
    assert torch.equal(plain.labels.depth.depth, swept.labels.depth.depth)
    assert bool((swept.labels.depth.weight == 1).all())  # there, as samples of several captures are stacked
    assert sum("depth is not swept" in note for note in swept.notes) == 1


def test_cameras_that_the_matches_contradict_sweep_nothing(capture, prepared) -> None:
    made = prepared["simulated", False]
    tracks, K = made.labels.tracks, made.views.K
    solve = solve_cameras(tracks, K)
    wrong = dataclasses.replace(solve, inlier=solve.inlier & (torch.rand(solve.inlier.shape) < 0.5))
    label, why = sweep_depth(
        capture, made.labels.depth, tracks, wrong, K, long_side=64, patch=PATCH, solver=SolveConfig()
    )
    assert label is made.labels.depth
    assert "explain only" in why


def test_a_view_that_is_not_tied_keeps_its_label(capture, prepared) -> None:
    made = prepared["simulated", False]
    tracks, K = made.labels.tracks, made.views.K
    weight = tracks.weight.clone()
    weight[4] = 0
    weight = weight * ((weight > 0).sum(0) > 1)
    tracks = dataclasses.replace(tracks, weight=weight)
    label, why = sweep_depth(
        capture, made.labels.depth, tracks, solve_cameras(tracks, K), K, long_side=64, patch=PATCH,
        solver=SolveConfig(),
    )  # fmt: skip
    assert why == ""
    assert torch.equal(label.depth[4], made.labels.depth.depth[4])
    assert bool((label.weight[4] == 1).all())
    assert float(label.trust[4]) == float(made.labels.depth.trust[4])
    assert not torch.equal(label.depth[0], made.labels.depth.depth[0])


def test_unknown_intrinsics_are_swept_under_those_that_were_found(capture, labels, truth) -> None:
    frames = tuple(dataclasses.replace(frame, K=None) for frame in capture.frames)
    unknown = dataclasses.replace(capture, frames=frames, K_source=None)
    made = prepare_capture(unknown, labels["none"], SWEPT, patch=PATCH)
    assert made.views.K is None
    errors = relative_errors(made.labels.depth.depth, truth, made.labels.depth.weight > 0.8)
    assert float(errors.median()) < 0.05


def test_weights_of_pixels_are_heard_by_the_loss() -> None:
    """Half of the pixels wrong, with weight 0: the loss is that of the others."""
    prediction, labels = builders.prediction(), builders.labels()
    config = ObjectiveConfig(tracks_weight=0.0, gauge_weight=0.0)

    def depth_part(depth: DepthLabels) -> float:
        return float(objective(prediction, dataclasses.replace(labels, depth=depth), config).parts["depth"])

    plain = depth_part(labels.depth)
    ones = torch.ones_like(labels.depth.depth)
    assert depth_part(dataclasses.replace(labels.depth, weight=ones)) == pytest.approx(plain)
    assert depth_part(dataclasses.replace(labels.depth, weight=0.5 * ones)) == pytest.approx(0.5 * plain)
    left = ones.clone()
    left[..., : ones.shape[-1] // 2] = 0
    parts = [depth_part(dataclasses.replace(labels.depth, weight=w)) for w in (left, 1 - left)]
    assert sum(parts) == pytest.approx(plain)
    assert parts[0] != pytest.approx(plain)
