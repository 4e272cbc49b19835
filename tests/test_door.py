"""`import reliev3r`: the frozen list of names, what importing costs, and what each verb takes and gives."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reliev3r as r3
from reliev3r.core.errors import UserError
from reliev3r.labels.expert import DepthMap, NoDepth
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.runs.api import _with_keywords
from reliev3r.runs.fit import FitConfig
from reliev3r.synthetic.capture import SynthConfig, write_capture
from reliev3r.training.recipes import tiny_cpu

DOCS = Path(__file__).resolve().parents[1] / "docs" / "python.md"
FUNCTIONS = ("load_capture", "load_model", "reconstruct", "label", "fit", "adapt", "train", "evaluate")
TYPES = ("Views", "Prediction", "Tracks", "PseudoLabels", "Loss", "Reconstruction")


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "capture"
    return write_capture(folder, SynthConfig(seed=3, views=3, width=240, height=180, span=20.0, supersample=1))


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# the list ------------------------------------------------------------------------------------------------------------


def test_the_names_are_frozen() -> None:
    assert tuple(r3.__all__) == (*FUNCTIONS, *TYPES, "__version__")
    assert set(r3.__all__) <= set(dir(r3))


def test_every_name_is_what_it_says() -> None:
    assert all(callable(getattr(r3, name)) and getattr(r3, name).__name__ == name for name in FUNCTIONS)
    assert all(isinstance(getattr(r3, name), type) for name in TYPES)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", r3.__version__)
    with pytest.raises(AttributeError, match="no attribute 'labels_of'; it has load_capture"):
        _ = r3.labels_of


def test_importing_the_door_loads_neither_torch_nor_numpy() -> None:
    heavy = "{'torch', 'numpy', 'cv2', 'importlib.metadata'} & set(sys.modules)"
    assert python(f"import sys, reliev3r; dir(reliev3r); print({heavy})") == "set()"


def test_importing_a_room_does_not_hide_the_verb_of_its_name() -> None:
    rooms = "import reliev3r.training.loop, reliev3r.evaluation.run, reliev3r as r3"
    api = "reliev3r.runs.api"
    assert python(f"{rooms}; print(r3.train.__module__, r3.evaluate.__module__)") == f"{api} {api}"


# the verbs (examples/ use the rest of them) --------------------------------------------------------------------------


def test_a_capture_takes_text_and_intrinsics(capture) -> None:
    opened = r3.load_capture(str(capture), views=2, intrinsics="fov:90")
    assert (len(opened.frames), opened.K_source) == (2, "fov:90")
    assert opened.frames[0].K[0, 0] == pytest.approx(120)  # half of 240 pixels, seen under 45 degrees


class Slanted:
    """Depth of one's own: an object instead of the name of an expert."""

    ambiguity = "scale"

    def fingerprint(self):
        return {"name": "slanted"}

    def inputs(self, frame, capture):
        return []

    def predict(self, image, frame, capture) -> DepthMap:
        return DepthMap.from_values(np.linspace(1, 2, 12).reshape(3, 4))


def test_labels_by_an_expert_of_ones_own(capture, tmp_path) -> None:
    opened = r3.load_capture(capture, intrinsics="fov:70")
    labels = r3.label(opened, str(tmp_path / "labels"), depth=Slanted())
    assert labels.depth(1).depth == pytest.approx(np.linspace(1, 2, 12).reshape(3, 4), rel=1e-4)
    assert labels.tracks.uv.shape[0] == 3
    assert labels.capture.K_source == "fov:70"  # not the file's, which a path would have
    assert labels.quality.verdict in ("good", "weak", "unusable")
    assert (labels.folder / "quality.json").is_file()
    by_path = r3.label(capture, tmp_path / "other", depth=NoDepth())
    assert by_path.capture.K_source == "cameras.json"
    assert not by_path.depth(0).valid.any()


def test_fit_takes_an_open_capture_as_it_is(capture, tmp_path) -> None:
    opened = r3.load_capture(capture, views=2, intrinsics="fov:60")
    run = r3.fit(opened, tmp_path / "run", depth="none", steps=1, prepare__image_size=48, force=True)
    assert run.reconstruction.names == opened.names
    K = run.reconstruction.K_original[0]
    assert float(K[0, 0]) == pytest.approx(opened.frames[0].K[0, 0], rel=1e-4)
    assert run.model.image_size == 48
    again = r3.reconstruct(opened, run.model)
    assert torch.allclose(again.prediction.depth, run.reconstruction.prediction.depth, rtol=1e-4)
    written = again.export(tmp_path / "transforms.json", capture=capture)
    assert written == [tmp_path / "transforms.json"]
    with pytest.raises(UserError, match="exists already"):
        again.export(tmp_path / "transforms.json")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prepare__image_siz": 48}, "prepare.image_size"),
        ({"stepz": 3}, "steps"),
        ({"steps": -3}, "steps must be at least 1, got -3"),
    ],
)
def test_a_setting_that_cannot_be_leaves_nothing_behind(capture, tmp_path, changes, told) -> None:
    for verb in (r3.fit, lambda *args, **given: r3.adapt("nowhere", *args, **given)):
        with pytest.raises(UserError, match=told):
            verb(capture, tmp_path / "run", **changes)
    with pytest.raises(UserError, match="choose one of tiny-cpu"):
        r3.train("tiny", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_part_of_the_settings_may_be_given_in_three_ways() -> None:
    wanted = FitConfig(prepare=PrepareConfig(image_size=48, heldout=0.2))
    by_name = {"prepare__image_size": 48, "prepare.heldout": 0.2}
    for changes in (by_name, {"prepare": {"image_size": 48, "heldout": 0.2}}, {"prepare": wanted.prepare}):
        assert _with_keywords(FitConfig(), changes, source="fit") == wanted
    start = tiny_cpu()
    assert _with_keywords(start, {"captures__data": ["a=b"]}, source="train").captures.data == ("a=b",)
    assert _with_keywords(start, {"network": start.network}, source="train") == start


def test_ctrl_c_ends_a_training_that_can_be_resumed(tmp_path) -> None:
    tiny = {
        "steps": 3, "network": {"dim": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 2, "camera_dim": 16},
        "stream__height": 32, "stream__width": 48, "batch__views": (2, 2), "batch__images": 2, "heldout_scenes": 1,
    }  # fmt: skip

    def interrupt(stage: str, done: float, total: float, what: str) -> None:
        if stage == "train" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        r3.train("tiny-cpu", str(tmp_path / "run"), report=interrupt, **tiny)
    assert r3.train("tiny-cpu", tmp_path / "run", resume=True, **tiny).steps == 3
    assert r3.load_model(tmp_path / "run" / "checkpoint").image_size == 48


def test_evaluate_wants_one_place_with_truth(capture) -> None:
    for places in ({}, {"capture": capture, "benchmark": "synthetic"}):
        with pytest.raises(UserError, match="either capture=FOLDER or benchmark=NAME"):
            r3.evaluate("colmap", **places)


# docs/python.md ------------------------------------------------------------------------------------------------------


def test_the_reference_describes_every_name_and_its_code_compiles() -> None:
    text = DOCS.read_text(encoding="utf8")
    assert [name for name in r3.__all__ if f"`{name}`" not in text] == []
    headings = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert {*FUNCTIONS, "Reconstruction"} <= headings
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= len(FUNCTIONS)
    for block in blocks:
        used = {
            node.attr
            for node in ast.walk(compile(block, str(DOCS), "exec", ast.PyCF_ONLY_AST))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "r3"
        }
        assert used <= set(r3.__all__), block
