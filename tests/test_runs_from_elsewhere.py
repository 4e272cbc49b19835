"""Run folders that anybody may have written: read right or told in one line, and nothing is written by their names."""

import json

import numpy as np
import pytest

from json_places import bounded, case, changed, one_line
from reliev3r.core.reconstruction import FORMAT
from reliev3r.core.settings import to_plain
from reliev3r.export.write import export_reconstruction
from reliev3r.runs.fit import FitConfig, finished_run
from reliev3r.runs.outputs import best_of
from test_reconstruction import make_reconstruction

CONFIG = json.loads(json.dumps({"format": "reliev3r-fit/2", "capture": "/photos", "settings": to_plain(FitConfig())}))
QUALITY = {"network": {"alarms": []}, "without_evidence": ["a"], "notes": []}
PREDICTION = {
    "format": FORMAT, "names": ["a", "b"], "image_files": ["images/a.jpg", "images/b.jpg"],
    "sizes": [[640, 480], [600, 480]], "found": None, "predicts_depth": True, "meta": {"system": "test"},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_reconstruction().save(folder / "prediction")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "quality.json").write_text(json.dumps(QUALITY))
    return folder


@bounded
@case(CONFIG)
def test_config(run, path, new) -> None:
    (run / "config.json").write_text(json.dumps(changed(CONFIG, path, new)))
    one_line(lambda: finished_run(run))


@bounded
@case(QUALITY)
def test_quality(run, path, new) -> None:
    (run / "quality.json").write_text(json.dumps(changed(QUALITY, path, new)))
    one_line(lambda: best_of(run))
    (run / "quality.json").write_text(json.dumps(QUALITY))


@bounded
@case(PREDICTION)
def test_prediction(run, tmp_path_factory, path, new) -> None:
    file = run / "prediction" / "prediction.json"
    sound = json.loads(file.read_text())
    file.write_text(json.dumps(changed({**PREDICTION, "sha256": sound["sha256"]}, path, new)))
    place = tmp_path_factory.mktemp("out")

    def export() -> None:
        found = best_of(run)
        assert np.isfinite(found.prediction.depth).all()
        export_reconstruction(found, None, place / "in" / "cameras.json")

    one_line(export)
    file.write_text(json.dumps(sound))
    assert {entry.name for entry in place.iterdir()} <= {"in"}
