"""Networks to use or to start from: our own checkpoints and those of others (docs/weights.md)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reliev3r.errors import UserError
from reliev3r.files import file_hash
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.weights.files import split_spec, weight_files
from reliev3r.model.weights.start import dinov2_encoder, refuse_dinov3, vggt_start

STARTS = {"vggt": vggt_start, "dinov2": dinov2_encoder, "dinov3": refuse_dinov3}
"""Weights that fill a part of a network; the rest is random."""


def load_network(checkpoint: Path | str) -> Reliev3R:
    """A whole network, every tensor of which must fit; nothing is downloaded.

    Args:
        checkpoint: a folder written by ``save_pretrained`` (``config.json`` + ``model.safetensors``), or ``pi3:`` and
            a file, a folder or a hub id that is in the Hugging Face cache.

    Raises:
        UserError: it is not a checkpoint, or its weights do not fit.
    """
    if split_spec(str(checkpoint))[0] is not None:
        return Reliev3R.from_pretrained(str(checkpoint), local_files_only=True)
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


def brings_sizes(init: str) -> bool:
    """Whether ``init`` is a whole network, whose own sizes and weights replace those of a preset."""
    return init != "random" and split_spec(init)[0] not in STARTS


def initial_network(init: str, config: NetworkConfig) -> Reliev3R:
    """The network that a training starts from; the caller seeds what is random.

    Args:
        init: ``random``; ``dinov2:`` (the encoder) or ``vggt:`` (encoder and decoder) and a file, a folder or a hub id
            in the cache; or whatever :func:`load_network` takes.
        config: the sizes, unless ``init`` brings its own.

    Raises:
        UserError: the weights cannot be had, or do not fit ``config``.
    """
    kind, where = split_spec(init)
    if brings_sizes(init):
        return load_network(init)
    return Reliev3R(config) if kind is None else STARTS[kind](config, where)


def checkpoint_hash(checkpoint: Path | str) -> str:
    """SHA-256 of the checkpoint's weights, in hexadecimal; of several files, of their hashes in order."""
    kind, where = split_spec(str(checkpoint))
    files = [Path(where) / "model.safetensors"] if kind is None else weight_files(where)
    hashes = [file_hash(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
