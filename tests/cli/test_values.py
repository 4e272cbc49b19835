"""Bad values are one line and exit code 2; a reader that leaves early is no error."""

import subprocess
import sys

import pytest

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.settings import from_plain
from reliev3r.runs.fit import FitConfig


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fit", "photos", "--steps", "-3"], "steps must be at least 1, got -3"),
        (["train", "tiny-cpu", "--accumulate", "0"], "accumulate must be at least 1"),
        (["fit", "photos", "--image-size", "0"], "image_size must be from 16 to 4096, got 0"),
        (["fit", "photos", "--views", "1"], "views must be at least 2, got 1"),
        (["fit", "photos", "lr=nan"], "lr must be positive, got nan"),
        (["fit", "photos", "batch.tracks=0"], "tracks must be at least 1, got 0"),
        (["train", "tiny-cpu", "batch.views=8,2"], "views must be the fewest and the most"),
        (["adapt", "photos", "--model", "m", "--heldout-every", "-1"], "heldout_every must be at least 0, got -1"),
        (["train", "tiny-cpu", "stream_weight=2"], "stream_weight must be from 0 to 1, got 2"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(tmp_path, capsys, arguments, told) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("x.obj", "unknown format '.obj'"),
        ("x.glb", "x.html: exists already"),
        ("x.html", "x.html: exists already"),
        ("full", "scene.ply: exists already"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_any_work(tmp_path, capsys, out, told) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "scene.ply").touch()
    (tmp_path / "x.html").touch()
    assert main(["reconstruct", str(tmp_path / "never read"), "--out", str(tmp_path / out)]) == 2
    assert told in capsys.readouterr().err


def test_a_value_in_a_stored_run_names_the_file() -> None:
    with pytest.raises(UserError, match=r"RUN/config.json: steps must be at least 1"):
        from_plain(FitConfig, {"steps": -3}, source="RUN/config.json")


def test_help_into_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "reliev3r.cli", "fit", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 0)
