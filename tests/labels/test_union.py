from itertools import combinations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from reliev3r.core.types import Tracks
from reliev3r.labels.tracks import union
from reliev3r.labels.tracks.matcher import PointMatches
from reliev3r.labels.tracks.union import (
    PairMatches,
    PointPair,
    drop_inconsistent,
    merge_points,
    thin,
    tracks_from_matches,
)

ANY = np.zeros((3, 3))  # geometry that every match satisfies
ROWS = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # rectified pair: matches lie in the same row


def grid(count, view):
    """``count`` keypoints on a line, far apart."""
    return np.stack([10.0 * np.arange(count), np.full(count, 100.0 * view)], axis=1)


def match(first, second, links, doubt=None, F=ANY):
    links = np.array(links, dtype=np.int64).reshape(-1, 2)
    doubt = np.zeros(len(links)) if doubt is None else np.array(doubt, dtype=np.float64)
    return PairMatches(first=first, second=second, index_first=links[:, 0], index_second=links[:, 1], doubt=doubt, F=F)


def as_sets(tracks):
    """{view: keypoint index} of every track (keypoints of ``grid``)."""
    return [
        {v: int(tracks.uv[v, m, 0] / 10) for v in range(tracks.weight.shape[0]) if tracks.weight[v, m] > 0}
        for m in range(tracks.weight.shape[1])
    ]


def test_chain_becomes_one_track_longest_first():
    points = [grid(4, view) for view in range(3)]
    tracks = tracks_from_matches(points, [match(0, 1, [(0, 1), (3, 3)]), match(1, 2, [(1, 2)])])
    assert as_sets(tracks) == [{0: 0, 1: 1, 2: 2}, {0: 3, 1: 3}]
    torch.testing.assert_close(tracks.uv[2, 0], torch.tensor([20.0, 200.0]))
    assert set(tracks.weight.unique().tolist()) == {0.0, 1.0}


def test_the_doubtful_match_that_would_visit_a_view_twice_is_left_out():
    points = [grid(3, view) for view in range(3)]
    # 0-0-0 is sure; then view 1's keypoint 0 would also meet keypoint 1 of view 0 through view 2.
    pairs = [match(0, 1, [(0, 0)], [0.1]), match(1, 2, [(0, 0)], [0.2]), match(0, 2, [(1, 0)], [0.9])]
    assert as_sets(tracks_from_matches(points, pairs)) == [{0: 0, 1: 0, 2: 0}]
    pairs = [match(0, 1, [(0, 0)], [0.9]), match(1, 2, [(0, 0)], [0.2]), match(0, 2, [(1, 0)], [0.1])]
    assert as_sets(tracks_from_matches(points, pairs)) == [{0: 1, 1: 0, 2: 0}]


def test_keypoints_at_one_place_are_one():
    twice = np.array([[5.0, 5.0], [5.0, 5.0], [50.0, 50.0]])  # SIFT gives a place several orientations
    tracks = tracks_from_matches([twice, grid(2, 1), grid(2, 2)], [match(0, 1, [(0, 0)]), match(0, 2, [(1, 1)])])
    assert tracks.weight.tolist() == [[1], [1], [1]]


