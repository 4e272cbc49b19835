"""What measures adaptation runs, at the size of a test: the study, and the benchmark of the verdict."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import builders

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def script(path: str, monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str((ROOT / path).parent))
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_before_weak_and_full(tmp_path, monkeypatch) -> None:
    study = script("studies/adaptation.py", monkeypatch)
    arguments = ["--size", "ci", "--out", str(tmp_path), "--seeds", "0"]
    study.main(arguments)
    table = (tmp_path / "adaptation.md").read_text()
    for state in ("before", "weak", "full"):
        assert f"| rooms | unseen rooms | {state} | 1 |" in table
    assert "simulated expert" in table
    monkeypatch.setattr(study, "adapt", lambda *a, **k: pytest.fail("run again"))
    study.main(arguments)


def test_every_case_is_judged_both_ways(tmp_path, monkeypatch) -> None:
    verdict = script("benchmarks/verdict.py", monkeypatch)
    for name, value in {"VIEWS": 8, "HELD": (1, 5), "SETS": 1}.items():
        monkeypatch.setattr(verdict, name, value)
    begun = builders.network(patch_size=8)
    begun.describe(image_size=64, precision="fp32", facts={})
    begun.save_pretrained(tmp_path / "begun")
    out = tmp_path / "verdict.json"
    verdict.main(["--out", str(out), "--work", str(tmp_path / "work"), "--begun", str(tmp_path / "begun"),
                  "--rooms", "1", "--steps", "2"])  # fmt: skip
    rows = json.loads(out.read_text())["rows"]
    assert {row["case"] for row in rows} == set(verdict.CASES)
    assert len(rows) == 10
    for row in rows:
        assert {row["truth"], row["verdict"]} <= {"better", "no change", "worse"}
        assert row["case"] != "nothing happens" or row["truth"] == row["verdict"] == "no change"
