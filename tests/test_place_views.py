"""A view that starts far off, or that nothing was known about, is placed by the points of the others, or left out."""

import math

import pytest
import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.sfm.refine import refine_cameras
from test_refine import VIEWS, rotation_errors, tracks_of

OFF = 5
GUESSED = torch.arange(VIEWS) == OFF


def start(*, others_off: float = 0.0):
    """The truth, one view of which is turned by 20 degrees and moved aside; degrees for every other one."""
    cameras = small_scene.arc(VIEWS)
    cameras[::2, :3, :3] @= so3_exp(torch.tensor([math.radians(others_off), 0.0, 0.0], dtype=torch.float64))
    turn = so3_exp(torch.tensor([0.0, math.radians(20), 0.0], dtype=torch.float64))
    cameras[OFF] = cameras[OFF] @ rigid_from(turn, torch.tensor([0.6, -0.4, 0.0], dtype=torch.float64))
    return small_scene.reconstruction(VIEWS).with_cameras(cameras)


def tracks(*, seed: int = 0, count: int = 600, longest: int = 4) -> Tracks:
    return tracks_of(small_scene.arc(VIEWS), count=count, longest=longest, seed=seed)


def with_false_matches(tracks: Tracks) -> Tracks:
    """What the view sees lies anywhere: another place that looks alike."""
    uv = tracks.uv.clone()
    uv[OFF] = torch.rand(uv[OFF].shape, generator=torch.Generator().manual_seed(3)) * torch.tensor([640.0, 480.0])
    return Tracks(uv=uv, weight=tracks.weight)


@pytest.mark.parametrize(("guessed", "count", "longest"), [(None, 1500, 3), (GUESSED, 600, 4)])
def test_a_view_that_starts_twenty_degrees_off_is_placed(guessed, count, longest) -> None:
    """Also one that nothing was known about, whose observations do not count before."""
    matches = tracks(count=count, longest=longest)
    result = refine_cameras(start(), matches, tracks(seed=9, count=150), guessed=guessed)
    assert result.kept
    assert result.placed_views == (f"frame{OFF}",)
    assert result.guesses == ()
    assert f"placed anew by the points of the other views: frame{OFF}" in result.reason
    assert rotation_errors(result.reconstruction).max() < 0.7


def test_matches_with_another_place_do_not_place_a_view() -> None:
    found = refine_cameras(
        start(others_off=1), with_false_matches(tracks()), tracks(seed=9, count=150), guessed=GUESSED
    )
    assert found.kept
    assert found.placed_views == ()
    assert found.guesses == found.unrefined_views == (f"frame{OFF}",)
    assert rotation_errors(found.reconstruction)[~GUESSED][:, ~GUESSED].max() < 0.7
