"""Whether more time would pay: the rule on made-up curves, and the sentence on the last third of a training."""

import math
import random
from collections.abc import Callable

import pytest

from reliev3r.runs.more_time import last_third, no_longer_pays


def evaluated(second: float, angle: float, depth: float) -> dict[str, float]:
    return {"step": int(second), "seconds": second, "heldout_deg": angle, "heldout_depth": depth}


def test_it_compares_the_end_with_two_thirds_of_the_time() -> None:
    rows = [evaluated(0, 9, 0.2), evaluated(30, 3, 0.1), evaluated(60, 0.8, 0.05), evaluated(90, 0.4, 0.06)]
    noise = [{"step": 65, "seconds": 65.0, "loss": 1.0}]
    (sentence,) = last_third([*rows[:3], *noise, rows[3]])
    assert "angle by -50 % to 0.4 degrees" in sentence
    assert "depth by +20 % to 6 %" in sentence


def test_it_is_silent_where_nothing_was_held_out_or_hardly_evaluated() -> None:
    assert last_third([evaluated(1, 1, 1)] * 3) == []
    assert last_third([{"step": step, "seconds": 1.0, "heldout_deg": 0.0} for step in range(9)]) == []


def test_perfect_before_is_no_division_by_zero() -> None:
    rows = [evaluated(second, 0.0, 0.0) for second in (0, 30, 60, 90)]
    assert "nothing to compare with" in last_third(rows)[0]


Curve = Callable[[float], float]
LATE = (40, 60, 90, 120, 200, 400)


def rows(angle: Curve, depth: Curve, *, until: float, noise: float = 0.0, seed: int = 0, teacher: float = 1.0) -> list:
    """Evaluations as the loop makes them: whenever a run has become a twentieth longer."""
    draw, second, found = random.Random(seed), 2.0, []
    while second <= until:
        shaken = [curve(second) * math.exp(noise * draw.gauss(0, 1)) for curve in (angle, depth)]
        found.append(averaged(second, *shaken, teacher))
        second *= 1.05
    return found


def averaged(second: float, angle: float, depth: float, *teacher: float) -> dict[str, float]:
    """A row on the average of the weights."""
    row = {"step": int(second), "seconds": second, "average_heldout_deg": angle, "average_heldout_depth": depth}
    return {**row, "average_teacher_deg": teacher[0]} if teacher else row


def level_after(second: float, high: float, low: float) -> Curve:
    return lambda now: low + (high - low) * math.exp(-5 * now / second)


def test_level_curves_no_longer_pay() -> None:
    ended = [
        until
        for until in LATE
        if no_longer_pays(rows(level_after(30, 9, 0.3), level_after(30, 0.1, 0.02), until=until))
    ]
    assert ended == [90, 120, 200, 400]  # before, the third that is compared was still steep


@pytest.mark.parametrize("seed", range(5))
def test_little_noise_is_seen_through_and_much_noise_is_no_level_stretch(seed) -> None:
    level = level_after(30, 9, 0.3), level_after(30, 0.1, 0.02)
    assert no_longer_pays(rows(*level, until=200, noise=0.04, seed=seed))
    assert not no_longer_pays(rows(*level, until=200, noise=0.3, seed=seed))


@pytest.mark.parametrize("seed", range(5))
def test_what_falls_slowly_but_steadily_pays(seed) -> None:
    falls: Curve = lambda now: 3 * now**-0.5  # noqa: E731
    level = level_after(5, 0.1, 0.02)
    for until in LATE:
        assert not no_longer_pays(rows(falls, level, until=until, noise=0.05, seed=seed))  # either measure is enough
        assert not no_longer_pays(rows(level, falls, until=until, noise=0.05, seed=seed))


def test_a_plateau_is_waited_for_as_long_as_it_may_be_the_start() -> None:
    """Depth is level at first while cameras turn up: the angle falls, or they are not those of their teacher yet."""
    late: Curve = lambda now: 0.1 if now < 60 else 0.1 * (60 / now) ** 2  # noqa: E731
    far: Curve = lambda now: 9.0  # noqa: E731
    for until in LATE:
        assert not no_longer_pays(rows(lambda now: 9 * now**-0.7, late, until=until))
        assert not no_longer_pays(rows(far, late, until=until, teacher=40.0))
    assert not no_longer_pays(rows(late, lambda now: 0.05, until=100))  # improving again at last


def test_without_a_teacher_the_angle_says_whether_there_are_cameras() -> None:
    for angle, ends in ((9.0, False), (0.3, True)):
        found = rows(lambda now, angle=angle: angle, lambda now: 0.05, until=100)
        assert no_longer_pays([{k: v for k, v in row.items() if k != "average_teacher_deg"} for row in found]) is ends


def test_few_evaluations_and_none_held_out_say_nothing() -> None:
    assert not no_longer_pays([])
    assert not no_longer_pays([averaged(second, 0.3, 0.02) for second in range(10, 100, 10)])
    assert not no_longer_pays(
        [{"step": step, "seconds": float(step), "average_heldout_deg": 0.0} for step in range(99)]
    )
