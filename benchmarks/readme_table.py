"""The results table of README.md, made from benchmarks/results/fit_seconds_cpu.json.

    python benchmarks/readme_table.py          # writes it between the two marks; a test holds the committed one to this

The same place says on what machine, when and at which commit it was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "benchmarks" / "results" / "fit_seconds_cpu.json"
START, END = "<!-- results: python benchmarks/readme_table.py -->", "<!-- end of results -->"
CAPTURES = ("livingroom1", "box_rgbd")
ROWS = {
    "`reconstruct`: no training, no depth network": "{capture}/reconstruct",
    "`fit`, a minute, no depth network": "{capture}/none/plain/60",
    "`fit`, a minute, FastDepth": "{capture}/fastdepth/plain/60",
    "`fit`, a minute, FastDepth, swept labels": "{capture}/fastdepth/swept/60",
}


def table(found: dict[str, Any]) -> str:
    """Markdown: a row for each way, for each capture AUC@30 and the relative error of depth, and CPU seconds."""
    lines = ["| | " + " | ".join(f"`{capture}`: AUC@30 | depth error" for capture in CAPTURES) + " | CPU seconds |",
             "|---|" + "--:|--:|" * len(CAPTURES) + "--:|"]  # fmt: skip
    for name, key in ROWS.items():
        runs = [found["runs"][key.format(capture=capture)] for capture in CAPTURES]
        scores = [run.get("fit", run) for run in runs]
        cells = [f"{score['auc30']:.1f} | {score['depth_rel']:.3f}" for score in scores]
        budget = key.rpartition("/")[2]
        seconds = budget if budget.isdigit() else ", ".join(f"{run['seconds']:.0f}" for run in runs)
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds} |")
    about = found["about"]
    machine = f"{about['threads']} thread of a shared machine ({about['device']})"
    return "\n".join([*lines, "", f"Measured {about['date']} at commit {about['commit']}, {machine}."])


def with_table(text: str, made: str) -> str:
    """The text with another table between the marks."""
    before, rest = text.split(START)
    return f"{before}{START}\n{made}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    made = table(json.loads(SOURCE.read_text(encoding="utf8")))
    readme.write_text(with_table(readme.read_text(encoding="utf8"), made), encoding="utf8")
