"""`convert` takes a whole dataset: every scene a capture, stopped runs go on, no pixel copied that need not be."""

import json
import os

import numpy as np
from dl3dv_layout import HASHES, write_release, write_sample
from here_pool import HerePool
from layouts import LENS

from reliev3r.cli import main
from reliev3r.core.many.run import work_off
from reliev3r.core.progress import silent
from reliev3r.data.capture import load_capture
from reliev3r.data.convert_many import ConvertJob
from reliev3r.data.readers import list_scenes, open_scene

PINHOLE = dict.fromkeys(LENS, 0.0)


def test_every_scene_becomes_a_capture_with_all_that_is_known(room, tmp_path, here, capsys) -> None:
    write_release(tmp_path / "DL3DV-10K", room)
    caps = tmp_path / "CAPS"
    assert main(["convert", f"dl3dv:{tmp_path / 'DL3DV-10K'}", "--out", str(caps)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"3 of 3 scenes converted: {caps}\nnote: DL3DV: the true poses are COLMAP's")
    assert list_scenes(caps) == [f"1K/{name}" for name in HASHES[:3]]
    for name in HASHES[:3]:
        capture = load_capture(caps / "1K" / name)
        assert capture.ordered
        assert capture.names == tuple(f"frame_{number:05d}" for number in range(1, 5))
        np.testing.assert_allclose(capture.frames[0].K, room.K)
        about = json.loads((caps / "1K" / name / "cameras.json").read_text())
        (lens,) = about["rectified_from"]
        assert lens["model"] == "OPENCV"
        assert lens["distortion"][:4] == [LENS[key] for key in ("k1", "k2", "p1", "p2")]
        assert about["source"] == f"1K/{name}"
        original = open_scene(tmp_path / "DL3DV-10K", f"1K/{name}").capture.image(2)
        np.testing.assert_array_equal(capture.image(2), original)


def test_images_that_need_no_rectification_are_not_copied(room, tmp_path, here) -> None:
    write_release(tmp_path / "data", room, lens=PINHOLE)
    mode = 0o640
    for file in (tmp_path / "data").rglob("*.png"):
        file.chmod(mode)
    assert main(["convert", f"dl3dv:{tmp_path / 'data'}", "--out", str(tmp_path / "caps")]) == 0
    for name in HASHES[:3]:
        file = tmp_path / "caps" / "1K" / name / "images" / "frame_00001.png"
        original = tmp_path / "data" / "1K" / name / "images_4" / "frame_00001.png"
        assert file.samefile(original)
        assert not file.is_symlink()
        assert original.stat().st_mode & 0o777 == mode  # the dataset's own file is left alone
        assert "rectified_from" not in json.loads((tmp_path / "caps" / "1K" / name / "cameras.json").read_text())


def test_where_no_link_can_be_made_bytes_are_copied(room, tmp_path, here, monkeypatch) -> None:
    write_release(tmp_path / "data", room, lens=PINHOLE, scenes=1)

    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert main(["convert", f"dl3dv:{tmp_path / 'data'}", "--out", str(tmp_path / "cap")]) == 0
    for file in (tmp_path / "cap" / "images").iterdir():
        assert file.stat().st_nlink == 1
        assert file.read_bytes() == (tmp_path / "data" / "1K" / HASHES[0] / "images_4" / file.name).read_bytes()


def test_the_sample_of_hugging_face_is_the_same_dataset(room, tmp_path, here) -> None:
    write_sample(tmp_path / "sample", room)
    write_release(tmp_path / "release", room, scenes=2)
    assert main(["convert", str(tmp_path / "sample"), "--out", str(tmp_path / "caps")]) == 0
    for name in HASHES[:2]:
        capture, same = load_capture(tmp_path / "caps" / name), open_scene(tmp_path / "release", f"1K/{name}").capture
        assert capture.names == same.names
        assert capture.ordered
        np.testing.assert_array_equal(capture.image(1), same.image(1))
        np.testing.assert_allclose(capture.frames[1].K, same.frames[1].K)


def test_a_run_goes_on_and_a_bad_scene_stops_nobody(room, tmp_path, here, capsys) -> None:
    write_release(tmp_path / "data", room)
    bad = tmp_path / "data" / "1K" / HASHES[1] / "images_4" / "frame_00002.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:100])
    command = ["convert", f"dl3dv:{tmp_path / 'data'}", "--out", str(tmp_path / "caps")]
    assert main(command) == 3
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"failed: 1K/{HASHES[1]}: ")
    assert "frame_00002.png: truncated" in out[0]
    assert out[1] == f"2 of 3 scenes converted: {tmp_path / 'caps'}"
    first = tmp_path / "caps" / "1K" / HASHES[0] / "cameras.json"
    written = first.stat().st_mtime_ns
    left = tmp_path / "caps" / "1K" / f".{HASHES[1]}.abcd1234"  # of a run that was killed
    left.mkdir()
    bad.write_bytes(good)
    assert main(command) == 0
    assert first.stat().st_mtime_ns == written
    assert not left.exists()
    assert len(list_scenes(tmp_path / "caps")) == 3
    assert main([*command, "--no-truth"]) == 2
    assert "converted with other settings (truth)" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert main([*command[:-1], str(tmp_path / "other")]) == 2
    assert "holds no converted dataset" in capsys.readouterr().err
    assert main([*command, "--workers", "0"]) == 2


def test_a_scene_whose_worker_died_is_tried_again(room, tmp_path) -> None:
    write_release(tmp_path / "data", room)
    job = ConvertJob(kind="dl3dv", root=tmp_path / "data")
    tasks = job.tasks([f"1K/{name}" for name in HASHES[:3]], tmp_path / "caps")
    pool = HerePool(job, crash=[tasks[0].name, *[tasks[1].name] * 3])
    failures = work_off(tasks, pool, "scenes", silent)
    assert failures == {tasks[1].name: "its worker died, 3 times"}
    assert pool.seen.count(tasks[0].name) == 2
    assert list_scenes(tmp_path / "caps") == [tasks[0].name, tasks[2].name]


def test_workers_are_processes(room, tmp_path, capsys) -> None:
    write_release(tmp_path / "data", room, scenes=2)
    spec, caps = f"dl3dv:{tmp_path / 'data'}", tmp_path / "caps"
    assert main(["convert", spec, "--out", str(caps), "--workers", "1", "--views", "2"]) == 0
    assert len(list_scenes(caps)) == 2
    assert "scenes" in capsys.readouterr().err  # the bar
