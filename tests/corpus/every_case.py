"""All cases of the corpus."""

from pathlib import Path

from bad_files import (
    Case,
    dataset_cases,
    fault_cases,
    image_cases,
    json_cases,
    label_cases,
    media_cases,
    name_cases,
    number_cases,
    path_cases,
    run_cases,
    weight_cases,
)  # fmt: skip
from outside_files import outside_cases


def all_cases(sound: Path, *, json_count: int = 25) -> list[Case]:
    """Every case that the sound files allow (those of runs where there is one), always in the same order."""
    run = (sound / "run").is_dir()
    cases = [
        *json_cases(sound, json_count), *image_cases(), *name_cases(), *path_cases(), *number_cases(), *media_cases(),
        *dataset_cases(), *label_cases(), *weight_cases(), *(run_cases(sound) if run else ()), *fault_cases(run=run),
        *outside_cases(run=run),
    ]  # fmt: skip
    return cases
