"""What the verbs share: flags, NAME=VALUE for every other setting (as Hydra's users know it), progress bars, tables."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import re
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_type_hints

import tyro

from reliev3r.core.errors import UserError
from reliev3r.core.progress import Report
from reliev3r.core.settings import flatten, to_plain, with_changes

if TYPE_CHECKING:
    from rich.progress import TaskID


T = TypeVar("T")

Resume = Literal["no", "yes", "auto"]
"""Of the flag ``--resume``, which alone means yes."""

_CHANGE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)
PAIRS = ("--data", "--replay")
"""Flags that take several values, which look like NAME=VALUE."""
FORMER = {"--init": "--model", "--checkpoint": "--model", "--footage": None}
"""Spellings of version 0.1 (``None``: the value stands without a flag now); they still work in 0.2."""


def parse(kind: type[T], verb: str, argv: Sequence[str]) -> T:
    """The verb's options as its dataclass ``kind``; help and bad options end the program.

    Raises:
        UserError: a value that the settings refuse.
    """
    try:
        return tyro.cli(kind, prog=f"reliev3r {verb}", args=list(argv), config=(tyro.conf.FlagCreatePairsOff,))
    except ValueError as error:
        raise UserError(f"reliev3r {verb}: {error}") from error


def parse_with_settings(
    kind: type[Any],
    verb: str,
    argv: Sequence[str],
    settings: T,
    flags: Mapping[str, str],
    start: Callable[[Any, T], T] | None = None,
) -> tuple[Any, T]:
    """(the verb's options, its settings as flags and NAME=VALUE change them).

    Args:
        kind: dataclass of the flags.
        verb: as it is typed.
        argv: its arguments.
        settings: with every default.
        flags: which setting each flag is, by the flag's name in ``kind``; a flag that is ``None`` changes nothing.
        start: (options, settings) -> the settings that these flags and NAME=VALUE then change, for options that stand
            for many.

    Raises:
        UserError: an unknown setting, or a value that the settings refuse.
    """
    if "--help-all" in argv:
        print(all_settings(settings, verb))
        raise SystemExit(0)
    known = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(kind)} | {"--help"}
    rest, changes = split_changes(_resume_alone(in_new_words(argv)), verb, flatten(to_plain(settings)).keys(), known)
    given = parse(kind, verb, rest)
    settings = settings if start is None else start(given, settings)
    told = {setting: getattr(given, flag) for flag, setting in flags.items() if getattr(given, flag) is not None}
    return given, with_changes(settings, {**told, **changes}, source=f"reliev3r {verb}")


def split_changes(
    argv: Sequence[str], verb: str, settings: Collection[str], flags: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """(what is left for the flags, changed settings by name).

    Args:
        argv: the words after the verb; a setting may stand anywhere among them.
        verb: for messages.
        settings: all names of settings.
        flags: all flags, with their dashes.

    Raises:
        UserError: a setting that is written like a flag.
    """
    rest: list[str] = []
    changes: dict[str, str] = {}
    flag, since = "", 0
    for word in argv:
        if word.startswith("--"):
            flag, since = word.partition("=")[0], 0
            name = flag[2:].replace("-", "_")
            if "." in name or (flag not in flags and name in settings):
                raise UserError(f"reliev3r {verb}: {flag} is no flag; write {name}=VALUE")
        else:
            since += 1
        change = None if word.startswith("-") else _CHANGE.fullmatch(word)
        is_value = flag in PAIRS or (flag in flags and since == 1)  # of the flag before it
        if change is None or (is_value and change[1] not in settings):
            rest.append(word)
        else:
            changes[change[1]] = change[2]
    return rest, changes


def in_new_words(argv: Sequence[str]) -> list[str]:
    """Arguments with former spellings replaced; a line says so."""
    words: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name not in FORMER:
            words.append(word)
            continue
        new = FORMER[name]
        print(f"note: {name} is {new or 'written without a flag'} now", file=sys.stderr)
        words += [f"{new}{equals}{value}"] if new else [value] if equals else []
    return words


def _resume_alone(argv: Sequence[str]) -> list[str]:
    """``--resume`` without a value is ``--resume yes``."""
    words: list[str] = []
    for word, following in zip_longest(argv, argv[1:]):
        words += ["--resume", "yes"] if word == "--resume" and following not in get_args(Resume) else [word]
    return words


def resume_of(word: Resume) -> bool | Literal["auto"]:
    """What the flag means."""
    return "auto" if word == "auto" else word == "yes"


def all_settings(settings: Any, verb: str) -> str:
    """Every setting with its default and what it says, a line or two each."""
    told = descriptions(type(settings))
    lines = [f"Settings of `reliev3r {verb}`, written NAME=VALUE (none: nothing; 2,8: several values)", ""]
    for name, value in flatten(to_plain(settings)).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else value
        lines.append(f"{name}={shown}")
        lines += textwrap.wrap(told.get(name, ""), 112, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def descriptions(kind: type, prefix: str = "") -> dict[str, str]:
    """The text below each field in the source of a dataclass and of those nested in it, by dotted name."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if dataclasses.is_dataclass(owner):
            found |= {prefix + name: text for name, text in _below_fields(owner).items()}
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            found |= descriptions(hints[field.name], f"{prefix}{field.name}.")
    return found


def _below_fields(kind: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:]):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore[attr-defined]
    return found


