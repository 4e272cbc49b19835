"""What a command line would do up to the point where its verb begins to work: its words are read, nothing is run."""

import importlib

import pytest

from reliev3r.cli import VERBS, main


class Parsed(Exception):
    """The words were understood."""


@pytest.fixture
def understands(monkeypatch):
    """A function that fails on words after ``reliev3r`` which their verb does not understand."""
    for module in {importlib.import_module(f"reliev3r.cli.{name}") for name, _ in VERBS.values()}:
        for name in ("parse", "parse_with_settings"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, _stopped(getattr(module, name)))

    def check(words) -> None:
        try:
            code = main(list(words))
        except Parsed:
            return
        raise AssertionError(f"exit code {code}: reliev3r {' '.join(words)}")

    return check


def _stopped(parse):
    def wrapper(*arguments):
        parse(*arguments)
        raise Parsed

    return wrapper
