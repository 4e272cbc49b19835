"""Which cameras the tracks hold in place: the others are guesses, and exports must not show them."""

import pytest
import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.sfm.held_views import held_views

VIEWS = 5
K = small_scene.K.expand(VIEWS, 3, 3)


def observed(seed: int = 0) -> Tracks:
    return small_scene.observe(small_scene.wall_points(300, seed=seed), small_scene.arc(VIEWS), noise_px=0.5)


def without(tracks: Tracks, view: int, left: int = 0) -> Tracks:
    weight = tracks.weight.clone()
    weight[view, left:] = 0
    return Tracks(uv=tracks.uv, weight=weight)


def test_cameras_that_explain_their_tracks_are_held() -> None:
    assert held_views(observed(), K, small_scene.arc(VIEWS)).all()


@pytest.mark.parametrize("left", [0, 5])
def test_a_view_that_no_track_ties_is_not(left) -> None:
    held = held_views(without(observed(), 2, left), K, small_scene.arc(VIEWS))
    assert held.tolist() == [True, True, False, True, True]


def test_a_view_with_false_tracks_is_not() -> None:
    """Forty matches anywhere in the picture: what look-alike places give."""
    tracks = without(observed(), 4, 40)
    uv = tracks.uv.clone()
    uv[4] = torch.rand(uv[4].shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([640.0, 480.0])
    assert held_views(Tracks(uv=uv, weight=tracks.weight), K, small_scene.arc(VIEWS)).tolist() == [True] * 4 + [False]


def test_a_view_that_most_of_its_tracks_contradict_is_not() -> None:
    """Enough of many tracks agree with any camera by chance: a wrong one is told by the rest of them."""
    cameras = small_scene.arc(12)
    tracks = small_scene.observe(small_scene.wall_points(1500, seed=0), cameras, noise_px=0.5, longest=3)
    uv, seen = tracks.uv.clone(), tracks.visible[2].nonzero()[:, 0]
    assert len(seen) > 150
    wrong = seen[30:]
    uv[2, wrong] = torch.rand(len(wrong), 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([640.0, 480.0])
    held = held_views(Tracks(uv=uv, weight=tracks.weight), small_scene.K.expand(12, 3, 3), cameras)
    assert [view for view in range(12) if not held[view]] == [2]


def test_poor_cameras_are_no_lack_of_evidence() -> None:
    """A network that has hardly trained: the tracks are there, and adjustment would use them."""
    generator = torch.Generator().manual_seed(0)
    off = so3_exp(0.05 * torch.randn(VIEWS, 3, generator=generator, dtype=torch.float64))
    cameras = small_scene.arc(VIEWS) @ rigid_from(off, torch.zeros(VIEWS, 3, dtype=torch.float64))
    assert held_views(observed(), K, cameras).all()


def test_nothing_is_held_where_there_is_nothing() -> None:
    assert not held_views(observed().select_tracks([]), K, small_scene.arc(VIEWS)).any()