def write_table(table: Any, out: Path) -> None:
    """``scores.json`` and ``scores.md``."""
    from reliev3r.core.files import atomic_path, write_json

    write_json(out / "scores.json", table.to_json())
    with atomic_path(out / "scores.md") as temporary:
        temporary.write_text(table.to_markdown(), encoding="utf8")


def configure_logging() -> None:
    """Our own log lines from INFO on, others' from WARNING, on standard error."""
    from rich.console import Console
    from rich.logging import RichHandler

    handler = RichHandler(console=Console(stderr=True), show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("reliev3r").setLevel(logging.INFO)


@contextmanager
def progress_bars() -> Iterator[Report]:
    """One bar a stage, with rate and time left, on standard error; into a file a line a minute instead."""
    if not sys.stderr.isatty():
        yield progress_lines(lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    columns = (
        progress.TextColumn("{task.description:<9}", table_column=Column(min_width=9, no_wrap=True)),
        progress.BarColumn(bar_width=24), progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[what]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )  # fmt: skip
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: float, total: float, what: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, what=what)
            bars.update(tasks[stage], completed=done, total=total, what=what)

        yield report


def progress_lines(
    write: Callable[[str], None], *, every: float = 60.0, clock: Callable[[], float] = time.monotonic
) -> Report:
    """For log files: a line when a stage begins, when it is done, and every so many seconds in between.

    One that begins again once it is done (the next capture) is timed anew, and heard of if it takes that long. One that
    was done and has found more to do goes on.
    """
    begun: dict[str, float] = {}
    told: dict[str, float] = {}
    reached: dict[str, float] = {}
    finished: set[str] = set()
    again: set[str] = set()

    def report(stage: str, done: float, total: float, what: str) -> None:
        now, complete = clock(), total > 0 and done >= total
        if stage in finished and not complete:
            finished.remove(stage)
            if done < reached[stage]:
                again.add(stage)
                begun[stage] = told[stage] = now
        begun.setdefault(stage, now)
        reached[stage] = done
        if complete and (stage in finished or stage in again):
            finished.add(stage)
            return
        if not complete and stage in told and now - told[stage] < every:
            return
        if complete:
            finished.add(stage)
        told[stage] = now
        again.discard(stage)
        elapsed = now - begun[stage]
        left = f", {_duration(elapsed * (total - done) / done)} left" if 0 < done < total and elapsed > 0 else ""
        rate = f", {done / elapsed:.3g}/s" if done > 0 and elapsed > 0 else ""
        told_what = f" ({what})" if what else ""
        write(f"{stage}: {_count(done)} of {_count(total)}, {_duration(elapsed)}{rate}{left}{told_what}")

    return report


def _count(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:g}"


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"
