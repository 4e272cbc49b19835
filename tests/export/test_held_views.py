"""Which cameras the tracks hold in place: the others are guesses, and exports must not show them."""

import pytest
import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.sfm.held_views import ENOUGH_LONG, confirmed, held_views

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


def seen_by(*groups: tuple[tuple[int, ...], int], views: int = VIEWS) -> Tracks:
    """So many tracks of these views, group after group."""
    weight = torch.cat([torch.zeros(views, count).index_fill_(0, torch.tensor(seen), 1) for seen, count in groups], 1)
    return Tracks(uv=torch.zeros(*weight.shape, 2), weight=weight)


def test_matches_of_two_views_do_not_count_where_both_have_longer_tracks() -> None:
    enough = ENOUGH_LONG
    assert confirmed(seen_by(((0, 1, 2, 3, 4), enough), ((0, 1), 7))).weight.shape[1] == enough
    poor = seen_by(((0, 1, 2), enough), ((2, 3, 4), enough - 1), ((3, 4), 7), ((0, 3), 5), ((0, 1), 9))
    assert confirmed(poor).weight.shape[1] == 2 * enough - 1 + 7 + 5  # views 3 and 4 have little else
    two = seen_by(((0, 1), 500), views=2)
    assert confirmed(two).weight.shape[1] == 500


def test_matches_of_two_views_stay_where_views_would_fall_apart() -> None:
    apart = seen_by(((0, 1, 2), ENOUGH_LONG), ((3, 4, 5), ENOUGH_LONG), ((2, 3), 20), views=6)
    assert confirmed(apart).weight.shape[1] == 2 * ENOUGH_LONG + 20


def test_false_matches_along_epipolar_lines_do_not_bend_a_camera() -> None:
    """They agree with the two cameras, and pull at them; over flat ground seen from above the end of a strip gave way
    by 0.4 degrees (benchmarks/photos.py, beach)."""
    from reliev3r.geometry.camera import project, transform
    from reliev3r.geometry.rigid import invert, rotation_angle
    from reliev3r.sfm.bundle_pycolmap import adjust_bundle

    cameras = small_scene.arc(VIEWS)
    true = small_scene.observe(small_scene.wall_points(400, relief=0.2), cameras, noise_px=0.3)
    points = small_scene.wall_points(300, relief=0.2, seed=5)
    along = points * torch.linspace(0.6, 0.9, 300, dtype=torch.float64)[:, None]  # nearer on the first view's rays
    turned = cameras[1].clone()
    turned[:3, :3] = turned[:3, :3] @ so3_exp(torch.tensor([0.004, 0.0, 0.004], dtype=torch.float64))
    uv = torch.zeros(VIEWS, 300, 2)
    for view, camera in ((0, cameras[0]), (1, turned)):
        uv[view] = project(transform(invert(camera)[None], along[None])[0], K[0])[0].float()
    weight = torch.zeros(VIEWS, 300)
    weight[:2] = 1
    tracks = Tracks(uv=torch.cat([true.uv, uv], 1), weight=torch.cat([true.weight, weight], 1))
    found = adjust_bundle(tracks, K, cameras, (small_scene.SIZE,) * VIEWS, near=True).world_from_cam
    off = rotation_angle(found[:, :3, :3].mT @ cameras[:, :3, :3]).rad2deg()
    assert off.max() < 0.05
