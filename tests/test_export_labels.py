"""`export-labels`: what the labels carry becomes scenes, the rest is left out by name, and nothing is half-written."""

import json
import shutil

import numpy as np
import pytest

from foundry_scenes import ExactTracks, write_labels, write_room
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.many.local import Crashed, Finished
from reliev3r.core.progress import silent
from reliev3r.data.capture import load_capture
from reliev3r.data.depth_truth import cut3r, omega, wai
from reliev3r.data.depth_truth.attach import with_depth
from reliev3r.data.depth_truth.stored import StoredScene
from reliev3r.data.find_captures import CaptureTask
from reliev3r.data.readers import open_scene
from reliev3r.labels.align_depth import RegisterConfig
from reliev3r.labels.catalogue import licence_of
from reliev3r.labels.prepare import PrepareConfig
from reliev3r.runs.export_labels.run import capture_tasks, export_job, export_labels

READERS = {"wai": wai.read_scene, "omega": omega.read_scene, "dust3r": cut3r.read_scene}
KINDS = {"wai": "wai", "omega": "omega", "dust3r": "cut3r"}
SMALL = PrepareConfig(image_size=96)


class Here:
    """One worker in this process; ``dies`` names tasks at which it always dies."""

    ready = (0,)

    def __init__(self, job, dies=()):
        self._worker, self._dies, self.reports = job.worker(), dies, []

    def submit(self, slot, task):
        self._task = task

    def events(self):
        if self._task.name in self._dies:
            return [Crashed(slot=0, reason="its worker died")]
        return [Finished(slot=0, failure=self._worker.work(self._task))]

    def close(self):
        pass


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """(captures, store, room): rooms "a/good", whose last view no track sees, and "bad", judged unusable."""
    root = tmp_path_factory.mktemp("foundry")
    room = write_room(root / "captures" / "a" / "good")
    shutil.copytree(root / "captures" / "a" / "good", root / "captures" / "bad")
    write_labels(root / "captures" / "a" / "good", room, root / "store" / "a" / "good", blind=(4,), noise=0.01)
    write_labels(root / "captures" / "bad", room, root / "store" / "bad", verdict="unusable")
    return root / "captures", root / "store", room


def export(store, layout, out, **options):
    tasks = capture_tasks(store[1], store[0])
    job = export_job(tasks, layout, out, **{"config": SMALL, **options})
    return export_labels(job, tasks, lambda: Here(job), report=silent)


