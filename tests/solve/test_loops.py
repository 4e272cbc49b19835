"""Where a walk comes back: candidates by look, far from one another, and none that cannot be a loop."""

import numpy as np

from reliev3r.solve.loops import candidates


def test_candidates_are_far_apart_in_time_and_from_one_another():
    angle = 2 * np.pi * np.arange(220) / 120  # nearly twice around: view k looks like view k + 120
    look = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = candidates(look @ look.T, beyond=60, count=5)
    assert len(found) == 5
    assert all(j - i == 120 for i, j in found[:2])
    assert all(j - i >= 60 for i, j in found)
    for number, (i, j) in enumerate(found):
        assert all(abs(i - a) > 15 or abs(j - b) > 15 for a, b in found[:number])


def test_a_short_walk_has_none():
    assert candidates(np.ones((50, 50)), beyond=60, count=5) == []
