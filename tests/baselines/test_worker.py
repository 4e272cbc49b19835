"""A worker that crashes, hangs, runs out of memory or answers nonsense costs one line, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from fake_systems import capture, run_fake

from reliev3r.baselines.host import run_baseline
from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction

FAILURES = {
    "crash": ({"run": "raise ValueError('the weights\\nare of another network')"},
              "worker failed; its last words: ValueError: the weights are of another network"),
    "exit": ({"build": "raise SystemExit('no GPU')"}, "worker failed; its last words: SystemExit: no GPU"),
    "import": ({"build": "import a_package_that_nobody_has"}, "ModuleNotFoundError: No module named 'a_package_that"),
    "abort": ({"run": "import os, sys; print('nvcc says no', flush=True); os.abort()"},
              "worker died of SIGABRT; its last words: nvcc says no"),
    "killed": ({"run": "import os; os.kill(os.getpid(), 9)"},
               "worker died of SIGKILL, as the system does when memory runs out; it said nothing"),
    "memory": ({"run": "np.ones(8 * 2**30, np.uint8)"}, r"worker failed; its last words: .*MemoryError: Unable to"),
    "silent": ({"run": "import os; os._exit(0)"}, "worker ended without a result"),
    "version": ({"build": "import __main__; __main__.FORMAT = 'reliev3r-baseline/0'"},
                "answers in format reliev3r-baseline/0, this reliev3r reads reliev3r-baseline/1"),
    "not finite": ({"decode": "result['depth'][1, 2, 3] = np.nan"}, "depth has 1 of 96 values that are not finite"),
    "negative": ({"decode": "result['depth'][1, 2, 3] = -1"}, "depth has values that are not positive"),
    "views": ({"decode": "result['world_from_cam'] = np.eye(4)[None]"}, r"world_from_cam has the shape \(1, 4, 4\)"),
    "maps": ({"decode": "result['conf'] = np.ones((2, 8, 6))"}, r"conf has the shape \(2, 8, 6\)"),
    "missing": ({"decode": "del result['K']"}, "neither rays nor K"),
    "cameras": ({"decode": "del result['world_from_cam']"}, "lacks world_from_cam"),
    "mirrored": ({"decode": "result['world_from_cam'][1, 0, 0] = -1"}, "world_from_cam are not rigid"),
    "rays": ({"decode": "result['rays'] = np.full((2, 6, 8, 3), 0.5)"}, "rays do not have z = 1"),
    "focal": ({"decode": "result['K'][0, 0, 0] = 0"}, "focal length that is not positive"),
    "text": ({"decode": "result['depth'] = np.full((2, 6, 8), 'far')"}, "depth is of type <U3, not numbers"),
    "pickle": ({"decode": "result['depth'] = np.full((2, 6, 8), None)"}, "it holds objects, which are never unpickled"),
    "garbage": ({"build": """
                 import __main__, json
                 def write(folder, arrays, manifest):
                     open(folder + "/result.npz", "wb").write(b"PK garbage")
                     json.dump(manifest, open(folder + "/result.json", "w"))
                 __main__._write = write
                 """}, "result cannot be read"),
    "torn": ({"build": "import __main__; __main__._write = lambda folder, *_: open(folder + '/result.json', 'w')"},
             "result.json: not readable as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_one_line(case, tmp_path):
    bodies, message = FAILURES[case]
    with pytest.raises(UserError, match=message) as caught:
        run_fake(tmp_path, memory_gb=6, **bodies)
    assert "\n" not in str(caught.value)
    assert "fake" in str(caught.value) or case == "torn"


def test_the_log_keeps_the_whole_story(tmp_path):
    with pytest.raises(UserError):
        run_fake(tmp_path, build="print('loading')", run="1 / 0")
    log = (tmp_path / "log" / "fake.log").read_text()
    assert log.startswith("loading\nTraceback")
    assert log.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_hanging_worker_is_stopped_with_its_children(tmp_path):
    child = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with pytest.raises(UserError, match=r"no answer within 5 s; its last words: \d+"):
        run_fake(tmp_path, run=child, timeout_s=5)
    assert gone(int((tmp_path / "log" / "fake.log").read_text()))


def test_children_do_not_outlive_a_worker_that_ends(tmp_path):
    run_fake(tmp_path, run="import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)")
    assert gone(int((tmp_path / "log" / "fake.log").read_text()))


def gone(pid):
    """Whether the process ends long before it would by itself (600 s); one that nobody waited for counts as ended."""
    for _ in range(600):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_a_worker_does_not_outlive_its_host(tmp_path):
    host = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from fake_systems import run_fake
        run_fake(Path({str(tmp_path)!r}), run="import os, time; print(os.getpid(), flush=True); time.sleep(600)")
        """)
    process = subprocess.Popen([sys.executable, "-c", host])
    log = tmp_path / "log" / "fake.log"
    for _ in range(1200):
        if log.is_file() and log.read_text().endswith("\n"):
            break
        time.sleep(0.1)
    worker = int(log.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(worker)


def test_an_answer_becomes_a_reconstruction(tmp_path):
    decode = """
    result["conf"] = np.arange(96.0).reshape(2, 6, 8)
    result["world_from_cam"][1, 0, 3] = 2.0
    """
    start = time.monotonic()
    result = run_fake(tmp_path, decode=decode)
    around = time.monotonic() - start
    prediction = result.prediction
    assert prediction.depth.shape == (2, 6, 8)
    np.testing.assert_allclose(prediction.K[0], [[8, 0, 4], [0, 8, 3], [0, 0, 1]], atol=1e-4)
    np.testing.assert_allclose(result.K_original[0], [[32, 0, 16], [0, 32, 12], [0, 0, 1]], atol=1e-3)
    assert prediction.world_from_cam[1, 0, 3] == 2
    conf = prediction.conf.flatten()
    assert (conf.diff() > 0).all()
    assert 0 < conf.min() < 0.02
    assert 1.98 < conf.max() < 2
    assert result.predicts_depth
    assert result.found.all()
    assert result.meta["system"] == "fake"
    assert result.meta["weights"] == "random"
    assert result.meta["intrinsics"] == "predicted"
    assert 0 <= result.meta["seconds"] < around  # the network alone, not the start of its process
    assert 10e6 < result.meta["peak_rss_bytes"] < 500e6
    result.save(tmp_path / "saved")
    assert Reconstruction.load(tmp_path / "saved").meta == result.meta


def test_the_weights_of_a_folder_and_given_intrinsics_are_told(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.bin").write_bytes(b"one")
    first = run_fake(tmp_path / "a", weights=weights, run="inputs['K'] = np.eye(3)")
    (weights / "config.yaml").write_text("other")
    second = run_fake(tmp_path / "b", weights=weights)
    assert first.meta["weights"].startswith("weights sha256:")
    assert first.meta["weights"] != second.meta["weights"]
    assert (first.meta["intrinsics"], second.meta["intrinsics"]) == ("known", "predicted")


def test_equal_confidence_stays_equal(tmp_path):
    conf = run_fake(tmp_path, decode="result['conf'] = np.full((2, 6, 8), 7.0)").prediction.conf
    np.testing.assert_allclose(conf, 1)


def test_peak_memory_is_the_workers_own(tmp_path):
    ballast = np.ones(2**29, np.uint8)  # half a gigabyte of ours must not count
    assert run_fake(tmp_path).meta["peak_rss_bytes"] < ballast.nbytes


def test_cameras_alone_and_a_view_that_was_not_found(tmp_path):
    decode = """
    del result["depth"]
    result["size"] = np.array([6, 8])
    result["found"] = np.array([True, False])
    result["world_from_cam"][1] = np.nan
    """
    result = run_fake(tmp_path, decode=decode)
    assert not result.predicts_depth
    assert result.found.tolist() == [True, False]
    np.testing.assert_array_equal(result.prediction.world_from_cam[1], np.eye(4))
    assert result.image.shape == (2, 6, 8, 3)


def test_images_and_intrinsics_arrive_as_they_are(tmp_path, monkeypatch):
    run = "print(sorted(__import__('os').environ.get(k, '-') for k in ('PYTHONPATH', 'HF_HUB_OFFLINE')))"
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    run_fake(tmp_path, run=run, sizes={"depth": 2})
    assert (tmp_path / "log" / "fake.log").read_text() == "['-', '1']\n"


def test_too_few_views(tmp_path):
    with pytest.raises(UserError, match="worker failed; its last words: ValueError: fake needs at least 3 views"):
        run_fake(tmp_path, fewest=3)


def test_what_is_not_there_is_named(tmp_path):
    found = capture(tmp_path)
    with pytest.raises(UserError, match=r"unknown baseline 'colmapp'; known are .*vggt"):
        run_baseline("colmapp", found)
    with pytest.raises(UserError, match="nowhere: no such file or folder, given as --weights of vggt"):
        run_baseline("vggt", found, weights="/nowhere")
    with pytest.raises(UserError, match=r"/no/python: cannot be started .No such file"):
        run_baseline("vggt", found, python="/no/python")
