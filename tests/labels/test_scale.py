"""Many captures: the same bytes whoever labels them and whatever is killed on the way."""

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from many_captures import JOB, InlinePool, Sabotaged, contents, label_all, run, write_captures
from PIL import Image

from reliev3r import cli
from reliev3r.core.errors import UserError
from reliev3r.core.many.local import Crashed, LocalPool, Progressed
from reliev3r.data.find_captures import find_captures
from reliev3r.labels.many.index import read_index, write_index
from reliev3r.labels.many.run import label_store
from reliev3r.labels.store import load_tracks
from reliev3r.labels.verify_store import verify


@pytest.fixture
def few(captures, tmp_path) -> Path:
    """Three of the captures, to be changed."""
    for name in ("c000", "c001", "c002"):
        shutil.copytree(captures / "part0" / name, tmp_path / "few" / name)
    return tmp_path / "few"


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (extra: cluster)")


# --- which captures -------------------------------------------------------------------------------------------------


def test_one_capture_is_no_store(captures, photos, tmp_path):
    assert find_captures(captures / "part0" / "c000", tmp_path / "out") is None  # cameras.json
    assert find_captures(captures / "part0" / "c000" / "images", tmp_path / "out") is None
    assert find_captures(tmp_path / "nothing here", tmp_path / "out") is None  # load_capture names it
    (tmp_path / "walk.mp4").write_bytes(b"")
    assert find_captures(tmp_path / "walk.mp4", tmp_path / "out") is None


def test_captures_of_a_folder(tmp_path):
    for file in (
        "a/x.jpg",
        "deep/er/b/images/x.png",
        "c/cameras.json",
        "notes/readme.md",
        ".hidden/x.jpg",
        "out/x.jpg",
        "old/frames/x.jpg",
        "old/manifest.json",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    (tmp_path / "walk.MP4").write_bytes(b"")
    tasks = find_captures(tmp_path, tmp_path / "out")
    assert [task.name for task in tasks] == ["a", "c", "deep/er/b", "walk.MP4"]
    assert tasks[2].path == tmp_path / "deep/er/b"
    assert tasks[2].out == tmp_path / "out" / "deep/er/b"


def test_a_list_of_captures(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("# mine\nscenes/b  # good\n\n../elsewhere/c\n/abs/d\n")
    monkeypatch.chdir(tmp_path)
    tasks = find_captures("list.txt", "out")
    assert [task.name for task in tasks] == ["c", "d", "scenes/b"]
    assert [task.path for task in tasks] == [tmp_path.parent / "elsewhere/c", Path("/abs/d"), tmp_path / "scenes/b"]
    (tmp_path / "list.txt").write_text("x/a\n../a\n/b/A\n")
    with pytest.raises(UserError, match=r"are both named 'A'"):
        find_captures("list.txt", "out")
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="lists no capture"):
        find_captures("list.txt", "out")


def test_a_folder_without_captures(tmp_path):
    with pytest.raises(UserError, match="no captures in it"):
        find_captures(tmp_path, tmp_path / "out")


# --- the same bytes -------------------------------------------------------------------------------------------------


def test_two_processes_one_of_them_killed(captures, labelled, tmp_path):
    pool = Sabotaged(LocalPool(JOB, 2))
    run(captures, tmp_path / "store", pool)
    assert (pool.left, pool.crashed) == (0, 1)
    assert contents(tmp_path / "store") == contents(labelled)


@needs_ray
def test_local_ray_with_an_actor_killed(captures, labelled, tmp_path):
    from reliev3r.core.many.cluster import RayPool

    pool = Sabotaged(RayPool(JOB, 1, address="local"))
    run(captures, tmp_path / "store", pool)
    assert (pool.left, pool.crashed) == (0, 1)
    assert contents(tmp_path / "store") == contents(labelled)


class Lossy:
    """A pool whose second worker takes a capture with it, and never comes back."""

    def __init__(self):
        self._pool, self._lost = InlinePool(), None
        self.ready = (1, 0)

    def submit(self, slot, task) -> None:
        if slot == 1:
            self._lost = task
        else:
            self._pool.submit(slot, task)

    def events(self):
        if self._lost is not None:
            self._lost, self.ready = None, (0,)
            return [Crashed(slot=1, reason="its node is gone")]
        return self._pool.events()

    def close(self) -> None:
        pass


def test_what_a_lost_worker_had_is_done_by_another(captures, labelled, tmp_path):
    run(captures, tmp_path / "store", Lossy())
    assert contents(tmp_path / "store") == contents(labelled)


@needs_ray
@pytest.mark.slow
def test_a_node_that_is_lost_for_good_does_not_stop_the_others(captures, labelled, tmp_path):
    from ray.cluster_utils import Cluster

    from reliev3r.core.many.cluster import RayPool

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)

    class Losing(Sabotaged):
        def events(self):
            found = self._pool.events()
            if self.left and len(self._pool.ready) == 2 and any(isinstance(event, Progressed) for event in found):
                self.left -= 1
                cluster.remove_node(second, allow_graceful=False)
            return found

    try:
        pool = Losing(RayPool(JOB, 2, address=cluster.address))
        run(captures, tmp_path / "store", pool)
        assert pool.left == 0
        assert contents(tmp_path / "store") == contents(labelled)
    finally:
        cluster.shutdown()


