"""`reliev3r view`: what it finds to show, and what a real browser shows of it."""

import dataclasses
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import trimesh

import builders
import small_scene
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.files import write_json
from reliev3r.export.cloud import Cloud
from reliev3r.export.points import write_glb
from reliev3r.geometry.radial import distort
from reliev3r.runs.view import points
from reliev3r.runs.view.glb import _whole, draw_glb
from reliev3r.runs.view.live import states
from reliev3r.runs.view.ruler import Ruler, clicked_point
from reliev3r.runs.view.scene import NETWORK, REFINED, SOLVED, open_shown
from reliev3r.runs.view.server import Version
from reliev3r.runs.view.shown import Shown
from reliev3r.training.checkpoint import save_best

HOSTILE = ("</script><b>bold</b>", "{alert(1)}", "![x](http://127.0.0.1:9/x)", "plain")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def shown(**changes) -> Shown:
    """A wall under two sets of cameras, with tracks and pseudo depth."""
    scene = dataclasses.replace(small_scene.reconstruction(), names=HOSTILE)
    moved = small_scene.arc(4)
    moved[:, :3, 3] += 0.1
    fields = {
        "title": "<i>mine</i>", "versions": {NETWORK: scene, REFINED: scene.with_cameras(moved)},
        "tracks": small_scene.observe(small_scene.wall_points(200), small_scene.arc(4)),
        "label_depth": scene.prediction.depth.numpy(), **changes,
    }  # fmt: skip
    return Shown(**fields)


