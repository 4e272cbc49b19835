"""What lies beside pseudo-labels in another trainer's layout, so that nobody takes them for ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json

FILE = "pseudo_labels.json"
"""Its name, in a scene's folder."""
FORMAT = "reliev3r-pseudo-labels/1"
NOTICE = (
    "These are pseudo-labels, not ground truth: depth by an expert, bent to tracks between the images, and cameras "
    "solved from these tracks. Do not report errors against them as errors against the truth."
)
CENTRES = (0.0, 0.5)
"""Where a layout has the centre of the first pixel: OpenCV's way and the corner convention."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoNote:
    """What a reader of depth must know of such a scene."""

    caveat: str
    """For people, beside numbers."""
    corner_shift: Float[np.ndarray, "3 3"]
    """Added to the stored K it gives K in corner convention."""
    names: dict[str, str]
    """The frame that each file's stem stands for."""


def read_note(folder: Path) -> PseudoNote | None:
    """The note of the scene in ``folder``; None where there is none, so that the scene is a dataset's own.

    Raises:
        UserError: damaged, or of another version.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        if content["format"] != FORMAT or content["pixel_centre"] not in CENTRES:
            raise ValueError(f"format {content['format']}, pixel centre {content['pixel_centre']}")
        experts = " and ".join(f"{expert['name']} ({expert['role']})" for expert in content["experts"])
        names = {str(frame["file"]): str(frame["name"]) for frame in content["frames"]}
        left = 0.5 - float(content["pixel_centre"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not a note of {FORMAT} ({error}); run `reliev3r export-labels` again") from error
    return PseudoNote(
        caveat=f"depth: PSEUDO-LABELS by reliev3r, not ground truth; {experts}",
        corner_shift=np.array([[0, 0, left], [0, 0, left], [0, 0, 0]]),
        names=names,
    )


def made_from(folder: Path) -> Any:
    """What the scene in ``folder`` says that it was made from; None where it says nothing."""
    try:
        content = read_json(folder / FILE)
    except UserError:
        return None
    return content.get("made_from") if isinstance(content, dict) else None
