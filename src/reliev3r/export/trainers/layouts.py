"""The layouts by the names that users type, and one way to write a scene in any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliev3r.core.files import atomic_directory, write_json
from reliev3r.data.pseudo_labels import FILE, FORMAT, NOTICE
from reliev3r.export.trainers import dust3r, omega, wai
from reliev3r.export.trainers.scene import CONFIDENT, TrainingScene

_MEANING = {
    0.0: "K counts pixels from the centre of the first one, as OpenCV does: add 0.5 to cx and cy for COLMAP's way",
    0.5: "K counts pixels from the corner of the first one, as COLMAP does: subtract 0.5 from cx and cy for OpenCV's",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one family of trainers keeps its scenes."""

    write_scene: Callable[[TrainingScene, Path, Sequence[str]], None]
    """Into an empty folder, under these file stems."""
    write_index: Callable[[Path, Sequence[str]], None]
    """What lies beside the scenes, given their names."""
    centre: float
    """Where the loader has the centre of the first pixel."""
    beside: tuple[str, ...] = ()
    """Names that ``write_index`` takes in the root: no scene may have them."""
    group: str = ""
    """Folder between the root and the scenes."""
    sorts: bool = False
    """Whether the loader takes the alphabet for the order of the frames."""

    def place(self, root: Path, name: str) -> Path:
        """Folder of a scene."""
        return root / self.group / name


LAYOUTS = {
    "wai": Layout(
        write_scene=wai.write_scene, write_index=wai.write_index, centre=wai.CENTRE, beside=(wai.LISTS,),
    ),
    "omega": Layout(
        write_scene=omega.write_scene, write_index=omega.write_index, centre=omega.CENTRE, beside=(omega.LIST,),
    ),
    "dust3r": Layout(
        write_scene=dust3r.write_scene, write_index=dust3r.write_index, centre=dust3r.CENTRE, group=dust3r.GROUP,
        sorts=True,
    ),
}  # fmt: skip


def write_training_scene(scene: TrainingScene, layout: str, root: Path) -> None:
    """The scene below ``root``, whole or not at all; one of the same name is replaced.

    Raises:
        UserError: ``root`` cannot be written, or the disk is full.
    """
    kind = LAYOUTS[layout]
    files = _files(scene.frames, numbered=kind.sorts)
    frames: list[dict[str, Any]] = [
        {"file": file, **frame} for file, frame in zip(files, scene.note["frames"], strict=True)
    ]
    note = {
        "format": FORMAT, "notice": NOTICE, "layout": layout, "pixel_centre": kind.centre,
        "pixel_centre_means": _MEANING[kind.centre],
        "confidence": f"in [0, 1]; pixels at or below {CONFIDENT} are masked out where the layout has masks",
        **scene.note, "frames": frames,
    }  # fmt: skip
    with atomic_directory(kind.place(root, scene.name)) as folder:
        kind.write_scene(scene, folder, files)
        write_json(folder / FILE, note)


def _files(frames: Sequence[str], *, numbered: bool) -> list[str]:
    """The frames' own names, behind numbers where the alphabet has another order than the capture."""
    files = list(frames)
    if numbered and sorted(files, key=lambda file: f"{file}.png") != files:
        files = [f"{index:06d}_{file}" for index, file in enumerate(files)]
    return files
