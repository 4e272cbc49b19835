"""Networks by name, one way for all verbs: our own checkpoints, and those of other systems (docs/weights.md).

A name is ``reliev3r-tiny`` (the network that comes with the package), the folder of a checkpoint, or a prefix and where
the weights are: ``pi3:PATH``, ``vggt:PATH``, ``vggt-omega:PATH``, ``mapanything:PATH``, ``da3:PATH``; PATH is a file, a
folder or an id in the Hugging Face cache (of Omega no id, for its repository holds several networks). A training may
also fill *parts* of a new network (``--init-from``) with DINOv2's weights or VGGT's.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from reliev3r.core.errors import UserError, first_line
from reliev3r.core.files import file_hash, read_json, refuse_no_file
from reliev3r.model.foreign.base import ForeignNetwork
from reliev3r.model.foreign.da3 import load_da3
from reliev3r.model.foreign.mapanything import load_mapanything
from reliev3r.model.foreign.vggt import load_vggt
from reliev3r.model.foreign.vggt_omega import load_vggt_omega
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.weights.files import weight_files
from reliev3r.model.weights.init_from import dinov2_encoder, vggt_start
from reliev3r.model.weights.pi3 import load_pi3

FOREIGN: dict[str, Callable[[str], ForeignNetwork]] = {
    "vggt": load_vggt, "vggt-omega": load_vggt_omega, "mapanything": load_mapanything, "da3": load_da3,
}  # fmt: skip
"""Networks that run in their own code; their packages are imported when asked for."""
Model = Reliev3R | ForeignNetwork
"""A network that was loaded."""
STARTS: dict[str, Callable[[NetworkConfig, str], Reliev3R]] = {"vggt": vggt_start, "dinov2": dinov2_encoder}
"""Weights that fill a part of a network of ours; the rest is random."""
RANDOM = "random"
"""As a name: a new network."""
FILES = ("config.json", "model.safetensors")
_TYPES = {"F64", "F32", "F16", "BF16"}
"""Types of safetensors that weights may have; integers are quantised ones or something else."""
PACKAGED = "reliev3r-tiny"
"""As a name: the network that comes with this package (its card: ``reliev3r/weights/README.md``)."""
_WEIGHTS = Path(__file__).parent.parent / "weights"


def split_name(name: str) -> tuple[str | None, str]:
    """``pi3:PATH`` as (pi3, PATH); a plain folder as (None, itself)."""
    kind, colon, where = name.partition(":")
    if name == PACKAGED:
        return None, str(_WEIGHTS)
    return (kind, where) if colon and kind in {"pi3", *FOREIGN} else (None, name)


def load_model(name: Path | str) -> Reliev3R | ForeignNetwork:
    """A whole network that maps Views to a Prediction, in evaluation mode; nothing is downloaded.

    Raises:
        UserError: the weights or the system's package cannot be had, or the weights do not fit.
    """
    kind, where = split_name(str(name))
    if kind not in FOREIGN:
        return load_network(name).eval()
    network = FOREIGN[kind](where)
    network.recall(weight_files(where)[0])
    return network.eval()


def load_network(name: Path | str) -> Reliev3R:
    """A whole network of our own class, every tensor of which must fit: a checkpoint's folder, or ``pi3:``.

    Raises:
        UserError: it is not a checkpoint, or its weights do not fit.
    """
    if str(name).partition(":")[0] in STARTS and not Path(name).exists():
        raise UserError(f"{name}: fills a part of a network of ours, it is no whole one; give it as --init-from {name}")
    kind, where = split_name(str(name))
    if kind == "pi3":
        return _with_their_licence(load_pi3(where))
    if kind is not None:
        raise UserError(f"{name}: gives no whole network of ours; name the folder of a checkpoint, or pi3:PATH")
    folder = Path(where)
    for file in FILES:
        if not (folder / file).is_file():
            raise UserError(f"{folder / file}: not found; a checkpoint is a folder with {' and '.join(FILES)}")
    try:
        _refuse_other_weights(folder)
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's mixin prints where it reads from
            network = Reliev3R.from_pretrained(folder, strict=True, local_files_only=True)
        damaged = [name for name, value in network.state_dict().items() if not bool(value.sum().isfinite())]
        if damaged:
            raise ValueError(f"{damaged[0]} of model.safetensors is not finite; restore it")
    except Exception as error:  # safetensors, JSON and shape errors share no base class
        raise UserError(f"{folder}: the checkpoint cannot be loaded ({first_line(error)})") from error
    return network if str(name) == PACKAGED else _with_their_licence(network)


def _refuse_other_weights(folder: Path) -> None:
    """What ``config.json`` describes must be of the size of the weights beside it, before memory is taken for it; and
    these must be numbers that can be weights, for PyTorch would make some of any others."""
    refuse_no_file(folder / "model.safetensors")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        parts = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        stored = sum(math.prod(part.get_shape()) for part in parts.values())
        kinds = {name: part.get_dtype() for name, part in parts.items()}
    with torch.device("meta"):
        network = Reliev3R(read_json(folder / "config.json"))
    described = sum(parameter.numel() for parameter in network.parameters())
    if described > 1.5 * stored + 1e6:
        raise UserError(f"config.json describes {described:,} weights, model.safetensors holds {stored:,}")
    for name, _ in network.named_parameters():
        if kinds.get(name, "F32") not in _TYPES:
            raise UserError(f"{name} of model.safetensors is of type {kinds[name]}, which holds no weights; restore it")


def initial_network(model: str, config: NetworkConfig, *, init_from: str | None = None) -> Reliev3R:
    """The network that a training starts from; the caller seeds what is random.

    Args:
        model: ``random``, or a whole network as :func:`load_network` takes it, with sizes of its own.
        config: the sizes of a random one.
        init_from: weights that fill a part of a random one (:data:`STARTS`).

    Raises:
        UserError: the weights cannot be had, do not fit ``config``, or both kinds are asked for.
    """
    if model != RANDOM:
        if init_from is not None:
            raise UserError(f"--init-from {init_from}: --model {model} brings all weights; drop one of the two")
        return load_network(model)
    if init_from is None:
        return Reliev3R(config)
    kind, _, where = init_from.partition(":")
    if kind not in STARTS or not where:
        raise UserError(
            f"--init-from {init_from}: give dinov2:PATH (fills the encoder) or vggt:PATH (encoder and decoder); "
            "a whole network is --model"
        )
    return _with_their_licence(STARTS[kind](config, where))


def _with_their_licence(network: Reliev3R) -> Reliev3R:
    """Weights that were read keep the licence that they had, whatever they are trained on next."""
    network.licence = "other"
    return network


def weights_hash(name: Path | str) -> str:
    """SHA-256 of the weights that ``name`` stands for, in hexadecimal; of several files, of their hashes in order.

    Raises:
        UserError: there are none.
    """
    kind, where = split_name(str(name))
    files = weight_files(where) if kind is not None else [Path(where) / "model.safetensors"]
    if not files[0].is_file():
        raise UserError(f"{files[0]}: not found; a checkpoint is a folder with {' and '.join(FILES)}")
    hashes = [file_hash(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
