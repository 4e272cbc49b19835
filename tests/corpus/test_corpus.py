"""Every verb over hostile and unlucky files of every kind: it is right, told in one line, or warned of by name.

Each case is a child process with limits of time and memory. What is outside of the three outcomes: a traceback (or its
last line in other words), a hang, a crash, an error that names no file, something written or left outside of ``--out``,
half a file, markup in a page, control characters on the terminal, and files accepted that must be told.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from every_case import all_cases
from sound_files import write_files

HERE = Path(__file__).parent
CHEAP = "datasets,convert,verify-labels,report-labels,export-weights"
"""Verbs that cost hundredths of a second, whatever they are given."""


def outcomes(sound: Path, results: Path, kinds: str, verbs: str, share: str) -> list[dict]:
    """One line for each case and verb."""
    paths = [HERE.parents[1] / "src", HERE.parent, HERE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1",
                   "TMPDIR": str(results.parent)}  # fmt: skip
    command = [sys.executable, HERE / "children.py", sound, results, kinds, verbs, share, "40"]
    subprocess.run(list(map(str, command)), env=environment, check=True)
    return [json.loads(line) for line in results.read_text().splitlines()]


def wrong(rows: list[dict]) -> str:
    return "\n".join(
        f"{row['kind']}: {row['name']}: reliev3r {row['verb']}: {'; '.join(row['wrong'])}\n    {row['heard'][-300:]!r}"
        for row in rows if row["wrong"]
    )  # fmt: skip


def test_a_share_of_the_corpus(tmp_path) -> None:
    rows = outcomes(tmp_path / "sound", tmp_path / "results.jsonl", "all", CHEAP, "0/12")
    assert not wrong(rows), wrong(rows)
    assert len(rows) >= 30
    assert {"json", "path", "dataset", "depth"} <= {row["kind"] for row in rows}
    assert {row["rc"] for row in rows} >= {0, 2}


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_the_whole_corpus(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("whole")
    write_files(folder / "sound", run=True)
    kinds = Counter(case.kind for case in all_cases(folder / "sound"))
    rows = []
    for kind in kinds:
        rows += outcomes(folder / "sound", folder / f"{kind}.jsonl", kind, "all", "0/1")
    assert len(rows) >= 1500
    assert not wrong(rows), wrong(rows)