@pytest.fixture(scope="session")
def exported(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    return {layout: (root / layout, export(store, layout, root / layout)) for layout in READERS}


def folder_of(exported, layout):
    return exported[layout][1].scenes["a/good"]


@pytest.mark.parametrize("layout", READERS)
def test_tracks_agree_with_exported_cameras_and_depth(layout, exported, store) -> None:
    """Lifted by the depth of one exported image, a track falls on its pixel in the others."""
    scene: StoredScene = READERS[layout](folder_of(exported, layout))
    assert list(scene.frames) == [f"{index:06d}" for index in range(4)]
    tracks = ExactTracks(store[2], count=1000).track(None)  # not those that the labels were made from
    errors = []
    views = list(scene.frames.values())
    for i, one in enumerate(views):
        depth, scale = one.read(), one.size[0] / store[2].size[0]
        uv = tracks.uv[i].double().numpy() * scale
        column, row = np.clip(uv, 0, np.array(one.size) - 1).astype(int).T
        z = depth[row, column]
        local = np.stack([(uv[:, k] - one.K[k, 2]) / one.K[k, k] for k in (0, 1)] + [np.ones(len(z))], 1) * z[:, None]
        world = local @ one.world_from_cam[:3, :3].T + one.world_from_cam[:3, 3]
        for j, other in enumerate(views):
            both = (tracks.visible[i] & tracks.visible[j]).numpy() & (z > 0)
            if i == j:
                continue
            assert both.sum() > 100
            seen = (world[both] - other.world_from_cam[:3, 3]) @ other.world_from_cam[:3, :3]
            at = seen[:, :2] / seen[:, 2:] * other.K[[0, 1], [0, 1]] + other.K[:2, 2]
            errors.append(np.linalg.norm(at - tracks.uv[j].double().numpy()[both] * scale, axis=1))
    errors = np.concatenate(errors)
    assert np.median(errors) < 0.5  # pixels of 96; the depth has 1 % of noise
    assert np.quantile(errors, 0.8) < 2  # the rest are edges, where the nearest pixel is another surface


@pytest.mark.parametrize("layout", READERS)
def test_our_own_readers_tie_it_to_the_scene(layout, exported, store) -> None:
    """Cameras within a degree of the true ones (else it is refused), the depth of the room, and a loud caveat."""
    captures, _, room = store
    out, _ = exported[layout]
    scene = open_scene(captures / "a" / "good")
    group = "scenes/" if layout == "dust3r" else ""
    tied = with_depth(scene, f"{KINDS[layout]}:{out}/{group}a_good")
    assert any("PSEUDO-LABELS by reliev3r, not ground truth; folder (depth)" in caveat for caveat in tied.caveats)
    for index, name in enumerate(scene.capture.names[:4]):
        found = tied.truth.depth(name)
        known = found > 0
        row, column = ((np.arange(n) + 0.5) * size / n for n, size in zip(found.shape, (120, 160)))
        true = room.depth[index][row.astype(int)[:, None], column.astype(int)]
        assert known.mean() > 0.9
        assert np.median(np.abs(found / true - 1)[known]) < 0.02
    assert tied.truth.depth(scene.capture.names[4]) is None


def test_what_is_left_out_is_named(exported) -> None:
    out, made = exported["omega"]
    assert made.left_out == {"bad": "its labels are unusable: nothing ties the images; take others"}
    assert not made.failed
    index = json.loads((out / "foundry.json").read_text())
    assert index["scenes"] == {"a/good": "a_good"}
    assert index["left_out"] == made.left_out
    note = json.loads((out / "a_good" / "pseudo_labels.json").read_text())
    assert note["left_out"] == {"000004": "too few matches tie it to the others"}
    assert note["capture"] == "a/good"
    assert note["experts"][0]["licence"] == "the maps' own"
    assert note["verdict"] == "good"
    assert note["heldout"]["explained"] > 0.95
    assert note["heldout"]["median_depth_error"] < 0.02
    assert (out / "scenes.txt").read_text() == "a_good\n"
    listed = np.load(exported["wai"][0] / "metadata" / "train" / "dl3dv_scene_list_train.npy", allow_pickle=False)
    assert listed.tolist() == ["a_good"]


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(exported, store, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported["dust3r"][0], out)
    note = out / "scenes" / "a_good" / "pseudo_labels.json"
    (out / "scenes" / ".a_good.0123abcd").mkdir()  # killed while it wrote
    before = note.stat().st_mtime_ns
    export(store, "dust3r", out)
    assert note.stat().st_mtime_ns == before
    assert not (out / "scenes" / ".a_good.0123abcd").exists()
    shutil.rmtree(out / "scenes" / "a_good")
    export(store, "dust3r", out)
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    first = exported["dust3r"][0]
    assert files == {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}


def test_other_labels_are_exported_anew_and_bad_ones_leave_no_scene(store, exported, tmp_path) -> None:
    captures, labels, room = store
    shutil.copytree(labels, tmp_path / "store")
    shutil.copytree(exported["omega"][0], tmp_path / "out")
    shutil.rmtree(tmp_path / "store" / "a" / "good")
    write_labels(captures / "a" / "good", room, tmp_path / "store" / "a" / "good")
    changed = (captures, tmp_path / "store", room)
    assert export(changed, "omega", tmp_path / "out").scenes
    assert len(json.loads((tmp_path / "out" / "a_good" / "image_names.json").read_text())) == 5
    (tmp_path / "store" / "a" / "good" / "manifest.json").unlink()
    made = export(changed, "omega", tmp_path / "out")
    assert "no labels (unfinished" in made.left_out["a/good"]
    assert not (tmp_path / "out" / "a_good").exists()
    assert (tmp_path / "out" / "scenes.txt").read_text() == ""


def test_damage_and_crashes_stop_nobody(store, tmp_path) -> None:
    captures, labels, _ = store
    shutil.copytree(labels, tmp_path / "store")
    part = tmp_path / "store" / "bad" / "depth" / "000001.npz"
    part.write_bytes(part.read_bytes()[:-9])
    tasks = capture_tasks(tmp_path / "store", captures)
    job = export_job(tasks, "wai", tmp_path / "out", config=SMALL, keep_unusable=True)
    made = export_labels(job, tasks, lambda: Here(job, dies=["a/good"]))
    assert "000001.npz: missing or damaged" in made.failed["bad"]
    assert "its worker died" in made.failed["a/good"]
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["metadata"]


def test_other_folders_and_settings_are_refused(store, exported, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="holds no exported labels"):
        export(store, "wai", tmp_path / "mine")
    with pytest.raises(UserError, match=r"other settings \(keep_unusable\)"):
        export(store, "wai", exported["wai"][0], keep_unusable=True)
    with pytest.raises(UserError, match=r"other settings \(layout\)"):
        export(store, "omega", exported["wai"][0])
    with pytest.raises(UserError, match="has no labels of the captures"):
        capture_tasks(tmp_path / "mine", store[0])
    with pytest.raises(UserError, match="no such folder"):
        capture_tasks(tmp_path / "none", store[0])
    twice = [CaptureTask(name=name, path=tmp_path, out=tmp_path) for name in ("a/b", "A_b")]
    with pytest.raises(UserError, match="would both become scene A_b"):
        export_job(twice, "wai", tmp_path)
    with pytest.raises(UserError, match="lost: no such capture"):
        capture_tasks(store[1], tmp_path / "lost")


@pytest.mark.parametrize(
    ("layout", "capture", "scene"),
    [
        ("omega", "#2 große  Küche/a b", "_2_große_Küche_a_b"),  # its curation takes # for a comment
        ("omega", "Scenes.txt", None), ("wai", "foundry.json", None), ("wai", "metadata", None),
        ("omega", "metadata", "metadata"), ("dust3r", "foundry.json", "foundry.json"), ("omega", "x" * 241, None),
    ],
)  # fmt: skip
def test_a_scene_s_name_fits_lists_and_disks(layout, capture, scene, tmp_path) -> None:
    task = CaptureTask(name=capture, path=tmp_path, out=tmp_path)
    if scene is None:
        with pytest.raises(UserError, match=f"^capture {capture}: .*name"):
            export_job([task], layout, tmp_path)
    else:
        assert export_job([task], layout, tmp_path).folder(capture).name == scene


def test_depth_that_no_track_brings_to_scale_is_left_out(store, tmp_path) -> None:
    """Without a solved point on its depth a view's map stays in the expert's unit: a wrong label without a word."""
    captures, _, room = store
    shutil.copytree(captures / "a" / "good", tmp_path / "captures" / "half")
    write_labels(tmp_path / "captures" / "half", room, tmp_path / "store" / "half")
    tasks = capture_tasks(tmp_path / "store", tmp_path / "captures")
    config = PrepareConfig(image_size=48, registration=RegisterConfig(min_tracks=100_000))
    strict = export_job(tasks, "omega", tmp_path / "strict", config=config)
    told = export_labels(strict, tasks, lambda: Here(strict)).left_out["half"]
    assert "only 0 of 5 views have a good camera and depth" in told
    assert "are needed to bring it to scale" in told


@pytest.mark.usefixtures("exported")  # it judges one capture unusable
def test_the_verb(store, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("reliev3r.core.many.local.LocalPool", lambda job, workers: Here(job))
    captures, labels, _ = store
    words = ["export-labels", str(labels), "--captures", str(captures), "--format", "omega", "--out"]
    assert main([*words, str(tmp_path / "out"), "--image-size", "48"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("left out: bad: its labels are unusable")
    assert "1 of 2 captures exported" in out
    assert load_capture(tmp_path / "out" / "a_good").frames[0].width == 48
    one = [*words[:1], str(labels / "bad"), "--captures", str(captures / "bad"), "--format", "wai", "--out"]
    assert main([*one, str(tmp_path / "one"), "--keep-unusable", "image_size=48"]) == 0
    assert "not ground truth" in json.loads((tmp_path / "one" / "bad" / "scene_meta.json").read_text())["notice"]
    note = json.loads((tmp_path / "one" / "bad" / "pseudo_labels.json").read_text())
    assert (note["verdict"], note["reasons"]) == ("unusable", ["nothing ties the images; take others"])
    assert main([*one, str(tmp_path / "none"), "image_size=48"]) == 3  # left out: nothing is there to train on
    assert main([*one, str(tmp_path / "two"), "register=false", "--keep-unusable"]) == 3
    assert "register=false" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "three"), "--workers", "0"]) == 2


def test_licences_of_experts() -> None:
    assert licence_of("depth", "depth-anything-v2").startswith("Apache-2.0 (base and large: CC-BY-NC-4.0)")
    assert licence_of("depth", "folder-disparity") == "the maps' own"
    assert licence_of("tracks", "cotracker3").startswith("CC-BY-NC 4.0")
    assert licence_of("intrinsics", "moge-2") == "MIT"
    assert licence_of("tracks", "of tomorrow").startswith("unknown")
