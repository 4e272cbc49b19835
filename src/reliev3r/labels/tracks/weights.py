"""Weights of matchers: files found in the given place or in torch.hub's cache, never downloaded unasked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reliev3r.errors import UserError
from reliev3r.files import file_hash


def checkpoint_file(expert: str, given: str | None, names: Iterable[str], source: str) -> Path:
    """The weight file that was given, or lies under one of ``names`` in the given folder or in torch.hub's cache.

    Raises:
        UserError: there is none; ``source`` says where it comes from.
    """
    names = tuple(names)
    if given is not None and Path(given).is_file():
        return Path(given)
    folder = Path(given) if given is not None else Path(torch.hub.get_dir()) / "checkpoints"
    for name in names:
        if (folder / name).is_file():
            return folder / name
    where = f"{given}: no such weights" if given is not None else f"{expert}: no {' or '.join(names)} in {folder}"
    raise UserError(f"{where}; get {names[0]} from {source} and use {expert}:PATH")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or PyTorch file; nothing in it is executed.

    Raises:
        UserError: not readable as weights.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch and safetensors raise on foreign files
        raise UserError(f"{path}: not readable as weights; download it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no plain dictionary of weights; use the original checkpoint")
    return state


def fill(model: torch.nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights; buffers may be missing (they are computed), learned weights may not.

    Raises:
        UserError: the weights are another model's.
    """
    learned = dict(model.named_parameters()).keys() | {k for k, _ in model.named_buffers() if "running_" in k}
    try:
        result = model.load_state_dict(state, strict=False)
        fits = not learned & set(result.missing_keys) and not result.unexpected_keys
    except RuntimeError:  # of another shape
        fits = False
    if not fits:
        raise UserError(f"{path}: its weights do not fill a {type(model).__name__}; use the matching checkpoint")


def joint_hash(paths: Iterable[Path]) -> str:
    """One hash of some files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{file_hash(path)}\n".encode())
    return digest.hexdigest()


def require(module: str, expert: str, install: str) -> Any:
    """Import an optional package.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"track expert {expert} needs {module.split('.')[0]}: {install}") from error
