from itertools import combinations

import numpy as np
import pytest
import torch

from reliev3r.geometry.camera import project, ray_map, transform
from reliev3r.geometry.rigid import invert
from reliev3r.labels.tracks.pairs import EXHAUSTIVE, EXHAUSTIVE_VIDEO, WINDOW, choose_pairs, global_descriptors
from reliev3r.labels.tracks.sift import SiftMatcher
from reliev3r.synthetic.capture import SynthConfig, render_capture


def never():
    raise AssertionError("descriptors are not needed")


def circle(views, turns=1.0):
    """Descriptors of views on a circle: neighbours look alike, after a full turn all comes again."""
    angle = 2 * np.pi * turns * np.arange(views) / views
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def connected(views, pairs):
    reached, edges = {0}, set(pairs)
    while grown := {j for pair in edges for j in pair if set(pair) & reached} - reached:
        reached |= grown
    return len(reached) == views


def test_few_views_are_matched_exhaustively():
    assert choose_pairs(3, ordered=False, descriptors=never) == [(0, 1), (0, 2), (1, 2)]
    assert len(choose_pairs(EXHAUSTIVE, ordered=False, descriptors=never)) == EXHAUSTIVE * (EXHAUSTIVE - 1) // 2
    few = choose_pairs(EXHAUSTIVE_VIDEO, ordered=True, descriptors=never)
    assert few == list(combinations(range(EXHAUSTIVE_VIDEO), 2))


def test_a_video_is_matched_in_windows_and_where_it_comes_back():
    views = 100
    pairs = choose_pairs(views, ordered=True, descriptors=lambda: circle(views, turns=2))
    assert pairs == sorted(set(pairs))
    chosen = set(pairs)
    assert all((i, i + gap) in chosen for gap in range(1, WINDOW + 1) for i in range(views - gap))
    loops = [j - i for i, j in chosen if j - i > WINDOW]
    assert len(loops) >= views  # every frame has partners a turn away
    assert np.mean([abs(gap - 50) <= 5 for gap in loops]) > 0.8
    assert len(chosen) < views * (WINDOW + 4)


def test_many_photographs_are_matched_with_what_looks_alike():
    views = 90
    order = np.random.default_rng(0).permutation(views)
    descriptors = circle(views)[order]
    pairs = choose_pairs(views, ordered=False, descriptors=lambda: descriptors)
    assert pairs == choose_pairs(views, ordered=False, descriptors=lambda: descriptors)
    assert all(0 <= i < j < views for i, j in pairs)
    apart = np.array([min((order[i] - order[j]) % views, (order[j] - order[i]) % views) for i, j in pairs])
    for steps in range(1, 5):  # all of the nearest are there
        assert (apart == steps).sum() == views
    assert len(pairs) < views * 12
    assert connected(views, pairs)


def test_sets_that_look_nothing_alike_are_still_tied_for_geometry_to_decide():
    rng = np.random.default_rng(0)
    groups = np.zeros((70, 8))
    groups[0::2, :4] = rng.normal(size=(35, 4))  # alternating names: neighbours by name do not help within a set
    groups[1::2, 4:] = rng.normal(size=(35, 4))
    groups[7] = 0  # an image without features
    groups /= np.maximum(np.linalg.norm(groups, axis=1, keepdims=True), 1e-9)
    assert connected(70, choose_pairs(70, ordered=False, descriptors=lambda: groups))


def test_no_features_at_all():
    assert global_descriptors([np.zeros((0, 8), np.float32)] * 3).shape[0] == 3
    pairs = choose_pairs(70, ordered=False, descriptors=lambda: global_descriptors([np.zeros((0, 8), np.float32)] * 70))
    assert connected(70, pairs)


def overlaps(truth, step=6):
    """Share [v, v] of the pixels of view i that view j sees too, by true depth."""
    views, height, width = truth.depth.shape
    depth = truth.depth[:, ::step, ::step]
    rays = ray_map(truth.K, height, width)[:, ::step, ::step]
    world = transform(truth.world_from_cam, (rays * depth[..., None]).flatten(1, 2))
    share = torch.zeros(views, views)
    for j in range(views):
        local = transform(invert(truth.world_from_cam[j]).expand(views, 4, 4), world)
        uv = project(local, truth.K[j].expand(views, 3, 3))
        column, row = uv[..., 0].long(), uv[..., 1].long()
        inside = (uv >= 0).all(-1) & (column < width) & (row < height) & (local[..., 2] > 0.01)
        there = truth.depth[j][row.clamp(0, height - 1), column.clamp(0, width - 1)]
        share[:, j] = (inside & (local[..., 2] < 1.03 * there)).float().mean(1)
    return share.numpy()


@pytest.fixture(scope="module")
def walk():
    """64 tiny views all around the middle of a room in shuffled order: (images, true overlap)."""
    config = SynthConfig(seed=4, views=64, width=112, height=84, span=330.0, supersample=1)
    views, truth = render_capture(config)
    order = torch.from_numpy(np.random.default_rng(0).permutation(config.views))
    truth = truth.select_views(order)
    images = (views.image[order].movedim(1, -1) * 255).round().byte().numpy()
    return images, overlaps(truth)


def test_retrieval_finds_the_views_that_overlap(walk):
    images, overlap = walk
    grey = (images.astype(float) @ [0.299, 0.587, 0.114]).astype(np.uint8)
    local = [SiftMatcher(features=300).detect(image).descriptor for image in grey]
    descriptors = global_descriptors(local)
    np.testing.assert_array_equal(descriptors, global_descriptors(local))
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-4)
    pairs = np.array(choose_pairs(len(images), ordered=False, descriptors=lambda: descriptors))
    mutual = np.minimum(overlap, overlap.T)
    every = np.array(list(combinations(range(len(images)), 2)))
    close = {tuple(pair) for pair in every if mutual[tuple(pair)] > 0.6}
    assert len(close) > 100
    found = len(close & {tuple(pair) for pair in pairs}) / len(close)
    by_chance = len(pairs) / len(every)  # what as many random pairs would find
    assert by_chance < 0.4
    assert found > 0.85
    assert mutual[pairs[:, 0], pairs[:, 1]].mean() > 1.5 * mutual[every[:, 0], every[:, 1]].mean()
