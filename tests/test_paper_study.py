"""The paper's study: its commands are understood at every size, and a small cut of the rehearsal runs to its tables."""

import json
import re
import shlex
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - or it would make its list of fonts anew, beside another cache
import paper
import pytest
from miniatures import Sizes, write_miniatures
from paper_tables import BASELINES, OURS

from parsed_commands import understands  # noqa: F401 - a fixture
from reliev3r.cli import main
from reliev3r.evaluation.published import ALPHA, TABLES

PAGE = Path(__file__).parents[1] / "docs" / "reproduce.md"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Miniatures of all datasets."""
    root = tmp_path_factory.mktemp("data")
    write_miniatures(root, Sizes(scenes=4, frames=10, benchmark=1, others=1, few=8, width=96))
    return root


def words(data, out, **changes: str) -> list[str]:
    """What `make rehearsal` says, on these miniatures; a flag that is None is left out."""
    simulated = f"folder:{data}/simulated/{{name}}"
    flags = {
        "data": f"{data}/DL3DV-10K", "benchmark": f"{data}/DL3DV-Benchmark", "out": str(out), "size": "rehearsal",
        "depth-truth": f"wai:{data}/DL3DV-10K-WAI/{{scene}}",
        "benchmark-depth": f"wai:{data}/DL3DV-Benchmark-WAI/{{scene}}", "scannetpp": f"{data}/ScanNetPP",
        "depth": simulated, "semi-depth": simulated, "semi-intrinsics": "fov:66", **changes,
    }  # fmt: skip
    forms = {"ase": "ASE", "tartanair": "TartanAir", "mvs-synth": "MVS-Synth", "blendedmvs": "BlendedMVS"}
    given = [word for flag, value in flags.items() if value is not None for word in (f"--{flag}", value)]
    return [*given, "--synthetic", *(f"{form}:{data}/{name}" for form, name in forms.items())]


@pytest.mark.parametrize("size", paper.SIZES)
@pytest.mark.parametrize("gpus", ["1", "8"])
def test_every_command_is_understood(data, tmp_path, understands, capsys, size, gpus) -> None:  # noqa: F811
    paper.main([*words(data, tmp_path, size=size, gpus=gpus), "--workers", "2", "--plan"])
    commands = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith("#")]
    seeds = len(paper.SIZES[size].seeds)
    assert len(commands) == 6 + 6 + 8 * seeds + 3 + 4
    for command in commands:
        start, _, rest = command.partition("reliev3r.cli ")
        assert start == (
            "torchrun --nproc-per-node 8 -m " if rest.startswith("train") and gpus == "8" else "python -m "
        )
        understands(shlex.split(rest))


def test_the_rehearsal_fills_every_table(data, tmp_path, monkeypatch, capsys) -> None:
    ran, said = [], []

    def here(command, **options) -> tuple[int, str]:
        """In this process, which has loaded everything already."""
        ran.append(command[3:])
        said.append(capsys.readouterr().out)
        code = main(list(command[3:]))
        said.append(capsys.readouterr().out)
        return code, said[-1]

    monkeypatch.setattr(paper, "run_command", here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "study"
    paper.main(words(data, out))
    assert re.search(r"trains [\d,]+ of [\d,]+ parameters .* about 6 steps of .* of disk\n\$ python", "".join(said))
    content = json.loads((out / "study.json").read_text())
    text = (out / "study.md").read_text()
    for table in TABLES:
        for name, row in table.rows.items():
            found = content[table.title][name]
            assert found["paper"] == list(row)
            if name in OURS:
                assert all(len(found["here"][column]) == 1 for column in found["here"]), (table.title, name, found)
            else:
                assert found["note"].startswith(f"not run: --systems has no table for {BASELINES[name]}")
            marked = table.benchmark == "scannetpp" or name not in table.in_print
            assert f"| {name} | paper{' †' if marked else ''} |" in text
    assert "MVS network's depth" in text
    assert all((out / "figures" / str(k) / "figure.png").is_file() for k in range(1, 5))
    alphas = [content[ALPHA.title][name]["here"]["auc30"] for name in ALPHA.rows]
    assert len(alphas) == 4
    ran.clear()
    paper.main(words(data, out))
    assert not ran  # every stage is done


def test_what_an_input_is_missing_for_is_a_row_that_says_so(data, tmp_path, capsys) -> None:
    given = paper.arguments().parse_args(words(data, tmp_path / "out", **{"depth-truth": None, "scannetpp": None})[:-5])
    study = paper.Study(**{k: tuple(v) if isinstance(v, list) else v for k, v in vars(given).items() if k != "plan"})
    names = [stage.name for stage in study.stages()]
    assert not {"pi3-dagger-0", "paper-synthetic-0", "semi", "evaluate-scannetpp"} & set(names)
    paper.write_tables(study, {})
    text = (tmp_path / "out" / "study.md").read_text()
    for word in ("give --depth-truth", "give --synthetic", "not scored: give --scannetpp", "not scored yet"):
        assert word in text


def test_the_commands_of_the_page_are_understood(understands) -> None:  # noqa: F811
    text = re.sub(r" \\\n\s*", " ", PAGE.read_text(encoding="utf8"))
    lines = [line.strip().partition("  #")[0] for line in text.splitlines() if line.startswith("    ")]
    commands = [shlex.split(line) for line in lines]
    ours = [command[1:] for command in commands if command[0] == "reliev3r"]
    studies = [command[2:] for command in commands if command[:2] == ["python", "studies/paper.py"]]
    assert len(ours) > 5
    assert studies
    for command in ours:
        understands(command)
    for command in studies:
        paper.arguments().parse_args(command)
