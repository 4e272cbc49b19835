"""MV-DUSt3R+: what its network would say of a known room is decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room

from reliev3r.baselines.adapters import mvdust3r


def raw_of(known, scale=0.37):
    """Points of all views in view 0's frame, of any scale, in the order in which the views are fed."""
    order = known.inputs["order"]
    conf = 1 + np.random.default_rng(0).random(known.truth.depth.shape)
    return {"points": scale * known.points_first[order], "conf": conf[order]}


def test_a_known_room_comes_back():
    known = room(mvdust3r, views=5, size=64)
    assert known.regions[0].tolist() == [20, 0, 120, 120]  # the central square
    decoded = mvdust3r.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))


def test_views_of_other_sizes_have_the_same_focal_length_in_their_own_pixels():
    images = [np.zeros((480, 640, 3), np.uint8), np.zeros((240, 240, 3), np.uint8)]
    inputs, regions = mvdust3r.prepare(images, None)
    assert inputs["img"].shape == (2, 3, 224, 224)
    np.testing.assert_allclose(inputs["scale"], [224 / 480, 224 / 240])
    np.testing.assert_allclose(regions, [[80, 0, 480, 480], [0, 0, 240, 240]])


def test_a_view_that_pnp_cannot_place_is_not_found():
    known = room(mvdust3r, size=64)
    raw = raw_of(known)
    lost = int(np.flatnonzero(known.inputs["order"] == 2)[0])
    raw["points"][lost] = [1.0, 2.0, 3.0]  # one point says nothing about where it is seen from
    decoded = mvdust3r.decode(raw, known.inputs)
    assert decoded["found"].tolist() == [True, True, False, True]
    assert all(np.isfinite(value).all() for value in decoded.values())
    assert (decoded["depth"] > 0).all()
    assert known.scores(decoded).views_without_camera == 1


@pytest.mark.parametrize(
    ("views", "order"),
    [
        (2, [0, 1]),
        (4, [0, 3, 2, 1]),
        (8, [0, 3, 6, 1, 4, 5, 2, 7]),
        (12, [0, 4, 7, 10, 1, 5, 6, 2, 8, 9, 3, 11]),
    ],
)
def test_views_are_fed_in_the_order_of_the_demo(views, order):
    assert mvdust3r.feeding_order(views).tolist() == order
