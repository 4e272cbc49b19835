"""The notebooks are valid, small and stored without outputs, and run from top to bottom."""

import json
from pathlib import Path

import matplotlib
import pytest

import reliev3r as r3

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
PARAMETERS = {
    "tour": {"STEPS": 6, "IMAGE_SIZE": 48, "VIEWS": 4},
}
"""What the cell with the tag ``parameters`` is changed to, beside WORK."""


def cells(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf8"))["cells"]


def names_of(file: Path, work: Path) -> dict:
    """What is defined when every cell has run, with small parameters."""
    matplotlib.use("Agg")
    names: dict = {}
    for cell in cells(file):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{file.name}, {cell['id']}", "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= {"WORK": work, **PARAMETERS.get(file.stem, {})}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_valid_small_and_without_outputs(file) -> None:
    notebook = json.loads(file.read_text(encoding="utf8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in code) == 1
    assert file.stat().st_size < 20_000


def test_the_tour_runs_from_top_to_bottom(tmp_path) -> None:
    names = names_of(NOTEBOOKS / "tour.ipynb", tmp_path / "tour")
    assert isinstance(names["scene"], r3.Reconstruction)
    assert (tmp_path / "tour" / "scene.glb").is_file()
    assert len(names["table"].rows) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_runs_in_jupyter(tmp_path, monkeypatch) -> None:
    """Untouched, by a kernel of its own."""
    nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent / "src"))
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    written = {path.name for path in (tmp_path / "quickstart" / "results").iterdir()}
    assert {"images", "sparse", "transforms.json", "scene.ply"} <= written
    assert (tmp_path / "quickstart" / "scene.html").stat().st_size > 100_000
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 2
