"""VGGT-Omega: its images, and its encoding of a known room (VGGT's) decoded into that room."""

import numpy as np
import pytest
from known_room import assert_perfect, room
from test_adapter_vggt import raw_of

from reliev3r.baselines.adapters import vggt_omega


def test_a_known_room_comes_back():
    known = room(vggt_omega, side=96)
    assert known.inputs["image"].shape == (4, 3, 80, 112)
    assert_perfect(known.scores(vggt_omega.decode(raw_of(known), known.inputs)))


def test_a_long_capture_is_cut_and_still_right():
    known = room(vggt_omega, width=240, height=90, side=96)
    np.testing.assert_allclose(known.regions[0], [30, 0, 180, 90])
    assert_perfect(known.scores(vggt_omega.decode(raw_of(known), known.inputs)))


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (448, 592)), (1080, 1920, (384, 688)), (800, 600, (592, 448))]
)
def test_sizes_are_upstreams(height, width, expected):
    inputs, regions = vggt_omega.prepare([np.zeros((height, width, 3), np.uint8)], None)
    assert inputs["image"].shape == (1, 3, *expected)
    np.testing.assert_allclose(regions, [[0, 0, width, height]])


def test_images_of_other_shapes_are_padded_and_their_regions_reach_beyond_them():
    images = [np.zeros((300, 400, 3), np.uint8), np.zeros((400, 300, 3), np.uint8)]
    inputs, regions = vggt_omega.prepare(images, None)
    assert inputs["image"].shape == (2, 3, 592, 592)
    assert (inputs["image"][0, :, :72] == 1).all()
    assert (inputs["image"][0, :, 72:-72] == 0).all()
    assert (inputs["image"][1, :, :, :72] == 1).all()
    pixel = 300 / 448  # of the rows that the first picture fills
    np.testing.assert_allclose(regions[0], [0, -72 * pixel, 400, 592 * pixel])
    np.testing.assert_allclose(regions[1], [-72 * pixel, 0, 592 * pixel, 400])
