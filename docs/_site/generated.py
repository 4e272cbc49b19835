"""Pages that nobody writes: every verb's own help, the docstrings of the door, and what lies in benchmarks/results."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WIDTH = "100"


@dataclasses.dataclass(frozen=True)
class Page:
    """One page: its place in docs/, its name, the group of docs/README.md that it is listed in, and what writes it."""

    path: str
    title: str
    group: str
    write: Callable[[], str]


def command_line() -> str:
    """Help of every verb, as it is printed."""
    from reliev3r.cli import VERBS
    from reliev3r.training.recipes import RECIPES

    lines = ["# Command line", "", "Generated from `reliev3r VERB --help`. Every other setting of a verb is written",
             "`NAME=VALUE`; `--help-all` lists them.", "", "| verb | what it does |", "|---|---|"]  # fmt: skip
    lines += [f"| [`{verb}`](#{verb}) | {text} |" for verb, (_, text) in VERBS.items()]
    for verb in VERBS:
        words = [verb, next(iter(RECIPES))] if verb == "train" else [verb]
        lines += ["", f"## {verb}", "", "```text", printed([*words, "--help"]), "```"]
    return "\n".join(lines) + "\n"


def printed(words: list[str]) -> str:
    """What the command line prints for these words.

    Raises:
        RuntimeError: it is not help.
    """
    from reliev3r.cli import main

    before = dict(os.environ)
    os.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            code = main(words)
    except SystemExit as ended:
        code = ended.code
    finally:
        os.environ.clear()
        os.environ.update(before)
    text = "\n".join(line.rstrip() for line in out.getvalue().strip("\n").splitlines())
    if code not in (0, None) or not text:
        raise RuntimeError(f"reliev3r {' '.join(words)}: exit code {code}, no help")
    return text


def python() -> str:
    """Docstrings of every name of ``import reliev3r``."""
    import reliev3r

    lines = [
        "# Python, name by name",
        "",
        "Generated from docstrings. [Python](../python.md) shows how to use them.",
        "",
    ]
    for name in reliev3r.__all__:
        if not name.startswith("__"):
            lines += [f"::: {getattr(reliev3r, name).__module__}.{name}", ""]
    return "\n".join(lines)


def results() -> str:
    """Every file of benchmarks/results, with date, commit and machine."""
    lines = ["# Measured files", "", "Generated from `benchmarks/results/`. The pages of this section say what the",
             "numbers mean.", "", "| file | date | commit | machine |", "|---|---|---|---|"]  # fmt: skip
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        about = about_of(json.loads(file.read_text(encoding="utf8")))
        commit = f"`{about['commit']}`" if "commit" in about else "not recorded"
        link = f"[{file.name}](../../benchmarks/results/{file.name})"
        lines.append(f"| {link} | {about.get('date', 'not recorded')} | {commit} | {about.get('device', '')} |")
    return "\n".join(lines) + "\n"


def about_of(found: dict[str, Any]) -> dict[str, Any]:
    """Where and when a result was measured: a part of its own in newer files, beside the numbers in older ones."""
    about = found.get("about", found)
    return {**about, "device": about.get("device") or about.get("machine", "")}


PAGES = (
    Page("reference/cli.md", "Command line", "Reference", command_line),
    Page("reference/api.md", "Python, name by name", "Reference", python),
    Page("results/files.md", "Measured files", "Results", results),
)


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs with the files that it found in docs/."""
    from mkdocs.structure.files import File

    for page in PAGES:
        files.append(File.generated(config, page.path, content=page.write()))
    return files
