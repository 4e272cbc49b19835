"""Published networks as experts: finding and fingerprinting their weights, loading those of transformers."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from reliev3r.core.arrays import read_torch
from reliev3r.core.errors import UserError, first_line
from reliev3r.core.files import file_hash

logger = logging.getLogger(__name__)

WITHOUT = "or go without a depth network: --depth none"
"""For people whose machine has neither the weights nor a network."""


def weights_folder(expert: str, folder: str | None, model_id: str, *, download: bool, instead: str = "") -> Path:
    """The local folder with ``config.json`` and safetensors weights: the given one, else from the Hugging Face hub.

    The hub's copy is read from its cache, also offline; with ``download`` it is fetched at the first use. ``instead``
    says in the error what goes without these weights.

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
            f"`hf download {model_id} --local-dir DIR`, then use {expert}:DIR{instead and '; ' + instead}"
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


class OneFileExpert(ABC):
    """A network whose weights are one file: found, hashed and read at the first use, once."""

    weights: str | None
    """The file, or the folder it lies in; None: where a subclass says."""
    device: str

    @abstractmethod
    def _find(self) -> Path:
        """The file; a UserError that says how to get it where there is none."""

    @abstractmethod
    def _load(self, file: Path) -> torch.nn.Module:
        """The network with the file's weights, on any device; a UserError where they are no such weights."""

    @cached_property
    def _file(self) -> Path:
        return self._find()

    @cached_property
    def _hash(self) -> str:
        return file_hash(self._file)

    @cached_property
    def _model(self) -> Any:
        return self._load(self._file).eval().to(self.device)


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
        state = read_torch(path)
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


@contextlib.contextmanager
def without_download(network: str, file: Path, device: str, **hub: Callable[..., Any]) -> Iterator[None]:
    """For packages that download while they build a network: meanwhile, ``hub`` stands for torch.hub's functions.

    The random numbers that networks start with are not taken from anybody else's: torch's generators are put back.

    Raises:
        UserError: the weights of ``file`` are another network's.
    """
    original = {name: getattr(torch.hub, name) for name in hub}
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        try:
            for name, answer in hub.items():
                setattr(torch.hub, name, answer)
            yield
        except RuntimeError as error:
            if "loading state_dict" not in str(error):  # but out of memory, say
                raise
            raise UserError(f"{file}: its weights do not fill a {network}; use the matching checkpoint") from error
        finally:
            for name, function in original.items():
                setattr(torch.hub, name, function)


def same_device(expert: str, package: torch.device, device: str) -> None:
    """For packages that choose their device as they are imported.

    Raises:
        UserError: it is another than ours.
    """
    if package.type != device:
        hide = "; CUDA_VISIBLE_DEVICES= (nothing) hides it" if package.type == "cuda" else ""
        raise UserError(f"{expert}: its package computes on {package.type} on this machine, not on {device}{hide}")


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
