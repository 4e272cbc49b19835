"""Frozen dataclasses of settings to and from plain JSON values."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from reliev3r.core.errors import UserError

T = TypeVar("T")


def to_plain(settings: Any) -> dict[str, Any]:
    """Nested dictionaries of a (nested) dataclass."""
    return dataclasses.asdict(settings)


def from_plain(kind: type[T], plain: dict[str, Any], *, source: str) -> T:
    """The dataclass ``kind`` from nested dictionaries; fields that are absent take their defaults.

    Raises:
        UserError: a name that ``kind`` does not have, or a value that it refuses (``source`` says where it was read).
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(plain) - set(hints))
    if unknown:
        raise UserError(f"{source}: unknown setting {unknown[0]!r}; it was written by another version of reliev3r")
    try:
        return kind(**{name: _typed(hints[name], value, source) for name, value in plain.items()})
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def _typed(hint: Any, value: Any, source: str) -> Any:
    """JSON has neither dataclasses nor tuples."""
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, source=source)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def refuse_changes(kept: T, given: T, default: T, *, source: str) -> None:
    """On resuming a run: a flag that differs from the run's own setting would silently do nothing, so it is an error.

    Raises:
        UserError: ``given`` changes a ``default`` to something else than what was ``kept``.
    """
    stored, usual, now = (flatten(to_plain(settings)) for settings in (kept, default, given))
    changed = [name for name, value in now.items() if value != usual[name] and value != stored[name]]
    if changed:
        name = changed[0]
        raise UserError(f"{source}: the run has {name} = {stored[name]!r}; drop that flag, or start a new run")
