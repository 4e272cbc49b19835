"""The report is one file that says what happened, whatever is missing."""

import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

import small_scene
from reliev3r.evaluation.heldout_quality import assess
from reliev3r.report.figures import CameraPlot, curve_svgs
from reliev3r.report.html import write_report
from reliev3r.report.pictures import TrackLayer, view_pictures

METRICS = [
    {"step": step, "seconds": 0.1 * step, "lr": 1e-3 / step, "loss": 2.0 / step, "depth": 1.0 / step}
    for step in range(1, 900)
] + [{"step": 450, "heldout_deg": 3.0}, {"step": 899, "heldout_deg": 0.7, "loss": float("nan")}]
QUALITY = {
    "median_angle_deg": 0.7,
    "share_below_1_deg": 0.65,
    "baseline_to_depth": 0.2,
    "confident_share": 0.5,
    "mean_angle_deg": None,
    "alarms": (),
}


class Balance(HTMLParser):
    """Every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def scene_tracks(views=4):
    points = small_scene.wall_points(200)
    return small_scene.observe(points, small_scene.arc(views), noise_px=0.3)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    reconstruction = dataclasses.replace(
        small_scene.reconstruction(), meta={"system": "fit (tiny)", "steps": 899, "seconds": 89.9, "labels": {"a": 1}}
    )
    labels = 7 * reconstruction.prediction.depth
    labels[:, :5] = 0
    write_report(
        folder / "report.html",
        reconstruction=reconstruction,
        refined=reconstruction.with_cameras(small_scene.arc(4)),
        tracks=scene_tracks().select_tracks(list(range(150))),
        heldout=scene_tracks().select_tracks(list(range(150, 200))),
        label_depth=labels,
        metrics=METRICS,
        quality=QUALITY,
        scores="AUC@30 97.0",
        notes=["one <b>note</b> & more"],
        settings={"preset": "tiny", "objective": {"alpha": 0.2}},
        look="view.html",
    )
    return folder


def test_nothing_is_loaded_from_outside(full):
    text = (full / "report.html").read_text()
    assert "http" not in text
    assert "@import" not in text
    assert "<script" not in text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert addresses
    pages = {"view.html", *(f"view.html#camera=frame{view}" for view in range(4))}
    assert {address for address in addresses if not address.startswith(("data:image/", "#"))} == pages
    assert sorted(path.name for path in full.iterdir()) == ["overview.png", "report.html"]


def test_it_says_what_a_reader_looks_for(full):
    text = (full / "report.html").read_text()
    for phrase in (
        "4 views", "899 steps in 90 s", "No alarms", "0.70°", "65%", "AUC@30 97.0", "From above", "From the side",
        "refined by bundle adjustment", "frame3", "Pseudo depth", "Predicted depth", "Confidence", "Loss and its parts",
        "held-out tracks", "objective.alpha", "labels.a", "logarithmic scale",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "None" not in text
    assert "one &lt;b&gt;note&lt;/b&gt; &amp; more" in text
    assert text.count("<img") == 4 * 4


def test_it_is_well_formed_html_with_unique_ids(full):
    text = (full / "report.html").read_text()
    checker = Balance()
    checker.feed(text)
    assert checker.open == []
    assert {"svg", "img", "table", "style"} <= checker.seen
    ids = re.findall(r'\bid="([^"]+)"', text)
    drawn = [name for name in ids if re.fullmatch(r"[mpi][0-9a-f]{10}|image[0-9a-f]{10}", name)]
    assert len(drawn) == len(set(drawn)) > 0
    assert "viewport" in text
    assert "prefers-color-scheme: dark" in text


def test_overview_is_a_picture(full):
    overview = cv2.imread(str(full / "overview.png"))
    assert overview.shape[0] > 300
    assert overview.shape[1] > 800
    assert len(np.unique(overview.reshape(-1, 3), axis=0)) > 1000


def test_alarms_come_first_and_once(tmp_path):
    write_report(
        tmp_path / "r.html",
        reconstruction=small_scene.reconstruction(),
        quality={**QUALITY, "alarms": ("The cameras <collapsed>.",)},
        notes=["The cameras <collapsed>.", "another"],
    )
    text = (tmp_path / "r.html").read_text()
    assert text.count("The cameras &lt;collapsed&gt;.") == 1
    assert text.index("Alarm") < text.index("0.70°") < text.index("another")
    assert "No alarms" not in text


@pytest.mark.parametrize("views", [1, 2])
def test_a_bare_prediction_is_enough(tmp_path, views):
    write_report(tmp_path / "r.html", reconstruction=small_scene.reconstruction(views))
    text = (tmp_path / "r.html").read_text()
    assert text.count("<img") == 3 * views
    assert "Training" not in text
    assert "alarm" not in text.lower().split("</style>")[1]


def test_a_confidence_that_no_depth_taught_is_not_shown(tmp_path):
    known = small_scene.reconstruction()
    unknown = dataclasses.replace(known.prediction, conf=torch.ones_like(known.prediction.conf))
    for name, prediction, pictures in (("known", known.prediction, 3), ("unknown", unknown, 2)):
        write_report(
            tmp_path / f"{name}.html",
            reconstruction=dataclasses.replace(known, prediction=prediction),
            quality=dataclasses.asdict(assess(prediction, scene_tracks())),
        )
        text = (tmp_path / f"{name}.html").read_text()
        assert text.count("<img") == pictures * 4
        assert ("confiden" in text.lower().split("</style>")[1]) == (name == "known")


def test_empty_tracks_and_labels_without_a_valid_pixel(tmp_path):
    none = small_scene.observe(small_scene.wall_points(0), small_scene.arc(4))
    write_report(
        tmp_path / "r.html",
        reconstruction=small_scene.reconstruction(),
        tracks=none,
        heldout=none,
        label_depth=[np.zeros((10, 12), dtype=np.float32)] * 4,
    )
    assert "0 tracks" in (tmp_path / "r.html").read_text()


def test_cameras_in_one_place_are_drawn(tmp_path):
    reconstruction = small_scene.reconstruction()
    collapsed = reconstruction.with_cameras(small_scene.arc(4)[:1].expand(4, 4, 4))
    write_report(tmp_path / "r.html", reconstruction=collapsed, tracks=scene_tracks())
    assert "From above" in (tmp_path / "r.html").read_text()


def test_size_of_a_long_report_with_detailed_photographs(tmp_path):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (480, 640, 3)).astype(np.uint8), (0, 0), 1.5)
    write_report(
        tmp_path / "r.html",
        reconstruction=small_scene.reconstruction(30),
        tracks=scene_tracks(30),
        label_depth=small_scene.reconstruction(30).prediction.depth,
        photograph=lambda view: noise,
    )
    text = (tmp_path / "r.html").read_text()
    assert "24 of 30 views" in text
    assert text.count("<img") == 24 * 4
    assert len(text) < 3_000_000


def test_tracks_are_drawn_where_they_are_in_the_colour_of_their_error():
    reconstruction = dataclasses.replace(small_scene.reconstruction(), image=torch.zeros(4, 24, 28, 3).to(torch.uint8))
    point = torch.tensor([[0.2, -0.1, 3.9]], dtype=torch.float64)
    tracks = small_scene.observe(point, small_scene.arc(4))
    uv = tracks.uv[1, 0].clone()
    place = ((uv - torch.tensor([40.0, 0.0])) / 560 * 320).round().int().tolist()  # the crop, 320 pixels wide

    def dot(layer_tracks):
        layer = TrackLayer.of(reconstruction, layer_tracks, None)
        picture = view_pictures(reconstruction, 1, label_depth=None, layer=layer).image
        return picture[place[1], place[0]].astype(int)

    red, green, _ = dot(tracks)
    assert green > 200 > 100 > red
    weight, moved = tracks.weight.clone(), tracks.uv.clone()
    weight[[0, 3]] = 0
    moved[2, :, 1] += 100  # off the epipolar line of the other view
    red, green, _ = dot(dataclasses.replace(tracks, uv=moved, weight=weight))
    assert red > 200 > 100 > green


def test_pseudo_depth_is_shown_on_the_scale_of_the_prediction():
    reconstruction = small_scene.reconstruction()
    pictures = view_pictures(reconstruction, 0, label_depth=1000 * reconstruction.prediction.depth.numpy(), layer=None)
    difference = np.abs(pictures.pseudo_depth.astype(int) - pictures.depth)
    assert difference.mean() < 8  # one is enlarged before it is coloured, the other after


def test_photograph_is_cropped_to_what_the_maps_cover():
    photograph = np.zeros((480, 640, 3), dtype=np.uint8)
    photograph[:, :40] = 255  # left of the region
    photograph[:, 600:, 0] = 255  # right of it
    pictures = view_pictures(
        small_scene.reconstruction(), 0, label_depth=None, layer=None, photograph=lambda view: photograph
    )
    assert pictures.image.max() == 0


def test_camera_plot_is_upright_and_holds_the_triangulated_points():
    plot = CameraPlot.of(small_scene.reconstruction(), None, scene_tracks())
    assert plot.before is None
    assert (plot.cameras[:, 1, 1] < -0.9).all()
    assert len(plot.points) > 100
    assert plot.points[:, 2].max() < plot.cameras[:, 2, 3].min()  # ahead of all cameras
    assert plot.colours.min() >= 0
    assert plot.colours.max() <= 1


def test_curves_take_what_was_logged():
    titles = [title for title, _ in curve_svgs(METRICS)]
    assert titles == ["Loss and its parts", "Median angle of held-out tracks (degrees)", "Learning rate"]
    assert curve_svgs([]) == []
    assert curve_svgs([{"step": 1, "loss": float("nan")}]) == []
    title, svg = curve_svgs([{"step": 1, "loss": -0.5}])[0]  # no logarithm of it
    assert title == "Loss and its parts"
    assert svg.startswith("<svg")
