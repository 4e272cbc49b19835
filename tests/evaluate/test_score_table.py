"""Tables: what is not predicted is crossed, what must be said is said."""

import json

import pytest
import torch

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.evaluation.scores import DEFINITIONS, Scores
from reliev3r.evaluation.tables import CROSS, Row, Table, frames_hash, make_row

FULL = Scores(
    protocol="strict",
    point_rel=0.04567,
    point_tau=0.9,
    ate=0.01,
    auc30=93.456,
    depth_rel=0.03,
    depth_tau=0.95,
    rotation_median_deg=1.0,
    translation_median_deg=2.0,
    views=2,
    extras={"depth_rel_scale_per_view": 0.02},
)
POSES = Scores(protocol="strict", auc30=60.0, views=2, views_without_camera=1)


def make_table(*rows, protocol="strict"):
    rows = rows or (
        Row(system="fit:run", scores=FULL, frames=("a", "b")),
        Row(system="colmap", scores=POSES, frames=("a", "b")),
    )
    return Table(protocol=protocol, capture="box", rows=rows)


def make_reconstruction(meta):
    one = torch.ones(2, 1, 1)
    return Reconstruction(
        prediction=Prediction(
            depth=one, rays=torch.ones(2, 1, 1, 3), conf=one, world_from_cam=torch.eye(4).repeat(2, 1, 1)
        ),
        names=("a", "b"),
        image_files=("a.jpg", "b.jpg"),
        image=torch.zeros(2, 1, 1, 3, dtype=torch.uint8),
        sizes=((1, 1), (1, 1)),
        regions=torch.ones(2, 4),
        meta=meta,
    )


@pytest.mark.parametrize("render", [Table.to_text, Table.to_markdown])
def test_numbers_crosses_and_definition_are_shown(render):
    text = render(make_table())
    lines = text.splitlines()
    fit, colmap = (next(line for line in lines if line.lstrip("| ").startswith(name)) for name in ("fit:run", "colmap"))
    assert "0.0457" in fit
    assert "93.46" in fit
    assert CROSS not in fit
    assert colmap.replace("|", " ").split() == ["colmap", *3 * [CROSS], "60.00", *5 * [CROSS]]
    assert DEFINITIONS["strict"] in text
    assert "depth rel scale per view" in text
    assert f"2 frames, list {frames_hash(['a', 'b'])}" in text


def test_text_columns_are_aligned():
    lines = make_table().to_text().splitlines()[:4]
    assert len({len(line) for line in lines}) == 1


def test_markdown_rows_have_one_cell_per_heading():
    rows = [line for line in make_table().to_markdown().splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1


def test_json_is_plain_and_complete():
    table = json.loads(json.dumps(make_table().to_json()))
    assert (table["protocol"], table["definition"]) == ("strict", DEFINITIONS["strict"])
    assert table["rows"][0]["scores"]["auc30"] == 93.456
    assert table["rows"][1]["scores"]["depth_rel"] is None
    assert table["rows"][0]["frames_hash"] == frames_hash(["a", "b"])


def test_lost_views_are_counted_aloud():
    row = make_row("colmap", make_reconstruction({"system": "colmap"}), POSES)
    text = make_table(row).to_text()
    assert "colmap: no camera for 1 of 2 views: each of their pairs counts as 180 degrees" in text


@pytest.mark.parametrize("labels", ["depth=simulated seed=0", {"depth": {"expert": "simulated"}}])
def test_simulated_labels_are_confessed(labels):
    row = make_row("fit:run", make_reconstruction({"labels": labels}), FULL)
    assert "SIMULATED expert" in make_table(row).to_text()


def test_real_labels_need_no_confession():
    assert make_row("fit:run", make_reconstruction({"labels": "depth-anything"}), FULL).notes == ()
    assert make_row("fit:run", make_reconstruction({}), FULL).notes == ()


@pytest.mark.parametrize(("meta", "words"), [("known", "intrinsics"), ("cameras.json", "intrinsics (cameras.json)")])
def test_given_intrinsics_are_confessed(meta, words):
    assert make_row("ours:x", make_reconstruction({"intrinsics": meta}), FULL).notes == (f"it was given the {words}",)
    for own in ("predicted", "estimated"):
        assert make_row("ours:x", make_reconstruction({"intrinsics": own}), FULL).notes == ()


def test_different_frames_are_no_comparison():
    rows = [Row(system=name, scores=FULL, frames=frames) for name, frames in (("x", ("a", "b")), ("y", ("a", "c")))]
    assert "CAUTION" in make_table(*rows).to_text()
    assert "CAUTION" not in make_table().to_text()


def test_the_hash_of_a_frame_list_depends_on_its_order():
    assert frames_hash(["a", "b"]) == frames_hash(("a", "b")) != frames_hash(["b", "a"])
    assert frames_hash(["ab"]) != frames_hash(["a", "b"])


def test_times_are_shown_where_they_are_known():
    timed = Row(system="colmap", scores=POSES, frames=("a",), meta={"seconds": 7.26})
    untimed = Row(system="fit:run", scores=POSES, frames=("a",))
    lines = make_table(timed, untimed).to_text().splitlines()
    assert lines[0].split()[-1] == "seconds"
    assert lines[2].split()[-1] == "7.3"
    assert lines[3].split()[-1] == CROSS
    assert "seconds" not in make_table().to_text()
