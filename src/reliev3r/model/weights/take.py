"""Fitting named tensors of a file to the tensors of a network: every one must be there, and of its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from reliev3r.errors import UserError

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
