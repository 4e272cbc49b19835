"""The training step for torch.compile: one graph without break, and no more compilations than views ask for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    script = Path(__file__).parent / "compiled_steps.py"
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("cameras", ["regressed", "solved"])
def test_the_whole_step_is_one_graph_whatever_the_views(found, cameras) -> None:
    assert found[cameras]["compiled"] == pytest.approx(found[cameras]["plain"], rel=1e-5)
    # Regressed: for the first number of views, then for any. Solved ones look at view after view: for each number.
    assert found[cameras]["graphs"] == ([1, 2, 2] if cameras == "regressed" else [1, 2, 3])


@pytest.mark.parametrize("recompute", ["none", "most"])
def test_no_kind_of_block_is_compiled_again_for_a_third_number_of_views(found, recompute) -> None:
    counts = found["blocks"][recompute]
    assert counts[-1] == counts[1] > 8  # torch's own limit, at which it would have given up
