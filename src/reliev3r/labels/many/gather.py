"""The verdicts of many captures, read back from a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Progress
from reliev3r.labels.many.index import capture_state, label_folders
from reliev3r.labels.quality.assess import read_quality
from reliev3r.labels.quality.sheet import FILE as SHEET


@dataclass(frozen=True, kw_only=True)
class JudgedCapture:
    """One capture of a store, for the label report."""

    name: str
    verdict: str
    """good, weak, unusable; failed (no labels could be made), unfinished, or not judged."""
    reasons: tuple[str, ...]
    """In plain language, with the remedy."""
    figures: dict[str, Any] | None
    """As ``quality.json`` has them."""
    picture: Path | None
    """A JPEG of its labels."""


def gather_quality(root: Path | str, *, progress: Progress | None = None) -> list[JudgedCapture]:
    """All captures of a store, or the one whose labels ``root`` holds, by name; nothing is computed again.

    Raises:
        UserError: no labels in ``root``.
    """
    root = Path(root)
    single = (root / "manifest.json").is_file()
    folders = {root.resolve().name: root} if single else label_folders(root) if root.is_dir() else {}
    if not folders:
        raise UserError(f"{root}: holds no labels; give a folder of labels or a store that `reliev3r label` made")
    captures = []
    for done, (name, folder) in enumerate(folders.items(), start=1):
        captures.append(_judged(name, folder))
        if progress:
            progress(done, len(folders), name)
    return captures


def _judged(name: str, folder: Path) -> JudgedCapture:
    state = capture_state(folder)
    quality = read_quality(folder) if state["state"] == "done" else None
    picture = folder / SHEET
    if quality is not None:
        return JudgedCapture(
            name=name, verdict=quality.verdict, reasons=quality.sentences, figures=quality.figures,
            picture=picture if picture.is_file() else None,
        )  # fmt: skip
    verdict, reason = {
        "failed": ("failed", state.get("reason", "")),
        "unfinished": ("unfinished", "the run was interrupted; `reliev3r label` goes on"),
        "done": ("not judged", "labelled without a verdict; `reliev3r label` adds it"),
    }[state["state"]]
    return JudgedCapture(name=name, verdict=verdict, reasons=(reason,), figures=None, picture=None)