@pytest.fixture(scope="module")
def viewer():
    pytest.importorskip("viser", reason="no viser here (pip install viser)")
    from reliev3r.runs.view.server import Viewer

    started = Viewer(free_port())
    yield started
    started.close()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A rendered capture and a store with its labels."""
    root = tmp_path_factory.mktemp("view")
    builders.capture(root / "captures" / "room", views=4)
    assert main(["label", str(root / "captures"), "--out", str(root / "store"), "--depth", "simulated"]) == 0
    return root


def test_labels_are_shown_under_the_cameras_that_their_tracks_solve(labelled) -> None:
    found = open_shown(labelled / "store", labelled / "captures" / "room")
    scene = found.versions[SOLVED]
    assert len(scene.names) == 4
    assert found.known.mean() > 0.8
    truth = json.loads((labelled / "captures" / "room" / "cameras.json").read_text())["frames"]
    centres = np.array([frame["cam_to_world"] for frame in truth])[:, :3, 3]
    solved = scene.prediction.world_from_cam[:, :3, 3].numpy()
    ratios = np.linalg.norm(np.diff(solved, axis=0), axis=1) / np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert ratios.std() / ratios.mean() < 0.1
    with pytest.raises(UserError, match="--capture"):
        open_shown(labelled / "store")


def test_refined_cameras_see_tracks_without_the_lens_that_they_found() -> None:
    seen, k1 = small_scene.observe(small_scene.wall_points(200), small_scene.arc(4)), -0.2
    bent = distort(seen.uv.double(), small_scene.K.expand(4, 3, 3), torch.full((4,), k1).double()).float()
    shown = Shown(title="wall", tracks=dataclasses.replace(seen, uv=bent))
    straight = dataclasses.replace(small_scene.reconstruction(4), radial=(k1,) * 4)
    layers = [
        Version.of(shown, each, torch.eye(4).double()).tracks for each in (straight, small_scene.reconstruction(4))
    ]
    refined, plain = (layer.residual_deg[layer.tracks.visible].median() for layer in layers if layer is not None)
    assert refined < 1e-4 < 0.01 < plain


def test_the_report_of_a_runs_labels_links_to_its_page(labelled, tmp_path) -> None:
    shutil.copytree(labelled / "store" / "room", tmp_path / "run" / "labels")
    assert main(["report-labels", str(tmp_path / "run" / "labels")]) == 0
    assert "Look around" not in (tmp_path / "run" / "labels" / "labels.html").read_text()
    small_scene.reconstruction().export(tmp_path / "run" / "view.html")
    assert main(["report-labels", str(tmp_path / "run" / "labels")]) == 0
    assert '<a href="../view.html">Look around' in (tmp_path / "run" / "labels" / "labels.html").read_text()


def test_a_run_is_shown_with_what_is_left_of_it(tmp_path, caplog) -> None:
    scene = small_scene.reconstruction()
    scene.save(tmp_path / "run" / "prediction")
    scene.with_cameras(small_scene.arc(4)).save(tmp_path / "run" / "refined")
    found = open_shown(tmp_path / "run")
    assert list(found.versions) == [NETWORK, REFINED]
    assert found.tracks is None
    assert "without tracks and pseudo depth" in caplog.text
    kept = open_shown(tmp_path / "run" / "prediction")
    assert torch.equal(kept.versions[NETWORK].prediction.depth, scene.prediction.depth)


def test_what_cannot_be_shown_is_told_in_a_line(tmp_path, capsys) -> None:
    assert main(["view", str(tmp_path)]) == 2
    assert "nothing to look at" in capsys.readouterr().err
    assert main(["view", str(tmp_path / "none.glb")]) == 2
    assert "none.glb: not found" in capsys.readouterr().err
    (tmp_path / "bad.glb").write_bytes(b"glTF nonsense")
    assert main(["view", str(tmp_path / "bad.glb")]) == 2
    assert "not readable as a GLB" in capsys.readouterr().err
    assert main(["view", str(tmp_path), "--live"]) == 2
    told = capsys.readouterr()
    assert "config.json" in told.err
    assert "open http" not in told.out
    write_json(tmp_path / "adapted" / "config.json", {"format": "reliev3r-adapt/1", "model": "x"})
    (tmp_path / "adapted" / "checkpoint").mkdir()
    assert main(["view", str(tmp_path / "adapted")]) == 2
    assert "adapt again" in capsys.readouterr().err


def test_without_viser_one_line_says_what_to_do(tmp_path, monkeypatch, capsys) -> None:
    write_glb(small_scene.reconstruction(), tmp_path / "scene.glb")
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["view", str(tmp_path / "scene.glb")]) == 2
    assert "pip install 'reliev3r[view]'" in capsys.readouterr().err


def test_the_verb_serves_to_this_machine_alone_until_it_is_interrupted(tmp_path) -> None:
    pytest.importorskip("viser", reason="no viser here (pip install viser)")
    write_glb(small_scene.reconstruction(), tmp_path / "scene.glb")
    command = [sys.executable, "-m", "reliev3r.cli", "view", str(tmp_path / "scene.glb"), "--port", str(free_port())]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )  # fmt: skip
    try:
        line = next(line for line in process.stdout if line.startswith("open http://127.0.0.1:"))
        with urllib.request.urlopen(line.split()[1], timeout=60) as answer:
            assert b"<html" in answer.read().lower()
        port = int(line.split()[1].rsplit(":", 1)[1])
        assert listening_addresses(port) == {"0100007F"}
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def listening_addresses(port: int) -> set[str]:
    """Where this machine listens on a port (Linux), as hexadecimal addresses."""
    found = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(file) as lines:
            for line in list(lines)[1:]:
                local, state = line.split()[1], line.split()[3]
                if state == "0A" and int(local.rsplit(":", 1)[1], 16) == port:
                    found.add(local.rsplit(":", 1)[0])
    return found


def look(browser, viewer, size=(1280, 800)) -> np.ndarray:
    """What is seen left of the controls (in a narrow window: above the middle) once two pictures are the same."""
    browser.open(f"{viewer.address}/", size)
    browser.wait("document.querySelector('canvas') !== null && document.body.innerText.length > 5")
    until, before, picture = time.monotonic() + 60, None, browser.picture()
    while before is None or (picture != before).mean() > 1e-4:
        assert time.monotonic() < until
        time.sleep(1.0)
        before, picture = picture, browser.picture()
    return picture[160:700, :860] if size[0] > 900 else picture[300:]


def coloured(picture: np.ndarray) -> float:
    """Share of the pixels that have a colour (the background and the controls are grey)."""
    return float((np.ptp(picture.astype(int), axis=-1) > 60).mean())


def test_a_browser_shows_points_and_cameras_and_names_as_text(browser, viewer) -> None:
    viewer.show(shown())
    full = coloured(look(browser, viewer))
    assert full > 0.02
    assert "<i>mine</i>" in browser.evaluate("document.body.innerText")
    assert not [address for address in browser.requests if not address.startswith((viewer.address, "blob:", "data:"))]
    assert browser.complaints == []
    viewer.show(shown(known=np.zeros((4, 24, 28), bool)))
    cameras = look(browser, viewer)
    assert 0.001 < coloured(cameras) < 0.5 * full  # their images are left
    inside = cv2.distanceTransform((np.ptp(cameras, axis=-1) > 60).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    assert "Pseudo depth" not in browser.evaluate("document.body.innerText")
    browser.press(column, row + 160)
    browser.wait("document.body.innerText.includes('Pseudo depth')")
    assert set(HOSTILE) & set(browser.evaluate("[...document.querySelectorAll('input')].map(i => i.value)"))
    assert browser.complaints == []
    viewer.show(Shown(title="nothing yet"))
    assert coloured(look(browser, viewer)) == 0


def test_a_click_means_the_foremost_point_under_it() -> None:
    points = np.array([[0.0, 0.0, 5.0], [0.01, 0.0, 2.0], [1.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    found = clicked_point(np.zeros(3), np.array([0.0, 0.0, 2.0]), points)
    assert np.array_equal(found, points[1])
    assert clicked_point(np.zeros(3), np.array([0.0, 1.0, 0.0]), points) is None
    assert clicked_point(np.zeros(3), np.array([0.0, 1.0, 0.0]), np.zeros((0, 3))) is None


def test_of_many_points_some_are_hidden_until_the_camera_rests(monkeypatch) -> None:
    monkeypatch.setattr(points, "WHILE_MOVING", 100)
    monkeypatch.setattr(points, "REST", (0.05, 0.05, 0.05))
    rng, made = np.random.default_rng(0), []

    def add(_name, xyz, _rgb, *, visible, **_more):
        made.append(SimpleNamespace(count=len(xyz), visible=visible, remove=lambda: None))
        return made[-1]

    def drawn() -> int:
        return sum(cloud.count for cloud in made if cloud.visible)

    cloud = Cloud(points=rng.random((1000, 3)), colours=np.zeros((1000, 3), np.uint8), conf=np.ones(1000), spacing=0.1)
    layers = points.PointLayers(SimpleNamespace(add_point_cloud=add), cloud, threading.RLock())
    layers.show(10, 1.0)
    assert drawn() == 500
    layers.moved()
    assert 45 <= drawn() <= 55
    assert made[0].point_size == pytest.approx(0.075 * 10**0.25)
    until = time.monotonic() + 60
    while drawn() != 500:
        assert time.monotonic() < until
        time.sleep(0.01)
    layers.moved()
    layers.remove()  # a movement that ends after the scene is gone
    layers._rested()


@pytest.mark.parametrize(("gap", "rest"), [(0.02, 1.0), (0.2, 6.0), (2.0, 10.0)])
def test_a_page_that_draws_slowly_gets_longer_until_the_camera_rests(monkeypatch, gap, rest) -> None:
    """Else all points are back between two pictures of one movement, and the page never gets faster."""
    monkeypatch.setattr(points, "WHILE_MOVING", 100)
    clock = iter(np.arange(20) * gap)
    monkeypatch.setattr(points, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    cloud = Cloud(points=np.ones((1000, 3)), colours=np.zeros((1000, 3), np.uint8), conf=np.ones(1000), spacing=0.1)
    scene = SimpleNamespace(add_point_cloud=lambda *_, **__: SimpleNamespace(remove=lambda: None))
    layers = points.PointLayers(scene, cloud, threading.RLock())
    monkeypatch.setattr(layers, "_look_again", lambda _seconds: None)
    assert layers._rest() == points.REST[1]
    for _ in range(10):
        layers.moved()
    assert layers._rest() == pytest.approx(rest)


def test_two_clicks_measure_a_distance() -> None:
    server = mock.MagicMock()
    ruler = Ruler(server, lambda: np.array([[0.0, 0.0, 2.0], [3.0, 0.0, 2.0]]))
    ruler._on.value = True
    ruler._switch(None)
    for direction in ((0.0, 0.0, 1.0), (1.0, 1.0, 0.0), (3.0, 0.0, 2.0)):  # the second hits nothing
        ruler._clicked(mock.Mock(ray_origin=(0.0, 0.0, 0.0), ray_direction=direction))
    assert ruler._told.value.startswith("3 ")


def plain_cloud(places) -> trimesh.Scene:
    return trimesh.Scene([trimesh.PointCloud(places)])


def test_a_glb_of_any_other_program_is_shown(tmp_path) -> None:
    def kept(name: str, scene: trimesh.Scene):
        (tmp_path / name).write_bytes(scene.export(file_type="glb"))
        return open_shown(tmp_path / name).glb

    places = np.random.default_rng(0).random((200, 3))
    (xyz, rgb) = kept("plain.glb", plain_cloud(places)).points[0]
    assert len(xyz) == 200
    assert set(rgb.flatten().tolist()) == {200}
    spoilt = places.copy()
    spoilt[3], spoilt[4] = np.nan, 1e6
    found = kept("spoilt.glb", plain_cloud(spoilt))
    assert len(found.points[0][0]) == 199
    assert found.place.extent < 2
    far = trimesh.creation.box(extents=[5000] * 3).apply_translation([1e5, 0, 0])
    place = kept("mesh.glb", trimesh.Scene([far])).place
    assert np.allclose(place.target, [1e5, 0, 0])
    assert 3000 < np.linalg.norm(place.start - place.target) < 5e4
    line = trimesh.load_path(np.array([[[0.0, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 0]]]))
    assert len(kept("line.glb", trimesh.Scene([line])).points[0][0]) >= 3
    box = trimesh.creation.box()
    box.faces[0, 0] = 4_000_000_000
    assert len(_whole(box).faces) == 11


def test_an_empty_glb_is_told_in_a_line(tmp_path, capsys) -> None:
    tree = b'{"asset": {"version": "2.0"}}   '
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(tree))
    (tmp_path / "empty.glb").write_bytes(head + struct.pack("<I4s", len(tree), b"JSON") + tree)
    assert main(["view", str(tmp_path / "empty.glb")]) == 2
    assert "empty.glb: holds no points" in capsys.readouterr().err


def test_points_of_a_glb_are_sent_in_full_precision(tmp_path) -> None:
    (tmp_path / "far.glb").write_bytes(plain_cloud(np.full((3, 3), 1e6)).export(file_type="glb"))
    server = mock.MagicMock()
    draw_glb(server, open_shown(tmp_path / "far.glb").glb)
    assert server.scene.add_point_cloud.call_args.kwargs["precision"] == "float32"


def test_a_browser_shows_a_glb(browser, viewer, tmp_path) -> None:
    write_glb(small_scene.reconstruction(), tmp_path / "scene.glb")
    found = open_shown(tmp_path / "scene.glb")
    assert len(found.glb.cameras) == 4
    viewer.show(found)
    assert coloured(look(browser, viewer)) > 0.02


def test_a_live_run_is_followed(labelled, tmp_path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"config\.json"):
        next(states(run, None, seconds=0))
    capture = labelled / "captures" / "room"
    for nonsense in ([], {"format": "somebody-else/1"}):
        write_json(run / "config.json", nonsense)
        with pytest.raises(UserError, match=r"config\.json"):
            next(states(run, None, seconds=0))
    write_json(run / "config.json", {"format": "reliev3r-train/2"})
    write_json(run / ".owner.json", {"host": socket.gethostname(), "pid": os.getpid()})
    steps = states(run, capture, seconds=0.01)
    state = next(steps)
    assert state.status == "no step yet; no weights yet"
    assert not state.shown.versions
    (run / "metrics.jsonl").write_text('{"step": 3, "loss": 1.5}\n')
    state = next(steps)
    assert state.metrics == [{"step": 3, "loss": 1.5}]
    assert state.status.startswith("step 3; no weights")
    network = builders.network()
    network.describe(image_size=64, precision="fp32", facts={})
    save_best(run / "training", network, {"step": 3.0})
    state = next(steps)
    first = state.shown.versions[NETWORK]
    assert len(first.names) == 4
    assert state.status == "step 3; shown: the best weights, of step 3"
    save_best(run / "training", builders.network(seed=1), {"step": 4.0})  # one that does not know its image size
    assert "give --image-size" in next(steps).status
    network = builders.network(seed=1)
    network.describe(image_size=64, precision="fp32", facts={})
    save_best(run / "training", network, {"step": 5.0})
    state = next(steps)
    assert state.status.endswith("of step 5")
    assert not torch.equal(state.shown.versions[NETWORK].prediction.depth, first.prediction.depth)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_json(run / ".owner.json", {"host": socket.gethostname(), "pid": dead.pid})
    assert (
        next(steps).status
        == "step 3; shown: the best weights, of step 5; nobody is at work in it: it ended, or died (--resume goes on)"
    )
    shutil.rmtree(run)
    while "its folder is gone" not in (state := next(steps)).status:  # it goes file by file
        pass
    assert state.shown.versions[NETWORK].names == first.names
