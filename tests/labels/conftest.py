"""Captures shared by the tests of reliev3r.labels."""

from pathlib import Path

import pytest
from PIL import Image

from reliev3r.data.capture import load_capture


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """Five views of a room, 240 x 180, with truth: read-only."""
    from reliev3r.synthetic.capture import SynthConfig, write_capture

    config = SynthConfig(seed=1, views=5, width=240, height=180, span=40.0, supersample=1)
    return write_capture(tmp_path_factory.mktemp("rendered") / "capture", config)


@pytest.fixture
def photos(tmp_path):
    """Three small images in a folder, as a capture."""
    for index, name in enumerate(("a", "b", "c")):
        Image.new("RGB", (40, 30), (60 * index, 0, 0)).save(tmp_path / f"{name}.png")
    return load_capture(tmp_path)


@pytest.fixture(scope="session")
def captures(tmp_path_factory) -> Path:
    """A folder of six tiny captures: read-only."""
    from many_captures import write_captures

    return write_captures(tmp_path_factory.mktemp("many") / "captures", 6)


@pytest.fixture(scope="session")
def labelled(captures, tmp_path_factory) -> Path:
    """Their store, made in this process: read-only."""
    from many_captures import InlinePool, run

    store = tmp_path_factory.mktemp("many") / "store"
    index = run(captures, store, InlinePool())
    assert [entry["state"] for entry in index.values()] == ["done"] * 6
    return store
