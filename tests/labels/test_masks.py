"""masks/NAME.png: what a person painted black gives no tracks and no depth."""

import logging

import numpy as np
import pytest
import torch
from counting_experts import CountingDepth, CountingTracks
from PIL import Image

import builders
from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.labels.pipeline import label_capture


@pytest.fixture
def photos(tmp_path):
    """Three photographs of 40 x 30; the counting tracks lie at (10 + view, 12 + view) and (30 + view, 5 + view)."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for view in range(3):
        Image.new("RGB", (40, 30), (view + 1, 0, 0)).save(folder / f"{view}.jpg")
    return folder


def paint(folder, name: str, *, left: bool, size=(40, 30)) -> None:
    """A mask that leaves out the left (or right) half."""
    mask = np.full(size[::-1], 255, np.uint8)
    mask[:, : size[0] // 2] = 0
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(mask if left else mask[:, ::-1].copy()).save(folder / "masks" / name)


@pytest.mark.parametrize("name", ["1.png", "1.jpg.png"])
def test_nothing_is_labelled_where_the_mask_is_black(photos, tmp_path, name) -> None:
    paint(photos, name, left=True)
    labels = label_capture(load_capture(photos), depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "out")
    assert labels.tracks.weight.tolist() == [[1, 1], [0, 1], [1, 1]]
    valid = labels.depth(1).valid
    assert not valid[:, :10].any()
    assert valid[:, 10:].all()
    assert labels.depth(0).valid.all()


def test_another_mask_makes_other_labels_of_that_frame_alone(photos, tmp_path) -> None:
    depth, tracks = CountingDepth(), CountingTracks()
    paint(photos, "1.png", left=True)
    label_capture(load_capture(photos), depth=depth, tracks=tracks, out=tmp_path / "out")
    label_capture(load_capture(photos), depth=depth, tracks=tracks, out=tmp_path / "out")
    assert (depth.calls, tracks.calls) == (["0", "1", "2"], 1)
    paint(photos, "1.png", left=False)
    labels = label_capture(load_capture(photos), depth=depth, tracks=tracks, out=tmp_path / "out")
    assert (depth.calls, tracks.calls) == (["0", "1", "2", "1"], 2)
    assert labels.tracks.weight.tolist() == [[1, 1], [1, 0], [1, 1]]


def test_masks_are_of_the_upright_image(photos, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40), (2, 0, 0)).save(photos / "1.jpg", exif=exif.tobytes())  # upright: 40 x 30
    paint(photos, "1.png", left=True)
    labels = label_capture(load_capture(photos), depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "a")
    assert labels.tracks.weight.tolist() == [[1, 1], [0, 1], [1, 1]]
    paint(photos, "1.png", left=True, size=(30, 40))
    with pytest.raises(UserError, match=r"1\.png: is 30x40, but its upright image is 40x30"):
        label_capture(load_capture(photos), depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "b")


def test_copies_of_one_photograph_are_told(photos, tmp_path, caplog) -> None:
    (photos / "copy.jpg").write_bytes((photos / "1.jpg").read_bytes())
    with caplog.at_level(logging.WARNING):
        label_capture(load_capture(photos), depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "out")
    assert "copies of the same file: 1 = copy" in caplog.text
    for view in range(3):
        (photos / f"{view}.jpg").write_bytes((photos / "copy.jpg").read_bytes())
    with pytest.raises(UserError, match="all images are copies of one file"):
        label_capture(load_capture(photos), depth=CountingDepth(), tracks=CountingTracks(), out=tmp_path / "same")


def test_an_expert_that_knows_nothing_is_no_good_label(photos, tmp_path) -> None:
    """Only NaN: the store has no valid pixel, and the verdict must say so (that of ``none`` is none)."""
    from reliev3r.labels.expert import NoDepth
    from reliev3r.labels.quality.assess import measure
    from reliev3r.labels.quality.label_verdict import judge_labels

    capture = load_capture(photos)
    for expert, invalid in ((CountingDepth(value=float("nan")), 1.0), (NoDepth(), None)):
        labels = label_capture(capture, depth=expert, tracks=CountingTracks(), out=tmp_path / str(invalid))
        figures = measure(capture, labels.tracks, labels)
        assert (None if figures.depth is None else figures.depth.invalid) == invalid
        assert ("sky" in {finding.code for finding in judge_labels(figures)[1]}) == (invalid == 1.0)
    assert torch.equal(labels.tracks.weight, torch.ones(3, 2))


def test_a_converted_capture_keeps_its_masks(tmp_path) -> None:
    capture = builders.capture(tmp_path / "room", views=2, width=80, height=60)
    name = load_capture(capture).names[1]
    paint(capture, f"{name}.png", left=True, size=(80, 60))
    assert main(["convert", f"capture:{capture}", "--out", str(tmp_path / "copy")]) == 0
    kept = list(load_capture(tmp_path / "copy").masks)
    assert kept[0] is None
    assert not kept[1][:, :40].any()
    assert kept[1][:, 40:].all()
    (capture / "masks" / f"{name}.png").write_text("no image")
    assert main(["convert", f"capture:{capture}", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
