"""Published networks as experts: finding and fingerprinting their weights, loading those of transformers."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from reliev3r.errors import UserError
from reliev3r.files import file_hash

logger = logging.getLogger(__name__)


def weights_folder(expert: str, folder: str | None, model_id: str, *, download: bool) -> Path:
    """The local folder with ``config.json`` and safetensors weights: the given one, else from the Hugging Face hub.

    The hub's copy is read from its cache, also offline; with ``download`` it is fetched at the first use.

    Raises:
        UserError: the folder lacks a file, or the weights cannot be had; says what to do.
    """
    if folder is not None:
        path = Path(folder)
        if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
            raise UserError(f"{path}: needs config.json and *.safetensors of {model_id}")
        return path
    from huggingface_hub import snapshot_download

    patterns = ["config.json", "*.safetensors*"]
    try:
        return Path(snapshot_download(model_id, allow_patterns=patterns, local_files_only=not download))
    except Exception as error:  # the hub raises classes of several HTTP libraries
        logger.debug("%s is not to be had", model_id, exc_info=error)
        tried = "neither in the Hugging Face cache nor could they be downloaded; where there is a network run"
        raise UserError(
            f"{expert}: its weights are {tried if download else 'not in the Hugging Face cache; run'} "
            f"`hf download {model_id} --local-dir DIR`, then use {expert}:DIR"
        ) from error


def weights_file(expert: str, given: str | None, model_id: str, name: str) -> Path:
    """The file ``name``: the given one or the one in the given folder, else from the Hugging Face hub (or its cache).

    Raises:
        UserError: no such file, or the download failed; says what to do.
    """
    if given is not None:
        path = Path(given) / name if Path(given).is_dir() else Path(given)
        if not path.is_file():
            raise UserError(f"{path}: not found; get it with `hf download {model_id} {name} --local-dir DIR`")
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model_id, name))
    except Exception as error:  # the hub raises classes of several HTTP libraries
        logger.debug("download of %s failed", model_id, exc_info=error)
        raise UserError(
            f"{expert}: {name} is neither in the Hugging Face cache nor could it be downloaded; where there is a "
            f"network run `hf download {model_id} {name} --local-dir DIR`, then use {expert}:DIR"
        ) from error


def weights_hash(folder: Path) -> str:
    """One hash of the configuration and all weight files of a folder."""
    digest = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(f"{path.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()


def load_pretrained(class_name: str, folder: Path, *, device: str) -> Any:
    """A transformers model in evaluation mode, from safetensors in a local folder; never touches the network.

    Raises:
        UserError: transformers is not installed, or the folder holds another or an incomplete model.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError("this expert needs transformers: pip install 'reliev3r[experts]'") from error
    model_class = getattr(transformers, class_name)
    try:
        model, info = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever transformers and safetensors raise on foreign files
        raise UserError(f"{folder}: holds no readable {class_name} ({first_line(error)}); download it again") from error
    if info["missing_keys"] or info["mismatched_keys"]:  # transformers would go on with random weights
        raise UserError(f"{folder}: its weights do not fill a {class_name}; download the matching checkpoint")
    return model.eval().to(device)


def to_tensor(
    image: UInt8[np.ndarray, "h w 3"], *, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Float[Tensor, "1 3 h w"]:
    """RGB, normalised per channel."""
    return (rgb_tensor(image) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def rgb_tensor(image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    """RGB in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255


def first_line(error: Exception) -> str:
    """What an exception says, for an error message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
