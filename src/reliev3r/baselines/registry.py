"""The upstream systems at a glance: licences, installation, what each predicts, found here or not."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError

ADAPTERS = Path(__file__).with_name("adapters")
NAMES = tuple(sorted(path.stem for path in ADAPTERS.glob("*.py") if path.stem not in ("__init__", "shared")))
"""What ``host.run_baseline`` runs: one adapter file each."""

_COLMAP = {
    "predicts": ("cameras",),
    "code_licence": "BSD-3-Clause",
    "weights_licence": "no weights",
    "module": "pycolmap",
    "install": "pip install pycolmap (comes with reliev3r)",
    "weights": "none",
    "paper": "not in the paper's table; what people pick instead",
}
COLMAP = {
    "colmap": {"name": "COLMAP, SIFT and incremental mapping", **_COLMAP},
    "colmap-global": {"name": "COLMAP, SIFT and global mapping (GLOMAP)", **_COLMAP},
}
"""Run in this process (``baselines.colmap``), with known intrinsics."""

_PROBE = "import importlib.util, json, sys; print(json.dumps([m for m in sys.argv[1:] if importlib.util.find_spec(m)]))"


def card(name: str) -> dict[str, Any]:
    """What the adapter ``name`` says about its system (docs/contributing/baseline.md lists the entries).

    Raises:
        UserError: no such adapter.
    """
    if name not in NAMES:
        raise UserError(f"unknown baseline '{name}'; known are {', '.join(NAMES)}")
    return importlib.import_module(f"reliev3r.baselines.adapters.{name}").CARD


def baseline_table(*, python: Path | None = None, checkouts: Path | None = None) -> str:
    """All systems as plain text; packages are looked for in ``python`` (default: this interpreter).

    ``checkouts`` is a folder of repositories, each under its own name. Nothing is imported, only looked for.

    Raises:
        UserError: ``python`` cannot be run.
    """
    cards = {**COLMAP, **{name: card(name) for name in NAMES}}
    installed = _installed({entry["module"] for entry in cards.values() if entry.get("module")}, python)
    return "\n\n".join(_entry(name, entry, installed, checkouts) for name, entry in cards.items())


def _entry(name: str, entry: dict[str, Any], installed: set[str], checkouts: Path | None) -> str:
    lines = {
        "predicts": ", ".join(entry["predicts"]),
        "code": entry["code_licence"],
        "weights": f"{entry['weights_licence']} ({entry['weights']})",
        "paper": entry["paper"],
        "views": f"at least {entry['min_views']}" if entry.get("min_views", 1) > 1 else "",
        "found": _found(entry, installed, checkouts),
    }
    return "\n".join([f"{name}: {entry['name']}", *(f"  {what:<9} {text}" for what, text in lines.items() if text)])


def _found(entry: dict[str, Any], installed: set[str], checkouts: Path | None) -> str:
    if entry.get("module") in installed:
        return f"yes, package {entry['module']}"
    checkout = None if checkouts is None else checkouts / entry.get("repository", "").rpartition("/")[2]
    if checkout is not None and entry.get("repository") and checkout.is_dir():
        return f"yes, checkout {checkout}"
    return f"no; install: {entry['install']}"


def _installed(modules: Iterable[str], python: Path | None) -> set[str]:
    """Those of the top-level modules that the interpreter has."""
    if python is None:
        return {module for module in modules if importlib.util.find_spec(module) is not None}
    try:
        answer = subprocess.run(
            [str(python), "-c", _PROBE, *modules],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=sys.prefix,
        )
        return set(json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UserError(f"{python}: is no Python interpreter that runs ({type(error).__name__})") from error
