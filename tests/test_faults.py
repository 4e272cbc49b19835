"""What a kill, a change of mind or another picture under the same name leaves behind."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.find_captures import CaptureTask
from reliev3r.data.video import FRAMES
from reliev3r.labels.store import load_labels
from reliev3r.runs.fit import FitConfig
from reliev3r.runs.run_folder import RunFolder
from reliev3r.training.captures import labelled_capture


@pytest.fixture
def video(tmp_path):
    import cv2

    file = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 10, (120, 90))
    for _ in range(4):
        writer.write(np.zeros((90, 120, 3), np.uint8))
    writer.release()
    return file


def test_a_run_killed_while_frames_are_chosen_is_started_again(video, tmp_path) -> None:
    out = tmp_path / "run"
    load_capture(video, cache=out)  # and then comes the kill, before the run begins
    (out / f".{FRAMES}.abcd1234").mkdir()  # or it came in the middle
    run = RunFolder(path=out, verb="fit", inputs={"capture": str(video)})
    with run.held():
        assert run.settings(FitConfig(), FitConfig(), resume=False) == FitConfig()
        assert not (out / f".{FRAMES}.abcd1234").exists()
    assert (out / FRAMES).is_dir()  # they are used once more
    (out / "notes.txt").write_text("mine")
    with run.held(), pytest.raises(UserError, match="not an empty folder"):
        run.settings(FitConfig(), FitConfig(), resume=False)


def test_frames_of_a_run_that_is_refused_do_not_stay(video, tmp_path, capsys) -> None:
    assert (
        main(["fit", str(video), "--out", str(tmp_path / "run"), "--depth", "none", "--intrinsics", "nowhere.json"])
        == 2
    )
    assert "nowhere.json" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_picture_replaced_after_labelling_is_not_prepared(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    world = rng.integers(0, 255, (25, 40, 3), np.uint8).repeat(6, 0).repeat(6, 1)
    for index in range(2):  # BMP: other pixels in as many bytes
        Image.fromarray(world[:120, 6 * index : 6 * index + 180]).save(tmp_path / "photos" / f"{index}.bmp")
    words = ["label", str(tmp_path / "photos"), "--out", str(tmp_path / "labels"), "--depth", "none"]
    assert main([*words, "--intrinsics", "fov:60", "--no-judge"]) == 0
    Image.new("RGB", (180, 120), "red").save(tmp_path / "photos" / "1.bmp")
    capture = labelled_capture(CaptureTask(name="a", path=tmp_path / "photos", out=tmp_path / "labels"))
    with pytest.raises(UserError, match=r"1\.bmp: has changed since it was labelled"):
        load_labels(tmp_path / "labels", capture)
    words = ["prepare", "tiny-cpu", "--data", f"{tmp_path / 'photos'}={tmp_path / 'labels'}", "--image-size", "56"]
    assert main(words) == 3


@pytest.mark.parametrize(("words", "code", "told"), [
    ("datasets > /dev/full", 2, "standard output: cannot be written (No space left on device); send it elsewhere"),
    ("datasets | true", 0, ""),
    ("datasets >&-", 0, ""),
])  # fmt: skip
def test_an_output_that_nobody_takes_is_no_traceback(words, code, told) -> None:
    command = f"set -o pipefail; {sys.executable} -m reliev3r.cli {words}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ)
    assert (ran.returncode, ran.stderr.strip()) == (code, f"error: {told}" if told else "")
