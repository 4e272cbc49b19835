"""The model card beside a checkpoint: what the network is, what it was trained on, how good it is, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reliev3r.core.files import atomic_path

NAME = "README.md"
MARK = "<!-- written by reliev3r with the weights; yours if you remove this line -->"
LIMITS = """\
- The scene must be static; what moves is reconstructed wrongly or with low confidence.
- Images must be free of lens distortion (a pinhole camera).
- Lengths have one unknown scale for all views of a call, unless the weights that it began with are metric."""


def model_card(*, title: str, licence: str, what: Mapping[str, str], load: str, facts: Mapping[str, str]) -> str:
    """Markdown with the front matter of the Hugging Face hub.

    Args:
        title: the first heading.
        licence: of the weights, as the hub spells it (``apache-2.0``, or ``other``).
        what: architecture, sizes and what it expects, by name.
        load: Python code that loads it.
        facts: how it was trained and what was measured, by name; empty where whoever saved it did not say.
    """
    told = facts or {"Training": "not described by whoever saved these weights"}
    return "\n".join(
        [
            "---", f"license: {licence}", "library_name: reliev3r", "pipeline_tag: depth-estimation",
            "tags: [3d-reconstruction, camera-pose, depth]", "---", MARK, "", f"# {title}", "",
            "Maps images of one static scene to depth, confidence and camera poses in one forward pass.", "",
            "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in what.items()), "",
            "## Training and measurements", "", *(f"- **{name}:** {text}" for name, text in told.items()), "",
            "## Use", "", "```python", load, "```", "",
            "## Limits", "", LIMITS, "",
        ]
    )  # fmt: skip


def write_card(folder: Path, text: str) -> None:
    """Write the card, unless a person has put one of their own there."""
    path = folder / NAME
    if path.is_file() and MARK not in path.read_text(encoding="utf8", errors="replace"):
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf8")
