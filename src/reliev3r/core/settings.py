"""Frozen dataclasses of settings: to and from plain JSON values, and changed by name."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from reliev3r.core.errors import UserError

T = TypeVar("T")


def require(settings: Any, **ranges: tuple[float, float]) -> None:
    """For ``__post_init__``: numbers of a dataclass (single, or in tuples) must lie in ranges; ``None`` always does.

    Raises:
        ValueError: one does not; names it and its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high:  # not a number is in no range
                limit = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
                raise ValueError(f"{name} must be {limit}, got {value}")


def to_plain(settings: Any) -> dict[str, Any]:
    """Nested dictionaries of a (nested) dataclass."""
    return dataclasses.asdict(settings)


def from_plain(kind: type[T], plain: Any, *, source: str) -> T:
    """The dataclass ``kind`` from nested dictionaries; fields that are absent take their defaults.

    Raises:
        UserError: a name that ``kind`` does not have, or a value that it refuses (``source`` says where it was read).
    """
    if not isinstance(plain, dict):
        raise UserError(f"{source}: settings must be an object, not {str(plain)[:40]!r}; restore the file")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(plain) - set(hints))
    if unknown:
        raise UserError(f"{source}: unknown setting {unknown[0]!r}; it was written by another version of reliev3r")
    try:
        return kind(**{name: _typed(hints[name], value, f"{source}: {name}") for name, value in plain.items()})
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: {error}") from error


def _typed(hint: Any, value: Any, source: str) -> Any:
    """JSON has neither dataclasses nor tuples, and anybody may have put anything into it."""
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, source=source)
    if isinstance(value, dict):  # of a part that may be absent
        parts = [part for part in typing.get_args(hint) if dataclasses.is_dataclass(part)]
        if parts:
            return from_plain(typing.cast(type, parts[0]), value, source=source)
    if typing.get_origin(hint) is tuple:
        value = _as_tuples(value)
    if not _fits(hint, value):
        raise UserError(f"{source} cannot be {str(value)[:40]!r}; restore the file")
    return value


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _fits(hint: Any, value: Any) -> bool:
    """Whether a plain value is of a field's type; whole numbers are numbers, truth values are not."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in inner
    if origin in (typing.Union, types.UnionType):
        return any(_fits(each, value) for each in inner)
    if origin is tuple:
        variadic = len(inner) == 2 and inner[1] is Ellipsis
        kinds = (inner[0],) * len(value) if variadic and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, kinds, value))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(inner[0], key) and _fits(inner[1], value[key]) for key in value)
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, hint) if isinstance(hint, type) else True


def flatten(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def refuse_changes(kept: T, given: T, default: T, *, source: str) -> None:
    """On resuming a run: a setting that differs from the run's own would silently do nothing, so it is an error.

    Raises:
        UserError: ``given`` changes a ``default`` to something else than what was ``kept``.
    """
    stored, usual, now = (flatten(to_plain(settings)) for settings in (kept, default, given))
    changed = [name for name, value in now.items() if value != usual[name] and value != stored[name]]
    if changed:
        name = changed[0]
        raise UserError(f"{source}: the run has {name} = {stored[name]!r}; drop that setting, or start a new run")


def with_changes(settings: T, changes: Mapping[str, Any], *, source: str) -> T:
    """Settings with some fields changed, by dotted names (``prepare.image_size``).

    Args:
        settings: a dataclass, nested ones included.
        changes: new values; texts, as a command line has them, are read as the field's type: ``none`` for nothing,
            ``2,8`` for several values.
        source: who asked, for the message.

    Raises:
        UserError: no such field (names the nearest), or a value that the field or its settings refuse.
    """
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        _put(nested, name.split("."), value, settings, f"{source}: no setting {name!r}{_nearest(name, settings)}")
    return _changed(settings, nested, source)


def _put(nested: dict[str, Any], path: list[str], value: Any, part: Any, complaint: str) -> None:
    """Enter one change into nested dictionaries, if there is such a field."""
    first, rest = path[0], path[1:]
    names = {field.name for field in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else set()
    if first not in names or bool(rest) != dataclasses.is_dataclass(getattr(part, first)):
        raise UserError(complaint)
    if rest:
        _put(nested.setdefault(first, {}), rest, value, getattr(part, first), complaint)
    else:
        nested[first] = value


def _changed(part: Any, nested: dict[str, Any], source: str, prefix: str = "") -> Any:
    """All changes of one dataclass at once: settings that only fit together are never seen half changed."""
    hints = typing.get_type_hints(type(part))
    new: dict[str, Any] = {}
    for name, value in nested.items():
        if dataclasses.is_dataclass(hints[name]):
            new[name] = _changed(getattr(part, name), value, source, f"{prefix}{name}.")
        else:
            where = f"{source}: {prefix}{name}={value}"
            new[name] = _read(hints[name], value, where) if isinstance(value, str) else value
    try:
        return dataclasses.replace(part, **new)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error


def _nearest(name: str, whole: Any) -> str:
    """Names that end alike come before names that look alike."""
    known = list(flatten(to_plain(whole)))
    last = name.rpartition(".")[2]
    alike = [each for each in known if each.rpartition(".")[2] == last]
    alike = alike or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not alike:
        lasts = {each.rpartition(".")[2]: each for each in known}
        alike = [lasts[each] for each in difflib.get_close_matches(last, lasts, n=1, cutoff=0.6)]
    return f"; did you mean {' or '.join(alike[:3])}?" if alike else "; --help-all lists them"


def _read(hint: Any, text: str, source: str) -> Any:
    """A text as a value of a field's type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in inner and text.lower() in ("none", "null"):
            return None
        return _read(next(each for each in inner if each is not type(None)), text, source)
    if origin is typing.Literal:
        if text not in inner:
            raise UserError(f"{source}: choose one of {', '.join(map(str, inner))}")
        return text
    if origin is tuple:
        parts = [part for part in text.strip("()[]").split(",") if part]
        if inner[-1] is not Ellipsis and len(parts) != len(inner):
            raise UserError(f"{source}: give {len(inner)} values, as 2,8")
        return tuple(_read(inner[0], part.strip(), source) for part in parts)
    if hint is bool:
        if text.lower() not in ("true", "false", "yes", "no"):
            raise UserError(f"{source}: give true or false")
        return text.lower() in ("true", "yes")
    try:
        return hint(text) if hint in (int, float) else text
    except ValueError as error:
        raise UserError(f"{source}: give {'a whole number' if hint is int else 'a number'}") from error
