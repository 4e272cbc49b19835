"""The page to look around in: what is in the file, and what a real browser shows of it, opened from disk."""

import dataclasses
import json
import re
from urllib.parse import quote

import cv2
import numpy as np
import pytest
import torch

import small_scene
from reliev3r.core.types import Prediction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.cloud import thinned, whole_scene
from reliev3r.export.points import frustum_size
from reliev3r.export.view import LARGEST, MOST_POINTS, write_view
from reliev3r.geometry.camera import K_from_fov, ray_map

WINDOWS = [(1280, 800), (420, 800)]
HOSTILE = ("</script><script>document.title = 'hacked'</script>", "<img src=x onerror=alert(1)>", "a'\"&<!--", "plain")
BACKGROUND = np.array([0x1B, 0x21, 0x2B])


def data_of(path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="scene">(.*?)</script>', path.read_text())[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A wall of smooth colours, seen by four cameras whose images have hostile names."""
    path = tmp_path_factory.mktemp("page") / "view.html"
    scene = dataclasses.replace(small_scene.reconstruction(), names=HOSTILE, meta={"system": "<b>mine</b>"})
    assert write_view(scene, path) == 4 * 24 * 28
    return path


@pytest.fixture
def opened(browser, page):
    browser.open(page.as_uri())
    browser.wait("document.getElementById('strip').children.length === 4")
    return browser


def drawn(picture: np.ndarray) -> np.ndarray:
    """Pixels that are not background."""
    return (np.abs(picture.astype(int) - BACKGROUND) > 8).any(-1)


def test_each_voxel_keeps_its_most_confident_point() -> None:
    rng = np.random.default_rng(0)
    points, conf = rng.random((2000, 3)), rng.random(2000).astype(np.float32)
    kept, size = thinned(points, conf, 400, 0.01)
    assert 200 < len(kept) <= 400
    cells = np.floor((points - np.median(points, axis=0)) / size).astype(int)
    best: dict[tuple, float] = {}
    for cell, value in zip(map(tuple, cells.tolist()), conf.tolist(), strict=True):
        best[cell] = max(best.get(cell, 0), value)
    assert sorted(conf[kept].tolist()) == pytest.approx(sorted(best.values()))
    assert (np.diff(conf[kept]) <= 0).all()
    many, unsure = rng.random((20_000, 3)), rng.random(20_000).astype(np.float32)
    kept, _ = thinned(many, unsure, 400, 0.01)
    assert 200 < len(kept) <= 400
    assert unsure[kept].mean() > 0.7


def test_equal_confidence_is_mixed_and_few_points_are_kept_whole() -> None:
    points = np.stack([np.arange(1000.0)] * 3, axis=1)
    kept, size = thinned(points, np.ones(1000, np.float32), 5000, 0.5)
    assert size == 0.5
    assert sorted(kept) == list(range(1000))
    assert 400 < kept[:100].mean() < 600  # the first tenth lies everywhere


def test_one_lost_point_does_not_thin_all_others() -> None:
    points = np.random.default_rng(0).random((5000, 3))
    points[7] = (1e6, 0, 0)
    kept, size = thinned(points, np.linspace(1, 0, 5000, dtype=np.float32), 1000, 0.001)
    assert 700 < len(kept) <= 1000
    assert size < 0.2


def test_one_lost_camera_does_not_decide_where_one_stands() -> None:
    seen = np.random.default_rng(0).random((500, 3))
    centres = np.stack([np.linspace(0, 1, 12), np.zeros(12), np.full(12, 3.0)], axis=1)
    wanted = whole_scene(centres, seen)
    lost = centres.copy()
    lost[5] = (1e6, 0, 0)
    far = np.concatenate([seen, np.full((100, 3), 1e6)])  # what the lost one says it sees
    found = whole_scene(lost, far)
    assert np.linalg.norm(found.start - wanted.start) < wanted.extent
    assert found.extent == pytest.approx(wanted.extent, rel=0.2)
    assert frustum_size(lost, far) == pytest.approx(frustum_size(centres, seen), rel=0.2)
    cameras = small_scene.arc(12)
    cameras[5, 0, 3] = 1e6
    assert (upright_from_world(cameras) @ cameras)[:5, :3, 3].norm(dim=-1).max() < 5


def test_cameras_alone_at_one_place_are_seen_from_outside() -> None:
    place = whole_scene(np.zeros((3, 3)), np.zeros((3, 3)))
    assert np.linalg.norm(place.start - place.target) > frustum_size(np.zeros((3, 3)), np.zeros((3, 3)))


def test_a_page_of_millions_of_pixels_stays_small(tmp_path) -> None:
    g = torch.Generator().manual_seed(0)
    count, height, width = 6, 300, 400
    shape = (count, height, width)
    cameras = torch.eye(4).repeat(count, 1, 1)
    cameras[:, 0, 3] = torch.arange(count)
    small = small_scene.reconstruction(count)
    large = dataclasses.replace(
        small,
        prediction=Prediction(
            depth=(1 + torch.rand(count, 1, 1, generator=g)).expand(shape).contiguous(),
            rays=ray_map(K_from_fov(1.0, height, width), height, width).expand(*shape, 3).contiguous(),
            conf=2 * torch.rand(shape, generator=g), world_from_cam=cameras,
        ),
        image=torch.randint(0, 256, (*shape, 3), generator=g, dtype=torch.uint8),  # noise: the largest JPEG there is
    )  # fmt: skip
    count = write_view(large, tmp_path / "view.html")
    assert 0.6 * MOST_POINTS < count <= MOST_POINTS
    assert 0.4 * LARGEST < (tmp_path / "view.html").stat().st_size < LARGEST


def test_points_and_cameras_are_those_of_the_reconstruction(page) -> None:
    data = data_of(page)
    conf = small_scene.reconstruction().prediction.conf.flatten().sort(descending=True).values
    assert data["thresholds"][0] == pytest.approx(0.1)
    assert data["thresholds"][50] == pytest.approx(float(conf[len(conf) // 2 - 1]), abs=1e-3)
    assert [camera["name"] for camera in data["cameras"]] == list(HOSTILE)
    poses = np.array([camera["pose"] for camera in data["cameras"]]).reshape(4, 4, 4)
    wanted = small_scene.arc(4).numpy()
    assert np.linalg.inv(poses[0]) @ poses[3] == pytest.approx(np.linalg.inv(wanted[0]) @ wanted[3], abs=1e-5)


@pytest.mark.parametrize("depth", [True, False])
def test_a_single_view_and_values_that_are_no_numbers(tmp_path, depth) -> None:
    one = small_scene.reconstruction(1)
    conf = one.prediction.conf.clone()
    conf[0, :2] = torch.nan
    one = dataclasses.replace(one, prediction=dataclasses.replace(one.prediction, conf=conf), predicts_depth=depth)
    assert write_view(one, tmp_path / "view.html") == (22 * 28 if depth else 0)
    assert len(data_of(tmp_path / "view.html")["cameras"]) == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 0.0])
def test_depth_that_is_no_number_takes_nothing_else_along(tmp_path, value) -> None:
    scene = small_scene.reconstruction()
    depth = scene.prediction.depth.clone()
    depth[1], depth[2, 3, 3] = value, value
    spoilt = dataclasses.replace(scene, prediction=dataclasses.replace(scene.prediction, depth=depth))
    assert write_view(spoilt, tmp_path / "view.html") >= 2 * 24 * 28
    assert data_of(tmp_path / "view.html")["cameras"][1]["distance"] == 1.0


def test_a_camera_that_is_no_number_counts_as_not_found(tmp_path) -> None:
    scene = small_scene.reconstruction()
    cameras = scene.prediction.world_from_cam.clone()
    cameras[2, 0, 3] = torch.nan
    scene.with_cameras(cameras).export(tmp_path / "view.html")
    assert [each["name"] for each in data_of(tmp_path / "view.html")["cameras"]] == ["frame0", "frame1", "frame3"]


def test_text_of_files_is_no_html(page) -> None:
    text = page.read_text()
    assert "document.title = 'hacked'</script>" not in text
    assert "<img src=x" not in text
    assert "<b>mine</b>" not in text
    assert text.count("<script") == 3


def test_names_are_shown_as_they_are_and_nothing_is_loaded(opened) -> None:
    shown = opened.evaluate("[...document.querySelectorAll('#strip button')].map(b => b.title)")
    assert tuple(shown) == HOSTILE
    opened.evaluate("document.querySelectorAll('#strip button')[1].click()")
    assert opened.evaluate("document.getElementById('name').textContent") == HOSTILE[1]
    assert opened.evaluate("document.title") == "4 views by <b>mine</b>"
    assert opened.evaluate("document.querySelectorAll('script').length") == 3
    assert opened.complaints == []
    assert [address for address in opened.requests if not address.startswith("data:image/jpeg")] == [
        opened.evaluate("location.href")
    ]


def test_the_policy_lets_no_script_in_and_nothing_out(opened) -> None:
    opened.evaluate("(s => { s.textContent = 'window.hacked = 1'; document.body.append(s) })"
                    "(document.createElement('script'))")  # fmt: skip
    assert opened.evaluate("window.hacked === undefined")
    assert opened.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert not any(address.startswith("http") for address in opened.requests)


def test_links_reach_cameras_of_any_name_also_on_an_open_page(browser, tmp_path) -> None:
    names = ("IMG (1)'!*", "50% & more + #2", "\U0001f642 \u00e9\u2028", "plain")
    write_view(dataclasses.replace(small_scene.reconstruction(), names=names), tmp_path / "view.html")
    browser.open((tmp_path / "view.html").as_uri())
    for name in names:
        browser.evaluate(f"location.hash = {json.dumps('camera=' + quote(name, safe=''))}")  # as report.html writes it
        browser.wait(f"document.getElementById('name').textContent === {json.dumps(name)}")
    browser.open((tmp_path / "view.html").as_uri() + "#camera=%E0%A4%A")
    assert browser.evaluate("document.getElementById('chosen').hidden")
    assert browser.complaints == []


def test_without_webgl_or_scripts_the_page_says_why_it_is_empty(browser, page) -> None:
    told = browser.call(
        "Page.addScriptToEvaluateOnNewDocument", source="HTMLCanvasElement.prototype.getContext = () => null"
    )
    try:
        browser.open(page.as_uri())
        assert "WebGL" in browser.evaluate("document.getElementById('failed').innerText")
        assert "4 cameras" in browser.evaluate("document.getElementById('facts').innerText")
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=told["identifier"])
    assert "<noscript><p>Scripts are switched off" in page.read_text()


@pytest.mark.parametrize("window", WINDOWS, ids=["desktop", "narrow"])
def test_points_are_seen_and_nothing_where_there_are_none(browser, page, window) -> None:
    browser.open(page.as_uri(), window)
    browser.evaluate("document.getElementById('cameras').click()")
    left, top, right, bottom = browser.box("canvas")
    assert right - left > 300
    assert bottom - top > 300
    assert browser.evaluate("document.documentElement.scrollWidth") <= window[0]
    picture = browser.picture("canvas")
    assert drawn(picture).mean() > 0.05
    assert len(np.unique(picture[drawn(picture)] // 16, axis=0)) > 50  # many colours
    browser.slide("hidden-share", 99)
    assert 0 < drawn(browser.picture("canvas")).mean() < 0.1 * drawn(picture).mean()


def test_cameras_alone_where_a_system_has_no_depth(browser, tmp_path) -> None:
    scene = dataclasses.replace(small_scene.reconstruction(), predicts_depth=False)
    assert write_view(scene, tmp_path / "view.html") == 0
    browser.open((tmp_path / "view.html").as_uri())
    assert drawn(browser.picture("canvas")).mean() > 0.002
    browser.evaluate("document.getElementById('cameras').click()")
    assert not drawn(browser.picture("canvas")).any()
    assert browser.complaints == []


@pytest.mark.parametrize("window", WINDOWS, ids=["desktop", "narrow"])
def test_from_a_camera_the_points_look_like_its_image(browser, page, window) -> None:
    browser.open(page.as_uri() + "#camera=plain", window)
    assert browser.evaluate("document.getElementById('name').textContent") == "plain"
    browser.slide("hidden-share", 0)
    picture = browser.picture("canvas")
    height, width = picture.shape[:2]
    image = small_scene.reconstruction().image[3].numpy()
    K = small_scene.reconstruction().prediction.K[3].numpy()
    # The page looks along the optical axis; 2 % more than the farther corner of the map is in the window.
    reach = [max(K[a, 2], size - K[a, 2]) / K[a, a] for a, size in ((0, 28), (1, 24))]
    focal = height / 2 / (1.02 * max(reach[1], reach[0] * height / width))
    rows, columns = np.mgrid[0:24, 0:28]
    x = width / 2 + focal * (columns + 0.5 - K[0, 2]) / K[0, 0]
    y = height / 2 + focal * (rows + 0.5 - K[1, 2]) / K[1, 1]
    seen = cv2.remap(np.ascontiguousarray(picture), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(seen[inner].astype(int) - image[inner]).mean() < 15
    other = small_scene.reconstruction().image[0].numpy()
    assert np.abs(seen[inner].astype(int) - other[inner]).mean() > 25


def test_a_click_on_a_camera_stands_there_and_a_drag_turns(opened) -> None:
    with_images = opened.picture("canvas")
    opened.evaluate("document.getElementById('pictures').click()")
    plates = (np.abs(with_images.astype(int) - opened.picture("canvas")) > 8).any(-1)
    opened.evaluate("document.getElementById('pictures').click()")
    inside = cv2.distanceTransform(plates.astype(np.uint8), cv2.DIST_L2, 3)
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    left, top, *_ = opened.box("canvas")
    opened.press(left + x, top + y, to=(left + x + 120, top + y + 40))
    assert opened.evaluate("document.getElementById('chosen').hidden")
    assert (np.abs(opened.picture("canvas").astype(int) - with_images) > 8).any(-1).mean() > 0.02
    opened.evaluate("document.getElementById('reset').click()")
    assert np.abs(opened.picture("canvas").astype(int) - with_images).mean() < 1
    opened.press(left + x, top + y)
    assert not opened.evaluate("document.getElementById('chosen').hidden")
    assert opened.evaluate("document.getElementById('name').textContent") in HOSTILE
    opened.evaluate("document.getElementById('next').click()")
    assert opened.complaints == []
