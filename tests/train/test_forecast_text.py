"""The estimate in words that people read."""

from reliev3r.training.forecast import Estimate


def test_shares_and_times_have_sensible_figures() -> None:
    all_of_it = Estimate(parameters=2_304_628, trained=2_304_628, weights=9, activations=9, step_seconds=0.46, steps=4)
    assert "(100 %)" in all_of_it.to_text()
    assert ": 1.8 seconds, evaluation" in all_of_it.to_text()
    part = Estimate(parameters=959, trained=4, weights=9, activations=9, step_seconds=1.0, steps=1800)
    assert "(0.417 %)" in part.to_text()
    assert ": 30 minutes, evaluation" in part.to_text()
