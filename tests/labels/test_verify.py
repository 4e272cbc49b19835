"""Every kind of damage to stored labels is found, and its file is named."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from many_captures import JOB, InlinePool, contents, run

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_sealed, write_sealed
from reliev3r.data.find_captures import find_captures
from reliev3r.labels.many.worker import Labeller
from reliev3r.labels.verify_store import verify


def any_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def truncated(folder: Path, rng: random.Random) -> Path:
    path = any_file(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    return path


def flipped(folder: Path, rng: random.Random) -> Path:
    path = any_file(folder, rng)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))
    return path


def older_part(folder: Path, rng: random.Random) -> Path:
    path = rng.choice([folder / "tracks.npz", folder / "depth" / "1.npz"])
    with np.load(path) as content:
        arrays = dict(content)
    key = json.loads(str(arrays.pop("key")))
    np.savez_compressed(path, key=np.array(json.dumps({**key, "format": "reliev3r-labels/1"})), **arrays)
    return path


def newer_manifest(folder: Path, rng: random.Random) -> Path:
    content = read_sealed(folder / "manifest.json", "reliev3r-labels/2")
    write_sealed(folder / "manifest.json", {**content, "format": "reliev3r-labels/3"})
    return folder / "manifest.json"


def missing(folder: Path, rng: random.Random) -> Path:
    path = any_file(folder, rng)
    path.unlink()
    return path


def foreign(folder: Path, rng: random.Random) -> Path:
    path = folder / rng.choice(["depth/9.npz", ".tracks.abcdefgh.npz", "notes.txt"])
    path.write_bytes(b"what is this")
    return path


DAMAGES = (truncated, flipped, older_part, newer_manifest, missing, foreign)


@pytest.fixture
def store(labelled, tmp_path) -> Path:
    return shutil.copytree(labelled, tmp_path / "store")


def test_an_intact_store_and_an_intact_folder(store):
    found = verify(store)
    assert (found.captures, found.failed, found.files, found.damaged) == (6, 0, 31, ())
    assert found.size == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert verify(store / "part0" / "c000").files == 5


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_found_and_nothing_else(store, damage):
    folders, rng = sorted(path.parent for path in store.rglob("manifest.json")), random.Random(damage.__name__)
    expected = {damage(folder, rng) for folder in folders}
    assert {entry.path for entry in verify(store).damaged} == expected


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_labels_of_one_capture(store, damage):
    folder, rng = store / "part0" / "c002", random.Random(3)
    path = damage(folder, rng)
    if path.name == "manifest.json" and not path.exists():
        assert "unfinished" in verify(folder).damaged[0].problem
    assert [entry.path for entry in verify(folder).damaged] == [path]


def test_problems_are_told_apart(store):
    folders = [store / "part0" / f"c00{index}" for index in range(6)]
    part = folders[0] / "depth" / "0.npz"
    part.write_bytes(part.read_bytes()[:100])
    part = folders[1] / "depth" / "0.npz"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    older_part(folders[2], random.Random(0))
    newer_manifest(folders[3], random.Random(0))
    (folders[4] / "tracks.npz").unlink()
    foreign(folders[5], random.Random(0))
    problems = [entry.problem for entry in verify(store).damaged]
    for problem, words in zip(
        problems, ("truncated: 100 of", "changed", "of format reliev3r-labels/1", "of format reliev3r-labels/3",
                   "missing", "foreign"),
    ):  # fmt: skip
        assert problem.startswith(words)


def test_every_byte_of_the_index_and_of_a_manifest_counts(store):
    for path in (store / "store.json", store / "part0" / "c001" / "manifest.json"):
        good = path.read_bytes()
        for position in range(0, len(good), 97):
            path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
            with pytest.raises(UserError):
                read_sealed(path, json.loads(good)["format"])
        assert [entry.path for entry in verify(store).damaged] == [path]
        path.write_bytes(good)


def test_an_index_that_does_not_fit(store, captures):
    shutil.rmtree(store / "part0" / "c005")
    assert [(entry.path.name, entry.problem) for entry in verify(store).damaged] == [
        ("store.json", "lists part0/c005, which is missing")
    ]
    run(captures, store, InlinePool())
    assert not verify(store).damaged
    (store / "store.json").unlink()
    assert [entry.problem for entry in verify(store).damaged] == ["missing: run `reliev3r label` again"]
    (store / "part0" / "stray.txt").write_text("")
    assert {entry.path.name for entry in verify(store).damaged} == {"store.json", "stray.txt"}


def test_a_swapped_capture_is_found(store):
    for name in ("c000", "c001"):
        shutil.move(store / "part0" / name, store / f"{name}.was")
    shutil.move(store / "c000.was", store / "part0" / "c001")
    shutil.move(store / "c001.was", store / "part0" / "c000")
    assert [entry.path.name for entry in verify(store).damaged] == ["store.json"]


def test_a_damaged_verdict_is_found_and_made_again(store, captures):
    folder = store / "part0" / "c003"
    judged = dataclasses.replace(JOB, judge=True)
    task = next(task for task in find_captures(captures, store) if task.out == folder)
    Labeller(judged).work(task)
    assert not verify(folder).damaged
    good = contents(folder)
    for name in ("quality.json", "quality.jpg"):
        for broken in (good[name][:-20], good[name].replace(b"e", b"f", 1) if name.endswith("json") else b"x"):
            (folder / name).write_bytes(broken)
            assert [entry.path for entry in verify(folder).damaged] == [folder / name]
        (folder / name).write_bytes(good[name])
    (folder / "quality.jpg").write_bytes(b"x")
    Labeller(judged).work(task)
    assert contents(folder) == good


def test_no_labels_at_all(tmp_path):
    (tmp_path / "photo.txt").write_text("")
    with pytest.raises(UserError, match="holds no labels"):
        verify(tmp_path)
