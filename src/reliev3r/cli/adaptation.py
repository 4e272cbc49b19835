"""The verb that adapts a pretrained network to footage."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from reliev3r.cli.terminal import parse, progress_bars


def adapt(argv: list[str]) -> int:
    """``reliev3r adapt --model CHECKPOINT --footage ROOT --out RUN``; exit code 4 where the verdict is worse."""
    from reliev3r.runs.adapt.settings import AdaptConfig

    @dataclass(frozen=True)
    class Adapt:
        """Fine-tune a pretrained network on footage from frames alone; without proof that it helped, it is kept aside
        (docs/adapt.md)."""

        model: str
        """Folder of a checkpoint; pi3:PATH_OR_ID; with their packages vggt:, mapanything:, da3:. Never written to."""
        footage: Path
        """A capture (folder of images or video), a folder of captures, or a .txt file that lists captures."""
        out: Path
        """Where everything goes: a new or empty folder."""
        resume: bool = False
        """Go on with the interrupted run in --out, under its own settings."""
        config: Annotated[AdaptConfig, arg(name="")] = field(default_factory=AdaptConfig)

    given = parse(Adapt, "adapt", argv)
    from reliev3r.runs.adapt.run import adapt as run
    from reliev3r.runs.folder import first_process

    with progress_bars() as report:
        result = run(given.model, given.footage, given.out, given.config, resume=given.resume, report=report)
    if result is None and not first_process():
        return 0
    if result is None:
        again = shlex.join([*argv, *([] if given.resume else ["--resume"])])
        print(f"interrupted; go on with: reliev3r adapt {again}", file=sys.stderr)
        return 130
    verdict = result.verdict
    print(f"{verdict.verdict}: {verdict.reasons[0]}")
    for reason in verdict.reasons[1:]:
        print(f"note: {reason}")
    if verdict.verdict != "better":
        print("the network that was given stays the one to use; the adapted one is kept aside:")
    print(f"  {result.checkpoint}")
    return 4 if verdict.verdict == "worse" else 0