def test_nothing_matches():
    for pairs in ([], [match(0, 1, [])]):
        tracks = tracks_from_matches([grid(3, 0), np.zeros((0, 2))], pairs)
        assert tracks.uv.shape == (2, 0, 2)
        assert drop_inconsistent(tracks, pairs, threshold=1.0).weight.shape == (2, 0)
        assert thin(tracks, 5).weight.shape == (2, 0)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_tracks_are_within_components_and_never_visit_a_view_twice(seed):
    rng = np.random.default_rng(seed)
    points = [grid(6, view) for view in range(4)]
    pairs, links_between = [], np.zeros((24, 24))
    for first, second in combinations(range(4), 2):
        links = rng.integers(0, 6, (rng.integers(0, 4), 2))
        pairs.append(match(first, second, links, rng.random(len(links))))
        links_between[6 * first + links[:, 0], 6 * second + links[:, 1]] = 1
    component = connected_components(links_between, directed=False)[1]
    found = as_sets(tracks_from_matches(points, pairs))
    nodes = [(view, index) for track in found for view, index in track.items()]
    assert len(nodes) == len(set(nodes))
    for track in found:
        assert len(track) >= 2
        assert len({component[6 * view + index] for view, index in track.items()}) == 1
    for number in range(component.max() + 1):
        members = [(int(node) // 6, int(node) % 6) for node in np.nonzero(component == number)[0]]
        if len({view for view, _ in members}) == len(members) > 1:  # without conflict all of it is one track
            assert dict(members) in found


def three_views(v):
    """One track seen in rows ``v`` of three (or more) views."""
    uv = torch.tensor([[[10.0, row]] for row in v])
    return Tracks(uv=uv, weight=torch.ones(len(v), 1))


def rectified(views):
    return [match(first, second, [], F=ROWS) for first, second in combinations(range(views), 2)]


def test_the_observation_that_contradicts_the_others_goes():
    result = drop_inconsistent(three_views([5.0, 5.5, 9.0, 5.2]), rectified(4), threshold=2.0)
    assert result.weight[:, 0].tolist() == [1, 1, 0, 1]
    torch.testing.assert_close(result.uv[:, 0, 1], torch.tensor([5.0, 5.5, 9.0, 5.2]))


def test_consistent_tracks_stay_and_hopeless_ones_vanish():
    assert drop_inconsistent(three_views([5.0, 6.0, 5.5]), rectified(3), threshold=2.0).weight.tolist() == [[1]] * 3
    assert drop_inconsistent(three_views([0.0, 10.0]), rectified(2), threshold=2.0).weight.shape == (2, 0)
    # Without the geometry of a pair nothing is known against it.
    assert drop_inconsistent(three_views([0.0, 10.0]), [], threshold=2.0).weight.tolist() == [[1], [1]]


def test_thinning_keeps_the_longest_of_every_pair():
    weight = torch.zeros(4, 30)
    weight[:3, :20] = 1  # twenty tracks over views 0, 1, 2
    weight[0, 20:25] = weight[1, 20:25] = 1  # shorter ones of a pair that is well tied
    weight[2, 25:] = weight[3, 25:] = 1  # the only ones of view 3
    tracks = Tracks(uv=torch.arange(30.0)[None, :, None].expand(4, 30, 2), weight=weight)
    kept = thin(tracks, 10).uv[0, :, 0].tolist()
    assert len(kept) == 10
    assert kept == sorted(kept)
    assert set(kept) == {0, 1, 2, 3, 4, 25, 26, 27, 28, 29}
    assert thin(tracks, 30) is tracks


def test_points_of_one_cell_become_the_surest_of_them():
    def pair(first, second, uv_first, uv_second, confidence, near=None):
        found = PointMatches(
            first=np.array(uv_first, float), second=np.array(uv_second, float), confidence=np.array(confidence)
        )
        near = np.ones(len(confidence), bool) if near is None else np.array(near)
        return PointPair(first=first, second=second, found=found, F=ANY, near=near, against=~near)

    pairs = [
        pair(0, 1, [[4.5, 8.5], [20.0, 20.0]], [[10.0, 10.0], [40.0, 4.0]], [0.6, 0.9], [True, False]),
        pair(1, 2, [[11.0, 10.5]], [[30.0, 30.0]], [0.8]),
        pair(0, 2, [[5.5, 8.9]], [[60.0, 60.0]], [0.3]),
    ]
    points, matches = merge_points(3, pairs, cell=2.0)
    assert sorted(map(tuple, points[0])) == [(4.5, 8.5), (20.0, 20.0)]  # 5.5, 8.9 is less sure than 4.5, 8.5
    assert sorted(map(tuple, points[1])) == [(11.0, 10.5), (40.0, 4.0)]
    first, second = points[0][matches[0].index_first], points[1][matches[0].index_second]
    np.testing.assert_array_equal(np.concatenate([first, second], 1), [[4.5, 8.5, 11.0, 10.5]])
    np.testing.assert_array_equal(points[0][matches[0].against[:, 0]], [[20.0, 20.0]])
    np.testing.assert_array_equal(points[1][matches[0].against[:, 1]], [[40.0, 4.0]])
    np.testing.assert_allclose(matches[0].doubt, [0.4])
    tracks = tracks_from_matches(points, matches)  # view 2 has two places: the surer one joins
    seen = tracks.visible[:, 0]
    assert seen.tolist() == [True, True, True]
    torch.testing.assert_close(tracks.uv[:, 0], torch.tensor([[4.5, 8.5], [11.0, 10.5], [30.0, 30.0]]))


def test_nothing_to_merge():
    points, matches = merge_points(2, [], cell=2.0)
    assert [uv.shape for uv in points] == [(0, 2), (0, 2)]
    assert matches == []


def test_tracks_judged_a_few_at_a_time_are_judged_alike(monkeypatch):
    rng = np.random.default_rng(0)
    uv = torch.from_numpy(np.repeat(rng.uniform(0, 90, (1, 40, 2)), 6, axis=0) + (rng.random((6, 40, 2)) < 0.1) * 9)
    tracks = Tracks(uv=uv.float(), weight=torch.from_numpy((rng.random((6, 40)) < 0.8).astype(np.float32)))
    whole = drop_inconsistent(tracks, rectified(6), threshold=1.0)
    monkeypatch.setattr(union, "_AT_ONCE", 6 * 7)
    parts = drop_inconsistent(tracks, rectified(6), threshold=1.0)
    assert torch.equal(whole.uv, parts.uv)
    assert torch.equal(whole.weight, parts.weight)
    assert 0 < whole.weight.sum() < tracks.weight.sum()


def thinned_densely(seen, most):
    """What ``thin`` says, in the plainest words."""
    length = seen.sum(0)
    rank = np.full(seen.shape[1], seen.shape[1])
    for first, second in combinations(range(len(seen)), 2):
        shared = np.nonzero(seen[first] & seen[second])[0]
        for place, track in enumerate(shared[np.argsort(-length[shared], kind="stable")]):
            rank[track] = min(rank[track], place)
    return np.sort(np.lexsort((-length, rank))[:most])


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_thinning_keeps_the_longest_tracks_of_every_pair(seed, views, most):
    rng = np.random.default_rng(seed)
    seen = rng.random((views, 40)) < 0.4
    tracks = Tracks(uv=torch.rand(views, 40, 2), weight=torch.from_numpy(seen).float())
    assert torch.equal(thin(tracks, most).uv, tracks.uv[:, thinned_densely(seen, most)])


def test_tables_of_many_views_are_bounded(monkeypatch):
    """Of long footage there are more tracks than a dense table may have columns: they are thinned before it is made."""
    points = [grid(50, view) for view in range(6)]
    pairs = [match(view, view + 1, [(k, k) for k in range(50)]) for view in (0, 2, 4)] + [
        match(1, 2, [(k, k) for k in range(10)])
    ]
    every = tracks_from_matches(points, pairs)
    assert every.weight.shape == (6, 140)
    monkeypatch.setattr(union, "_TABLE", 6 * 30)
    some = tracks_from_matches(points, pairs)
    assert torch.equal(some.uv, thin(every, 60).uv)
    assert some.visible.sum(0)[:10].tolist() == [4] * 10  # the longest first
    assert int((some.visible.sum(0) == 2).sum()) == 50
    assert union.track_budget(4096, 12) == 4096
    assert union.track_budget(20, 6) == 20
    monkeypatch.setattr(union, "_TABLE", 1000 * 40000)
    assert union.track_budget(4096, 300) == round(4096 * 300 / 32)
    assert union.track_budget(4096, 1000) == 40000
