"""`reliev3r show`: the paper's figure of a scene, with the labels that belong to it."""

import cv2
import numpy as np
import pytest
import torch

import builders
import small_scene
from reliev3r.cli import main
from reliev3r.report.showcase import matched


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Captures, a store of their labels and a network."""
    root = tmp_path_factory.mktemp("show")
    builders.capture(root / "captures" / "1K" / "room", views=4)
    assert main(["label", str(root / "captures"), "--out", str(root / "store"), "--depth", "simulated"]) == 0
    network = builders.network()
    network.describe(image_size=64, precision="fp32", facts={})
    network.save_pretrained(root / "checkpoint")
    return root


def show(root, out, *flags) -> int:
    return main(["show", str(root / "checkpoint"), str(root / "captures" / "1K" / "room"), "--out", str(out), *flags])


def test_a_figure_has_the_labels_of_the_store_where_one_is_given(scene, tmp_path, capsys) -> None:
    assert show(scene, tmp_path / "with", "--labels", str(scene / "store"), "--views", "3") == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "with" / name) for name in ("figure.png", "report.html")]
    assert show(scene, tmp_path / "without", "--views", "3") == 0
    tall, low = (cv2.imread(str(tmp_path / name / "figure.png")).shape[0] for name in ("with", "without"))
    assert tall > 1.4 * low  # five rows instead of three
    page = (tmp_path / "with" / "report.html").read_text()
    assert page.count("Pseudo depth, view") == 3
    assert "Pseudo depth, view" not in (tmp_path / "without" / "report.html").read_text()


def test_labels_of_another_capture_are_not_taken(scene, tmp_path, capsys) -> None:
    assert show(scene, tmp_path / "out", "--labels", str(scene / "captures")) == 2
    assert "has no finished labels of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert show(scene, tmp_path / "out", "--views", "1") == 2
    assert "at least 2 views" in capsys.readouterr().err


def test_lines_join_what_the_tracks_say_is_one_point() -> None:
    reconstruction = small_scene.reconstruction()
    tracks = small_scene.observe(small_scene.wall_points(5), small_scene.arc(4))
    images = [np.zeros((60, 80, 3), np.uint8)] * 4
    strip = matched(reconstruction, tracks, images)
    gap = (strip.shape[1] - 4 * 80) // 3
    region = torch.tensor(small_scene.REGION)
    seen = torch.nonzero(tracks.visible[0] & tracks.visible[1])[:, 0].tolist()
    assert seen
    for track in seen:
        for view in (0, 1):
            x, y = ((tracks.uv[view, track] - region[:2]) / region[2:] * torch.tensor([80, 60])).round().int().tolist()
            if 2 < x < 78 and 2 < y < 58:
                assert strip[y, x + view * (80 + gap)].max() > 150, "a dot where the track is"
