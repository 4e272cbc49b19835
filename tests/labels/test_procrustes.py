"""Pseudo cameras of a batch from tracks and label depths."""

import dataclasses

import pytest
import torch

from reliev3r.core.types import PseudoLabels, stack
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.rigid import relative, rotation_angle
from reliev3r.losses.tracks import scene_factor
from reliev3r.sfm.batched import in_unit_of_tracks, with_pseudo_cameras
from reliev3r.sfm.bundle_batched import PolishConfig
from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.experts import DepthNoise, TrackNoise, simulate_depth, simulate_tracks

EXACT = DepthNoise(distortion=0.0, edge_blur=0.0, outliers=0.0)


def sample(seed=0, *, depth=EXACT, tracks=None):
    views, truth = render_capture(
        SynthConfig(seed=seed, views=4, width=64, height=48, span=25, overlap=0.3, supersample=1, path="random")
    )
    tracks = simulate_tracks(truth, tracks or TrackNoise(count=200, pixel=0.0, false=0.0), seed)
    return views, truth, PseudoLabels(depth=simulate_depth(truth, depth, seed), tracks=tracks)


def errors(labels, truth):
    """Degrees of rotation and of translation direction over all pairs."""
    found, true = relative(labels.cameras.world_from_cam), relative(truth.world_from_cam)
    pair = ~torch.eye(found.shape[-3], dtype=torch.bool)
    rotation = rotation_angle(found[..., :3, :3].mT @ true[..., :3, :3])[pair]
    direction = torch.nn.functional.cosine_similarity(found[..., :3, 3], true[..., :3, 3], dim=-1)[pair]
    return rotation.rad2deg(), direction.clamp(-1, 1).acos().rad2deg()


def test_exact_labels_of_unknown_scales_give_the_cameras() -> None:
    views, truth, labels = sample()
    found = with_pseudo_cameras(labels, views.K)
    rotation, direction = errors(found, truth)
    assert rotation.max() < 0.5  # depth is looked up between pixels
    assert direction.max() < 3
    ratio = found.cameras.world_from_cam[1:, :3, 3] - found.cameras.world_from_cam[:1, :3, 3]
    true = truth.world_from_cam[1:, :3, 3] - truth.world_from_cam[:1, :3, 3]
    scale = ratio.norm(dim=-1) / true.norm(dim=-1)
    assert scale.std() / scale.mean() < 0.05  # one unit for all views, whatever each label's own
    assert found.cameras.weight.tolist() == [1, 1, 1, 1]


def test_a_noisy_expert_and_false_matches_still_give_the_direction() -> None:
    views, truth, labels = sample(1, depth=DepthNoise(), tracks=TrackNoise(count=256, pixel=0.1, false=0.1))
    rotation, _ = errors(with_pseudo_cameras(labels, views.K), truth)
    assert rotation.median() < 0.4 * rotation_angle(relative(truth.world_from_cam)[..., :3, :3]).median().rad2deg()


def test_the_unit_is_that_of_the_gauge() -> None:
    views, _, labels = sample()
    found = with_pseudo_cameras(labels, views.K)
    points = rays_from_uv(found.tracks.uv, views.K) * found.tracks.depth[..., None]
    solved = dataclasses.replace(found.tracks, weight=found.tracks.weight * (found.tracks.depth > 0))
    assert scene_factor(points, solved).item() == pytest.approx(1, abs=1e-3)


def test_a_selection_of_views_and_tracks_gets_a_unit_of_its_own() -> None:
    views, _, labels = sample()
    found = with_pseudo_cameras(labels, views.K)
    near = (found.tracks.depth.amax(0) < found.tracks.depth[found.tracks.depth > 0].median()).nonzero()[:, 0]
    part = dataclasses.replace(found, tracks=found.tracks.select_tracks(near)).select_views([0, 2, 3])
    own = in_unit_of_tracks(part, views.K[[0, 2, 3]])
    points = rays_from_uv(own.tracks.uv, views.K[[0, 2, 3]]) * own.tracks.depth[..., None]
    solved = dataclasses.replace(own.tracks, weight=own.tracks.weight * (own.tracks.depth > 0))
    torch.testing.assert_close(scene_factor(points, solved), torch.tensor(1.0))
    grown = own.cameras.world_from_cam[:, :3, 3] / part.cameras.world_from_cam[:, :3, 3]
    assert grown.mean() > 1.1  # what was nearer than the others has a smaller unit
    torch.testing.assert_close(grown, grown[0, 0].expand(3, 3), rtol=1e-4, atol=0)
    seen = own.tracks.depth > 0
    torch.testing.assert_close(own.tracks.depth[seen] / part.tracks.depth[seen], grown[0, 0].expand(int(seen.sum())))
    assert in_unit_of_tracks(labels, views.K) is labels  # nothing was solved


def test_a_view_that_nothing_ties_has_no_say() -> None:
    views, _, labels = sample()
    weight = labels.tracks.weight.clone()
    weight[2] = 0
    cut = dataclasses.replace(labels, tracks=dataclasses.replace(labels.tracks, weight=weight))
    found = with_pseudo_cameras(cut, views.K)
    assert found.cameras.weight.tolist() == [1, 1, 0, 1]
    assert not found.tracks.depth[2].any()


def test_batch_equals_loop() -> None:
    samples = [sample(seed) for seed in (0, 1)]
    batch = with_pseudo_cameras(stack([labels for *_, labels in samples]), stack([views for views, *_ in samples]).K)
    for index, (views, _, labels) in enumerate(samples):
        alone = with_pseudo_cameras(labels, views.K)
        torch.testing.assert_close(batch.cameras.world_from_cam[index], alone.cameras.world_from_cam, atol=1e-4, rtol=0)
        torch.testing.assert_close(batch.tracks.depth[index], alone.tracks.depth, atol=1e-4, rtol=1e-4)


def test_polish_brings_the_cameras_of_a_noisy_expert_much_closer() -> None:
    noise = {"depth": DepthNoise(), "tracks": TrackNoise(count=256, pixel=0.1, false=0.05)}
    samples = [sample(seed, **noise) for seed in range(3)]
    truth = [true for _, true, _ in samples]
    labels, K = stack([each for *_, each in samples]), stack([views for views, *_ in samples]).K
    before = with_pseudo_cameras(labels, K, PolishConfig(steps=0))
    after = with_pseudo_cameras(labels, K)

    def median(found):
        both = [errors(found.map(lambda x, k=k: x[k]), true) for k, true in enumerate(truth)]
        return tuple(float(torch.cat(column).median()) for column in zip(*both, strict=True))

    assert all(fine < 0.3 * rough for fine, rough in zip(median(after), median(before), strict=True))
    assert (after.tracks.depth > 0).sum() < (before.tracks.depth > 0).sum()  # contradicted ones teach no depth
