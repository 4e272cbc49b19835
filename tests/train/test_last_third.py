"""The sentence on what the last third of a training brought."""

from reliev3r.runs.last_third import last_third


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
