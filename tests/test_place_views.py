"""A view that starts far off, or that nothing was known about, is placed by the points of the others, or left out."""

import math

import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.sfm.held_views import held_views
from reliev3r.sfm.refine import refine_cameras
from test_refine import VIEWS, cut, rotation_errors, tracks_of

OFF = 5


def start(*, degrees: float = 20.0):
    """The truth, one view of which is turned and moved aside."""
    cameras = small_scene.arc(VIEWS)
    turn = so3_exp(torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64))
    aside = rigid_from(turn, torch.tensor([0.6, -0.4, 0.0], dtype=torch.float64))
    cameras[OFF] = cameras[OFF] @ aside
    return small_scene.reconstruction(VIEWS).with_cameras(cameras)


def pairs(count: int = 2000, seed: int = 0) -> Tracks:
    """Short tracks: nothing but their pairs, as of photographs of which each shares little with the others."""
    return tracks_of(small_scene.arc(VIEWS), count=count, longest=2, seed=seed)


def judges() -> Tracks:
    return tracks_of(small_scene.arc(VIEWS), count=150, seed=9)


def test_a_view_that_starts_twenty_degrees_off_is_placed() -> None:
    tracks = tracks_of(small_scene.arc(VIEWS), count=1500, longest=3)
    result = refine_cameras(start(), tracks, judges())
    print(result.reason)
    assert result.kept
    assert rotation_errors(result.reconstruction).max() < 0.15
    assert result.placed_views == (f"frame{OFF}",)
