"""``fit``, ``adapt`` and ``reconstruct`` from the command line on a GPU that is not there: nothing mixes devices."""

import dataclasses
from pathlib import Path

import pytest
import torch

import builders
from pretend_cuda import cuda
from reliev3r.cli import main
from reliev3r.model.network import PRESETS, Reliev3R

pytestmark = pytest.mark.slow
SIZE = ["--image-size", "48"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    return builders.capture(tmp_path_factory.mktemp("data") / "capture", views=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base")
    Reliev3R(dataclasses.replace(PRESETS["tiny"], fov="shared")).save_pretrained(folder)
    return folder


def on_a_gpu(*arguments: object) -> int:
    """A command's exit code; whatever a GPU would refuse is an error."""
    with cuda() as audit:
        code = main([str(argument) for argument in arguments])
    assert not audit.faults
    assert any("predict.py" in wait for wait in audit.waits)  # it was there: results were fetched
    return code


def test_fit(footage, tmp_path) -> None:
    assert on_a_gpu("fit", footage, "--out", tmp_path / "run", "--depth", "simulated", "--steps", 2, *SIZE) == 0


def test_reconstruct(footage, base, tmp_path) -> None:
    assert on_a_gpu("reconstruct", footage, "--model", base, "--out", tmp_path / "scene.ply", *SIZE) == 0


def test_adapt(footage, base, tmp_path) -> None:
    arguments = ["adapt", "--model", base, footage, "--out", tmp_path / "run", "--depth", "simulated", "--steps", 2]
    assert on_a_gpu(*arguments, "--heldout-every", 4, "batch.views=3,4", *SIZE) in (0, 4)  # 4: it became no better
