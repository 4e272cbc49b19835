"""The verb that trains across scenes."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from reliev3r.cli.terminal import parse, progress_bars
from reliev3r.core.errors import UserError


def train(argv: list[str]) -> int:
    """``reliev3r train RECIPE --out RUN``."""
    from reliev3r.train.recipes import RECIPES, ScenesConfig

    known = {name: recipe.__doc__ or "" for name, recipe in RECIPES.items()}
    if argv and argv[0] in ("--list", "-l"):
        print("\n".join(f"{name:<20} {text.splitlines()[0]}" for name, text in known.items()))
        return 0
    if not argv or argv[0] not in RECIPES:
        raise UserError(f"say which recipe to train: {', '.join(RECIPES)} (`reliev3r train --list` explains them)")
    recipe = argv[0]

    @dataclass(frozen=True)
    class Train:
        """Train a network across scenes, under a recipe whose every setting is a flag."""

        out: Path
        """Where everything goes: a new or empty folder."""
        resume: bool = False
        """Go on with the interrupted run in --out, under its own settings."""
        config: Annotated[ScenesConfig, arg(name="")] = field(default_factory=RECIPES[recipe])

    given = parse(Train, f"train {recipe}", argv[1:])
    from reliev3r.runs.train import train_scenes

    with progress_bars() as report:
        result = train_scenes(given.out, given.config, resume=given.resume, recipe=RECIPES[recipe](), report=report)
    if not result.finished:
        print(f"interrupted; go on with: reliev3r train {recipe} --out {given.out} --resume", file=sys.stderr)
        return 130
    print(f"{result.steps} steps in {result.seconds / 60:.1f} minutes")
    for name in ("checkpoint", "training/best", "metrics.jsonl"):
        print(f"  {given.out / name}")
    return 0
