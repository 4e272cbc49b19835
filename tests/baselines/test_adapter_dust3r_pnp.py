"""DUSt3R on pairs with view 0: what its network would say of a known room is decoded into that room."""

import numpy as np
from known_room import assert_perfect, room

from reliev3r.baselines.adapters import dust3r_pnp

SIZE = {"long_side": 64}


def raw_of(known):
    """Both views' points in view 0's frame, each pair at a scale of its own."""
    scale = np.array([0.4, 2.5, 1.3])[:, None, None, None]
    random = np.random.default_rng(0)
    shape = known.truth.depth[1:].shape
    return {
        "points_first": (scale * known.points_first[:1]).astype(np.float32),
        "points": (scale * known.points_first[1:]).astype(np.float32),
        "conf_first": 1 + random.random(shape),
        "conf": 1 + random.random(shape),
    }


def test_a_known_room_comes_back():
    known = room(dust3r_pnp, **SIZE)
    assert known.inputs["img"].shape == (4, 3, 48, 64)
    decoded = dust3r_pnp.decode(raw_of(known), known.inputs)
    assert_perfect(known.scores(decoded))


def test_false_points_of_low_confidence_do_no_harm():
    known = room(dust3r_pnp, **SIZE)
    raw = raw_of(known)
    for points, conf in ((raw["points_first"], raw["conf_first"]), (raw["points"], raw["conf"])):
        points[:, :12], conf[:, :12] = 7.0, 0.5
    decoded = dust3r_pnp.decode(raw, known.inputs)
    assert decoded["found"].all()
    assert known.scores(decoded).auc30 > 99


def test_a_pair_that_pnp_cannot_place_is_not_found():
    known = room(dust3r_pnp, **SIZE)
    raw = raw_of(known)
    raw["points"][1] = 0
    decoded = dust3r_pnp.decode(raw, known.inputs)
    assert decoded["found"].tolist() == [True, True, False, True]
    assert all(np.isfinite(value).all() for value in decoded.values())


def test_sizes_are_upstreams():
    def size(height, width):
        return dust3r_pnp.prepare([np.zeros((height, width, 3), np.uint8)], None)[0]["img"].shape[-2:]

    assert size(480, 640) == (384, 512)
    assert size(640, 480) == (512, 384)
    assert size(427, 640) == (336, 512)
    assert size(300, 300) == (384, 512)  # no squares


def test_points_behind_the_first_camera_place_no_other_one():
    known = room(dust3r_pnp, **SIZE)
    raw = raw_of(known)
    raw["points_first"] *= -1
    decoded = dust3r_pnp.decode(raw, known.inputs)
    assert decoded["found"].tolist() == [True, False, False, False]
    assert all(np.isfinite(value).all() for value in decoded.values())
