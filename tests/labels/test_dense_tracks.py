"""More tracks for the last adjustment: true, on our pixels, and those of views that nothing tied before are told."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import builders
from reliev3r.core.types import Tracks
from reliev3r.data.capture import load_capture
from reliev3r.data.truth import load_truth
from reliev3r.labels.tracks.dense import dense_tracks, tied_views
from reliev3r.sfm.heldout_error import observation_errors

VIEWS = 4


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return builders.capture(tmp_path_factory.mktemp("room"), width=320, height=240, views=VIEWS, span=20.0)


def tying(views: list[int], count: int = 20) -> Tracks:
    """Tracks that are seen in ``views``."""
    weight = torch.zeros(VIEWS, count)
    weight[views] = 1
    return Tracks(uv=torch.full((VIEWS, count, 2), 100.0), weight=weight)


def test_they_are_as_true_as_the_cameras_and_the_known_come_first(room) -> None:
    capture, known = load_capture(room), tying([0, 1, 2, 3])
    told: list[tuple[float, float]] = []
    tracks = dense_tracks(capture, known, progress=lambda done, total, what: told.append((done, total)))
    assert told == [*((view + 1, VIEWS + 6) for view in range(VIEWS)), (VIEWS + 6, VIEWS + 6)]  # of six pairs
    torch.testing.assert_close(tracks.uv[:, :20], known.uv)
    torch.testing.assert_close(tracks.weight[:, :20], known.weight)
    found = tracks.select_tracks(torch.arange(20, tracks.weight.shape[1]))
    assert found.visible.sum(1).min() > 60
    assert (found.visible.sum(0) >= 3).sum() > 20
    size = torch.tensor([[0.0, 0.0, 320.0, 240.0]]).expand(VIEWS, 4)
    truth = load_truth(room, capture.names, regions=size, size=(240, 320))
    errors, judged = observation_errors(found, truth.K, truth.world_from_cam, [(320, 240)] * VIEWS)
    assert errors[judged].median() < 0.3  # half a pixel beside, as of another convention, would show


def test_a_view_without_ties_is_matched_with_the_others_and_told(room) -> None:
    known = tying([0, 1, 3])
    tracks = dense_tracks(load_capture(room), known)
    assert tied_views(known).tolist() == [True, True, False, True]
    assert tracks.visible[2].sum() > 60
    alone = tying([2])
    assert dense_tracks(load_capture(room), alone) is alone
    assert not tied_views(alone).any()


def test_none_lies_under_a_mask(room) -> None:
    capture, kept = load_capture(room), np.ones((240, 320), np.uint8)
    kept[:, 160:] = 0
    mask = room / "left_half.png"
    Image.fromarray(255 * kept).save(mask)
    frames = (dataclasses.replace(capture.frames[0], mask=mask), *capture.frames[1:])
    tracks = dense_tracks(dataclasses.replace(capture, frames=frames), tying([0, 1, 2, 3]))
    found = tracks.select_tracks(torch.arange(20, tracks.weight.shape[1]))
    assert found.visible[0].any()
    assert found.uv[0, found.visible[0], 0].max() < 161
    assert found.uv[1, found.visible[1], 0].max() > 200
