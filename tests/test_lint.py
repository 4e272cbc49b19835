"""`make lint` sees what it is there to see: an undefined name in a copy of the source fails, in code and in shapes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TYPOS = {
    "a misspelt variable": "\n\ndef typo(values: Tensor) -> Tensor:\n    return valeus.mean()\n",
    "a misspelt function": "\n\ndef typo(values: Tensor) -> Tensor:\n    return weighted_maen(values, values)\n",
}


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / "src" / "reliev3r" / "geometry" / "statistics.py"
    target.parent.mkdir(parents=True)
    shutil.copy(ROOT / "src" / "reliev3r" / "geometry" / "statistics.py", target)
    return target


def lint(copy: Path) -> dict[str, int]:
    """Exit codes of the two commands of `make lint`, on one file (mypy looks into no other: that takes a minute)."""
    commands = {
        "ruff": ["ruff", "check", "--no-cache", "."],
        "mypy": ["mypy", "--follow-imports=skip", f"--cache-dir={copy.parents[3] / 'cache'}", str(copy)],
    }
    run = [sys.executable, "-m"]
    root = copy.parents[3]
    return {
        name: subprocess.run([*run, *command], cwd=root, capture_output=True).returncode
        for name, command in commands.items()
    }


def test_the_source_as_it_is_passes(copy) -> None:
    assert lint(copy) == {"ruff": 0, "mypy": 0}


@pytest.mark.parametrize("typo", TYPOS.values(), ids=TYPOS)
def test_an_undefined_name_fails(copy, typo) -> None:
    copy.write_text(copy.read_text() + typo)
    assert lint(copy) == {"ruff": 1, "mypy": 1}
