"""Finding and reading files of weights, whoever wrote them; nothing in a file is ever executed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError

logger = logging.getLogger(__name__)

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def weight_files(where: str | Path, *, local_files_only: bool = True) -> list[Path]:
    """The files that hold one network's weights: ``where`` itself, or those of a folder or of a hub id.

    Args:
        where: a file, a folder, or ORG/NAME on the Hugging Face hub (its ``model.safetensors``).
        local_files_only: of the hub's, take what its cache has; False fetches it as huggingface_hub does.

    Raises:
        UserError: nothing is there, or it is not clear which file is meant.
    """
    path = Path(where)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _files_of(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(where)):
        return [_from_hub(str(where), local_files_only=local_files_only)]
    raise UserError(f"{where}: not found; give a file of weights ({', '.join(_SUFFIXES)}), a folder or a hub id")


def _files_of(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values())
        return [folder / Path(name).name for name in sorted(names)]
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(found) != 1:
        raise UserError(f"{folder}: holds {len(found)} files of weights; name the one that is meant")
    return found


def _from_hub(model_id: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model_id, "model.safetensors", local_files_only=local_files_only))
    except Exception as error:  # the hub raises classes of several HTTP libraries
        logger.debug("%s is not to be had", model_id, exc_info=error)
        raise UserError(
            f"{model_id}: no such file or folder, and its model.safetensors is not in the Hugging Face cache; run "
            f"`hf download {model_id} model.safetensors`, or name a local file"
        ) from error


def read_weights(files: list[Path]) -> dict[str, Tensor]:
    """All tensors of safetensors or PyTorch files, float32, on the CPU, in memory of their own.

    Of PyTorch files the weights alone are read (``weights_only``); a dictionary around them (model, state_dict) and
    the prefix ``module.`` of parallel training are taken off.

    Raises:
        UserError: a file is not readable as weights.
    """
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            tensors |= _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
        except Exception as error:  # safetensors, zip and unpickling errors share no base class
            reason = str(error).split("\n")[0][:200]
            raise UserError(f"{path}: not readable as weights ({reason}); download or convert it again") from error
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    # Copied out of the mapped file, which may be replaced while the network lives.
    with safe_open(path, framework="pt") as file:
        return {name: _float32(file.get_tensor(name), copy=True) for name in file.keys()}  # noqa: SIM118


def _read_torch(path: Path) -> dict[str, Tensor]:
    content: Any = read_torch(path)
    for name in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError("it holds more, or something else, than named tensors")
    return {str(name).removeprefix("module."): _float32(value) for name, value in content.items()}


def _float32(tensor: Tensor, *, copy: bool = False) -> Tensor:
    return tensor.to(torch.float32, copy=copy) if tensor.is_floating_point() else tensor.clone()


_NAMED = 3
"""Names a message lists before it only counts."""


def take(
    wanted: Mapping[str, Tensor], name_in_file: Callable[[str], str], tensors: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """The ``tensors`` of a file under the names of ``wanted``, a part of a network's state.

    Args:
        wanted: what the network holds; only the shapes are read.
        name_in_file: the file's name for one of the network's.
        tensors: all that the file should bring, and nothing else.
        source: the file, for the message.

    Raises:
        UserError: names, as the file has or should have them, that are missing, surplus, or of another shape.
    """
    names = {ours: name_in_file(ours) for ours in wanted}
    misshapen = [
        f"{name} {_shape(tensors[name])} instead of {_shape(wanted[ours])}"
        for ours, name in names.items()
        if name in tensors and tensors[name].shape != wanted[ours].shape
    ]
    problems = {
        "missing": [name for name in names.values() if name not in tensors],
        "surplus": sorted(set(tensors) - set(names.values())),
        "of another shape": misshapen,
    }
    if any(problems.values()):
        told = "; ".join(f"{len(found)} {what}: {_listed(found)}" for what, found in problems.items() if found)
        raise UserError(f"{source}: the weights do not fit the network ({told}); give a file of the same architecture")
    return {ours: tensors[name] for ours, name in names.items()}


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