def test_killed_at_random_moments(captures, labelled, tmp_path):
    store, rng = tmp_path / "store", random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["many_captures"])
    kills = 0
    for _ in range(12):
        process = context.Process(target=label_all, args=(captures, store))
        process.start()
        process.join(0.05 if kills == 0 else rng.uniform(0, 0.5))  # the first is killed while it imports
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills >= 6
    run(captures, store, InlinePool())
    assert contents(store) == contents(labelled)


def test_a_rerun_changes_nothing_and_labels_nothing(captures, labelled, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(labelled, store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.npz")}
    run(captures, store, InlinePool())
    assert contents(store) == contents(labelled)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.npz")} == before


def test_neither_paths_nor_times_in_a_store(labelled, captures):
    for name, content in contents(labelled).items():
        assert str(captures).encode() not in content, name
        assert str(labelled).encode() not in content, name
        assert time.strftime("%Y-%m").encode() not in content, name


# --- what depends on what -------------------------------------------------------------------------------------------


def changed_parts(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name) and name.endswith(".npz")}


def test_a_change_invalidates_exactly_what_depends_on_it(captures, labelled, tmp_path):
    root, store = tmp_path / "captures", tmp_path / "store"
    shutil.copytree(captures, root)
    shutil.copytree(labelled, store)
    first = contents(store)

    image = root / "part0" / "c001" / "images" / "2.png"
    Image.fromarray(np.asarray(Image.open(image)) // 2 + 64).save(image)
    index = run(root, store, InlinePool())
    second = contents(store)
    assert changed_parts(first, second) == {"part0/c001/tracks.npz", "part0/c001/depth/2.npz"}
    assert index["part0/c001"] != read_index(labelled)["part0/c001"]

    np.save(root / "part0" / "c003" / "maps" / "0.npy", np.full((18, 24), 2.0))
    run(root, store, InlinePool())
    third = contents(store)
    assert changed_parts(second, third) == {"part0/c003/depth/0.npz"}

    other = dataclasses.replace(JOB, depth="folder-disparity:{capture}/maps")
    run(root, store, InlinePool(other), other)
    assert changed_parts(third, contents(store)) == {name for name in third if "/depth/" in name}

    run(root, store, InlinePool())  # and back
    assert contents(store) == third


def test_fewer_views_leave_no_others(few, labelled, tmp_path):
    two = dataclasses.replace(JOB, views=2)
    shutil.copytree(labelled / "part0", tmp_path / "a")
    for name in ("c003", "c004", "c005"):
        shutil.rmtree(tmp_path / "a" / name)
    run(few, tmp_path / "a", InlinePool(two), two)
    run(few, tmp_path / "b", InlinePool(two), two)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not verify(tmp_path / "a").damaged


# --- what fails -----------------------------------------------------------------------------------------------------


@pytest.fixture
def some_bad(captures, tmp_path) -> Path:
    """Four captures: one with a truncated image, one without texture."""
    root = tmp_path / "captures"
    for name in ("c000", "c001", "c002", "c003"):
        shutil.copytree(captures / "part0" / name, root / name)
    truncated = root / "c001" / "images" / "1.png"
    truncated.write_bytes(truncated.read_bytes()[:300])
    for image in (root / "c002" / "images").iterdir():
        Image.new("RGB", (96, 72), (90, 90, 90)).save(image)
    return root


def test_bad_captures_are_reported_and_stop_nobody(some_bad, labelled, tmp_path):
    store = tmp_path / "store"
    index = run(some_bad, store, InlinePool())
    assert {name: entry["state"] for name, entry in index.items()} == {
        "c000": "done", "c001": "failed", "c002": "failed", "c003": "done",
    }  # fmt: skip
    assert index["c001"]["reason"].startswith("c001/images/1.png: truncated")
    assert index["c002"]["reason"].startswith("c002: all images are copies")
    assert read_index(store) == index == write_index(store)  # it can be made again from the folders alone
    for name in ("c000", "c003"):
        assert contents(store / name) == contents(labelled / "part0" / name)
    assert (verify(store).damaged, verify(store).failed) == ((), 2)


def test_a_repaired_capture_is_labelled_by_the_next_run(some_bad, captures, labelled, tmp_path):
    store = tmp_path / "store"
    run(some_bad, store, InlinePool())
    for name in ("c001", "c002"):
        shutil.rmtree(some_bad / name)
        shutil.copytree(captures / "part0" / name, some_bad / name)
    index = run(some_bad, store, InlinePool())
    assert {entry["state"] for entry in index.values()} == {"done"}
    assert contents(store / "c001") == contents(labelled / "part0" / "c001")


def test_a_capture_that_went_bad_loses_its_manifest(few, labelled, tmp_path):
    shutil.copytree(labelled / "part0", tmp_path / "store")
    (few / "c001" / "images" / "0.png").write_bytes(b"")
    index = run(few, tmp_path / "store", InlinePool())
    assert index["c001"]["state"] == "failed"
    with pytest.raises(UserError, match="no finished labels"):
        load_tracks(tmp_path / "store" / "c001")


def test_crashes_are_retried_after_the_others_and_then_reported(few, tmp_path):
    crashes = {"c000": 2, "c001": 9}

    def crash(task):
        crashes[task.name] = crashes.get(task.name, 0) - 1
        return "its worker died (signal 9)" if crashes[task.name] >= 0 else None

    pool = InlinePool(crash=crash)
    index = run(few, tmp_path / "store", pool)
    assert [index[name]["state"] for name in ("c000", "c002")] == ["done", "done"]
    assert index["c001"] == {"state": "failed", "reason": "its worker died (signal 9), 3 times"}
    assert pool.seen == ["c000", "c001", "c002", "c000", "c001", "c000", "c001"]


def test_an_interrupt_leaves_an_index(few, tmp_path):
    def interrupt(task):
        if task.name == "c001":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(few, tmp_path / "store", InlinePool(crash=interrupt))
    states = [entry["state"] for entry in read_index(tmp_path / "store").values()]
    assert states == ["done", "unfinished", "unfinished"]


def test_what_cannot_work_at_all_shows_before_any_capture(captures, photos, tmp_path):
    tasks = find_captures(captures, tmp_path / "store")
    never = pytest.fail
    bad = dataclasses.replace(JOB, depth="no-such-expert")
    with pytest.raises(UserError, match="no-such-expert"):
        label_store(tasks, tmp_path / "store", bad, never)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="labels of a single capture"):
        label_store(tasks, tmp_path / "one", JOB, never)
    assert not (tmp_path / "store").exists()


def test_progress_in_total_and_of_each_worker(few, tmp_path):
    seen = []
    run(few, tmp_path / "store", InlinePool(), report=lambda *report: seen.append(report))
    assert [report[:3] for report in seen if report[0] == "captures"] == [("captures", n, 3) for n in range(4)]
    assert ("worker 1", 3, 3, "c002: depth") in seen


# --- the command line -----------------------------------------------------------------------------------------------


def test_label_and_verify_from_the_command_line(some_bad, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("reliev3r.core.many.local.LocalPool", lambda job, workers: InlinePool(job))
    store = tmp_path / "store"
    arguments = ["label", str(some_bad), "--out", str(store), "--depth", JOB.depth, "--no-judge"]
    assert cli.main(arguments) == 3
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("failed: c001: c001/images/1.png: truncated")
    assert out[1].startswith("failed: c002: c002: all images are copies")
    assert out[2] == f"2 of 4 captures labelled; index: {store / 'store.json'}"
    assert cli.main(["verify-labels", str(store)]) == 0
    assert "4 captures (2 failed when labelled)" in capsys.readouterr().out
    damaged = store / "c000" / "depth" / "1.npz"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert cli.main(["verify-labels", str(store)]) == 2
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{damaged}: truncated")
    assert cli.main(["verify-labels", str(store), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["damaged"][0]["path"] == str(damaged)


def test_wrong_arguments_in_one_line(captures, tmp_path, capsys):
    out = ["--out", str(tmp_path / "store"), "--depth", JOB.depth]
    assert cli.main(["label", str(captures), *out, "--workers", "0"]) == 2
    assert "--workers 0" in capsys.readouterr().err
    assert cli.main(["verify-labels", str(tmp_path / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert cli.main(["labels", "no-such-verb"]) == 2
    assert "verify" in capsys.readouterr().err


# --- the full size --------------------------------------------------------------------------------------------------


def command(root: Path, store: Path, *extra: str) -> list[str]:
    arguments = [str(root), "--out", str(store), "--depth", JOB.depth, "--no-judge", *extra]
    return [sys.executable, "-m", "reliev3r.cli", "label", *arguments]


def label_command_killed(root: Path, store: Path, rng: random.Random) -> str:
    """Start `reliev3r label`, kill it or one of its workers at a random moment: what was killed, or "finished"."""
    with open(store.parent / "killed.log", "a") as log:
        process = subprocess.Popen(command(root, store, "--workers", "2"), stderr=log, stdout=log)
        time.sleep(rng.uniform(2, 16))  # from the middle of the imports to the middle of the work
        if process.poll() is not None:
            return "finished"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        below = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        workers = [pid for pid in below if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        victim = "worker" if workers and rng.random() < 0.4 else "parent"
        os.kill(rng.choice(workers) if victim == "worker" else process.pid, signal.SIGKILL)
        if victim == "worker":
            time.sleep(rng.uniform(0, 4))
            process.kill()
        process.wait()
    return victim


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_captures(tmp_path):
    """Serially, with two workers, through Ray, and killed twenty times: the same bytes; then fifty damaged files."""
    root, rng = write_captures(tmp_path / "captures", 200), random.Random(1)
    times, started = {}, time.monotonic()

    def lap(name):
        nonlocal started
        times[name], started = round(time.monotonic() - started, 1), time.monotonic()

    run(root, tmp_path / "serial", LocalPool(JOB, 1))
    expected = contents(tmp_path / "serial")
    assert {entry["state"] for entry in read_index(tmp_path / "serial").values()} == {"done"}
    assert len(expected) == 200 * 5 + 1
    lap("serial")
    run(root, tmp_path / "two", LocalPool(JOB, 2))
    assert contents(tmp_path / "two") == expected
    lap("two workers")
    if importlib.util.find_spec("ray"):
        from reliev3r.core.many.cluster import RayPool

        pool = Sabotaged(RayPool(JOB, 2, address="local"), deaths=2)
        run(root, tmp_path / "ray", pool)
        assert pool.crashed == 2
        assert contents(tmp_path / "ray") == expected
        lap("ray, two actors killed")
    killed = []
    while len([what for what in killed if what != "finished"]) < 20:
        if killed and killed[-1] == "finished":  # nothing left to kill: again from the start
            shutil.rmtree(tmp_path / "killed")
        killed.append(label_command_killed(root, tmp_path / "killed", rng))
    subprocess.run(command(root, tmp_path / "killed", "--workers", "2"), check=True, capture_output=True)
    assert contents(tmp_path / "killed") == expected
    lap("twenty kills")
    damaged = damage_many(tmp_path / "killed", 50, rng)
    found = verify(tmp_path / "killed")
    assert {entry.path for entry in found.damaged} == damaged
    lap("verify")
    print(times, {what: killed.count(what) for what in set(killed)})


def damage_many(store: Path, count: int, rng: random.Random) -> set[Path]:
    from test_verify import DAMAGES

    folders = rng.sample(sorted(path.parent for path in store.rglob("manifest.json")), count)
    return {rng.choice(DAMAGES)(folder, rng) for folder in folders}
