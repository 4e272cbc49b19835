"""Loading our own checkpoints."""

from __future__ import annotations

from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.model.network import Reliev3R


def load_network(checkpoint: Path | str) -> Reliev3R:
    """Load a folder written by ``save_pretrained`` (``config.json`` + ``model.safetensors``); every key must fit.

    Raises:
        UserError: the folder is not a checkpoint, or its weights do not fit its configuration.
    """
    folder = Path(checkpoint)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: not found; a checkpoint is a folder with config.json and model.safetensors"
            )
    try:
        return Reliev3R.from_pretrained(folder, strict=True, local_files_only=True)
    except Exception as error:  # safetensors, JSON and shape errors share no base class
        raise UserError(f"{folder}: the checkpoint cannot be loaded ({str(error).splitlines()[0]})") from error
