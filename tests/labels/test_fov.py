import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.labels import estimate_intrinsics as fov_module
from reliev3r.labels import registry
from reliev3r.labels.estimate_intrinsics import resolve_intrinsics
from reliev3r.labels.expert import DepthMap
from reliev3r.labels.pipeline import label_depth
from reliev3r.labels.store import read_depth, write_depth


@dataclass
class Seeing:
    """A depth expert with a field of view for each frame, in degrees (None: it has none)."""

    degrees: dict
    calls: list = field(default_factory=list)
    ambiguity: str = "scale"

    def fingerprint(self):
        return {"name": "seeing", "degrees": str(self.degrees)}

    def inputs(self, frame, capture):
        return []

    def predict(self, image, frame, capture):
        self.calls.append(frame.name)
        degrees = self.degrees[frame.name]
        return DepthMap.from_values(np.ones((3, 4)), fov=None if degrees is None else math.radians(degrees))


def focal(width, degrees):
    return width / 2 / math.tan(math.radians(degrees) / 2)


def test_the_median_of_the_views_is_shared_and_the_depth_is_kept(photos, tmp_path):
    expert = Seeing({"a": 60, "b": 62, "c": 100})  # one is off
    capture = resolve_intrinsics(photos, "expert", depth=expert, out=tmp_path / "labels")
    assert capture.K_source == "expert seeing"
    for frame in capture.frames:
        np.testing.assert_allclose(frame.K, [[focal(40, 62), 0, 20], [0, focal(40, 62), 15], [0, 0, 1]])
    assert expert.calls == ["a", "b", "c"]
    for index in range(3):  # what the labels need lies there already
        label_depth(capture, index, expert, tmp_path / "labels")
    assert expert.calls == ["a", "b", "c"]
    again = resolve_intrinsics(photos, "expert", depth=expert, out=tmp_path / "labels")
    assert expert.calls == ["a", "b", "c"]
    np.testing.assert_array_equal(again.frames[0].K, capture.frames[0].K)


def test_each_image_size_has_its_own_and_a_turned_camera_is_the_same(tmp_path):
    for name, size in (("a", (40, 30)), ("b", (30, 40)), ("c", (80, 60))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    wide, tall = 60.0, 2 * math.degrees(math.atan(math.tan(math.radians(30)) * 30 / 40))
    expert = Seeing({"a": wide, "b": tall, "c": 90})
    frames = resolve_intrinsics(load_capture(tmp_path), "expert", depth=expert, out=tmp_path / "labels").frames
    assert frames[0].K[0, 0] == pytest.approx(focal(40, 60))
    assert frames[1].K[0, 0] == pytest.approx(focal(40, 60))
    assert frames[1].K[0, 2] == 15
    assert frames[2].K[0, 0] == pytest.approx(40)


def test_another_expert_is_asked_about_some_views_only(photos, tmp_path, monkeypatch):
    other = Seeing({"a": 50, "b": None, "c": 50})
    monkeypatch.setattr(registry, "depth_expert", lambda spec, device: {"moge-2:x": other}[spec])
    monkeypatch.setattr(fov_module, "MOST_VIEWS", 2)
    own = Seeing({"a": 10, "b": 10, "c": 10})
    capture = resolve_intrinsics(photos, "expert:moge-2:x", depth=own, out=tmp_path / "labels")
    assert capture.frames[1].K[0, 0] == pytest.approx(focal(40, 50))
    assert other.calls == ["a", "c"]
    assert not own.calls
    assert not (tmp_path / "labels").exists()


def test_an_expert_without_field_of_view(photos, tmp_path):
    with pytest.raises(UserError, match=r"a\.png: seeing predicts no field of view .*; use --intrinsics"):
        resolve_intrinsics(photos, "expert", depth=Seeing(dict.fromkeys("abc")), out=tmp_path / "labels")
    with pytest.raises(UserError, match="choose one of"):
        resolve_intrinsics(photos, "expert:magic", depth=Seeing({}), out=tmp_path / "labels")


def test_other_sources_stay_what_they_were(photos, tmp_path):
    expert = Seeing({})
    known = resolve_intrinsics(photos, "fov:60", depth=expert, out=tmp_path)
    np.testing.assert_array_equal(known.frames[0].K, with_intrinsics(photos, "fov:60").frames[0].K)
    assert not resolve_intrinsics(photos, None, depth=expert, out=tmp_path).has_K
    assert not expert.calls
    with pytest.raises(UserError, match="only where labels are made"):
        with_intrinsics(photos, "expert")


def test_implausible_fields_of_view_are_none():
    for degrees in (0.0, -40.0, 1.0, 175.0, 400.0, math.nan):
        assert DepthMap.from_values(np.ones((2, 2)), fov=math.radians(degrees)).fov is None
    assert DepthMap.from_values(np.ones((2, 2)), fov=1.0).fov == 1.0


def test_the_store_keeps_it_and_reads_maps_without(tmp_path):
    depth = DepthMap.from_values(np.ones((2, 3)), fov=1.1)
    write_depth(tmp_path / "a.npz", depth, {})
    assert read_depth(tmp_path / "a.npz")[0].fov == 1.1
    write_depth(tmp_path / "b.npz", dataclasses.replace(depth, fov=None), {})
    assert read_depth(tmp_path / "b.npz")[0].fov is None
