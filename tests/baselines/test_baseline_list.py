"""The list of systems, and what every adapter must be without its upstream being there."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

from reliev3r.baselines import worker
from reliev3r.baselines.adapters import shared
from reliev3r.baselines.registry import ADAPTERS, NAMES, baseline_table, card
from reliev3r.cli import main
from reliev3r.core.errors import UserError

ENTRIES = ("name", "predicts", "code_licence", "weights_licence", "install", "weights", "paper")


def test_every_system_of_the_paper_is_there():
    assert {"cut3r", "vggt", "pi3", "mapanything", "mvdust3r", "flare", "anycam", "rayzer", "dust3r_pnp"} <= set(NAMES)
    assert "pi3x" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cards_are_complete(name):
    entry = card(name)
    assert all(entry[key] for key in ENTRIES)
    assert "cameras" in " ".join(entry["predicts"])


@pytest.mark.parametrize("path", [*sorted(ADAPTERS.glob("*.py")), ADAPTERS.parent / "worker.py"], ids=lambda p: p.stem)
def test_the_other_side_needs_numpy_alone(path):
    """The worker's interpreter has neither reliev3r nor, before an adapter asks for it, torch."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "reliev3r" not in {name.split(".")[0] for name in names}
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    allowed = {"numpy", "reliev3r_adapters", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in top} <= allowed


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_evaluated_or_unpickled(name):
    for node in ast.walk(ast.parse((ADAPTERS / f"{name}.py").read_text(encoding="utf8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads")
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node)


@pytest.mark.parametrize("name", NAMES)
def test_adapters_have_the_four_functions(name):
    module = importlib.import_module(f"reliev3r.baselines.adapters.{name}")
    wanted = {"build": 4, "prepare": 2, "run": 3, "decode": 2}
    for function, arguments in wanted.items():
        parameters = inspect.signature(getattr(module, function)).parameters.values()
        assert sum(p.default is p.empty for p in parameters) == arguments, f"{name}.{function}"


def test_the_alias_is_one_package():
    import reliev3r_adapters

    assert reliev3r_adapters.shared is shared
    assert worker.PACKAGE == "reliev3r_adapters"


def test_the_verb_lists_licences_and_what_is_found(capsys, tmp_path):
    (tmp_path / "CUT3R").mkdir()
    assert main(["baselines", "--checkouts", str(tmp_path)]) == 0
    listed = {block.split(":")[0]: block for block in capsys.readouterr().out.split("\n\n")}
    assert set(listed) == {"colmap", "colmap-global", *NAMES}
    assert "yes, package pycolmap" in listed["colmap"]
    assert "CC BY-NC 4.0" in listed["pi3"]
    assert f"yes, checkout {tmp_path / 'CUT3R'}" in listed["cut3r"]
    assert "found     no; install:" in listed["vggt"]


def test_packages_are_looked_for_in_the_named_interpreter(tmp_path):
    assert "yes, package pycolmap" in baseline_table(python=Path(sys.executable))
    with pytest.raises(UserError, match="no_python: is no Python interpreter"):
        baseline_table(python=tmp_path / "no_python")
