"""The verb that lists other systems."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
import os
from dataclasses import dataclass, field
from pathlib import Path

from reliev3r.cli.terminal import parse


def baselines(argv: list[str]) -> int:
    """``reliev3r baselines``."""

    @dataclass(frozen=True)
    class Baselines:
        """List the systems that ``evaluate`` compares with: licences, what they predict, found or how to install."""

        python: Path | None = None
        """Interpreter to look for their packages in; by default this one."""
        checkouts: Path | None = field(default_factory=_checkouts)
        """Folder of checkouts, each named as its repository; by default what RELIEV3R_UPSTREAM names."""

    given = parse(Baselines, "baselines", argv)
    from reliev3r.baselines.registry import baseline_table

    print(baseline_table(python=given.python, checkouts=given.checkouts))
    return 0


def _checkouts() -> Path | None:
    named = os.environ.get("RELIEV3R_UPSTREAM")
    return Path(named) if named else None
