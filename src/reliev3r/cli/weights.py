"""The verb about weights: a trained network in another system's layout."""

# No postponed annotations here: tyro reads the fields' types where the verbs define them.
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from reliev3r.cli.terminal import parse
from reliev3r.core.errors import UserError


def export_weights(argv: list[str]) -> int:
    """``reliev3r export-weights CHECKPOINT --out FILE.safetensors``."""

    @dataclass(frozen=True)
    class ExportWeights:
        """Write a network's weights so that another system's code loads them (docs/weights.md)."""

        checkpoint: Positional[Path]
        """Folder with config.json and model.safetensors, for instance RUN/checkpoint; a network that began as pi3:"""
        out: Path
        """FILE.safetensors."""
        format: Literal["pi3"] = "pi3"
        confidence_of: Path | None = None
        """A pi^3 checkpoint (the one the network began from) whose confidence branch is written instead of ours."""
        overwrite: bool = False

    given = parse(ExportWeights, "export-weights", argv)
    from reliev3r.model.load import load_network
    from reliev3r.model.weights.pi3 import export_pi3

    if given.out.exists() and not given.overwrite:
        raise UserError(f"{given.out}: exists already; choose another name, or --overwrite")
    left_out = export_pi3(load_network(given.checkpoint), given.out, confidence_of=given.confidence_of)
    print(given.out)
    if left_out:
        print(f"note: {given.format} has no place for {', '.join(left_out)}; left out")
    return 0
