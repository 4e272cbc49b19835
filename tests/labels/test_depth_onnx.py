"""The ONNX expert on networks of a few nodes whose answer is known."""

import json
import sys

import numpy as np
import pytest

from reliev3r.core.errors import UserError
from reliev3r.labels.depth.depth_anything_v2 import depth_from_disparity
from reliev3r.labels.depth.onnx import OnnxDepth
from reliev3r.labels.expert import DepthExpert
from reliev3r.labels.registry import depth_expert

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DEPTH = {"output": "depth", "ambiguity": "scale", "size": [30, 40]}


def network(path, *, shape=(1, 3, "h", "w"), kind="FLOAT", outputs=1, flat=False):
    """The first channel of its input, times 10 (NCHW in, [1, 1, h, w] out), and twice that as a second output."""
    from onnx import TensorProto, helper

    axis = 3 if shape[-1] == 3 else 1
    constants = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("a", 0), ("b", 1), ("axis", axis))]
    constants.append(helper.make_tensor("ten", TensorProto.FLOAT, [], [10.0]))
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["float", "a", "b", "axis"], ["first"]),
        helper.make_node("Mul", ["first", "ten"], ["map"]),
        helper.make_node("Add", ["map", "map"], ["double"]),
    ]
    if flat:
        nodes.append(helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2], keepdims=1))
    names = ["mean"] if flat else ["map", "double"][:outputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", getattr(TensorProto, kind), shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def predict(photos, tmp_path):
    """Run a network with a declaration on an image."""

    def run(declared, image=None, **options):
        network(tmp_path / "net.onnx", **options)
        (tmp_path / "net.onnx.json").write_text(declared if isinstance(declared, str) else json.dumps(declared))
        expert = depth_expert(f"onnx:{tmp_path / 'net.onnx'}")
        return expert.predict(picture() if image is None else image, photos.frames[0], photos)

    return run


def picture():
    return np.random.default_rng(0).integers(1, 255, (30, 40, 3), dtype=np.uint8)


RED = picture()[..., 0].astype(np.float64)


def test_depth_comes_out_as_it_is(predict):
    found = predict(DEPTH)
    np.testing.assert_allclose(found.depth, RED / 25.5, rtol=1e-5)
    assert found.valid.all()
    assert found.fov is None


def test_normalisation_channels_and_layout(predict):
    declared = {**DEPTH, "mean": [0.1, 0.2, -0.3], "std": [0.5, 0.6, 0.7], "channels": "bgr", "layout": "nhwc"}
    found = predict(declared, shape=(1, "h", "w", 3))
    np.testing.assert_allclose(found.depth, 10 * (picture()[..., 2] / 255 + 0.3) / 0.7, rtol=1e-5)


@pytest.mark.parametrize("kind", ["FLOAT16", "UINT8"])
def test_input_types(predict, kind):
    found = predict(DEPTH, kind=kind)
    expected = 10 * RED / (255 if kind == "FLOAT16" else 1)  # bytes go in as they are
    np.testing.assert_allclose(found.depth, expected, rtol=1e-3)


def test_kinds_of_output(predict):
    value = RED / 25.5
    same = predict({**DEPTH, "output": "disparity"}).depth
    np.testing.assert_allclose(same, 1 / value, rtol=1e-5)
    affine = predict({**DEPTH, "output": "disparity", "ambiguity": "scale+shift", "floor": 0.1}).depth
    np.testing.assert_allclose(affine, depth_from_disparity(value, floor=0.1), rtol=1e-5)
    np.testing.assert_allclose(predict({**DEPTH, "output": "log-depth"}).depth, np.exp(value), rtol=1e-5)


def test_no_depth_where_the_network_says_nothing(predict):
    declared = {**DEPTH, "mean": [0.5, 0.5, 0.5]}  # dark pixels become negative
    for output in ("depth", "disparity"):
        found = predict({**declared, "output": output})
        np.testing.assert_array_equal(found.valid, RED > 127.5)
        assert np.isfinite(found.depth).all()


def test_the_short_side_keeps_the_aspect_in_multiples(predict):
    assert predict({"output": "depth", "ambiguity": "scale", "short_side": 56, "multiple": 14}).depth.shape == (56, 70)


def test_resizing_is_chosen(predict):
    image = np.zeros((60, 80, 3), np.uint8)
    image[::2] = 200
    small = {**DEPTH, "size": [6, 8]}
    area = predict({**small, "resize": "area"}, image).depth
    np.testing.assert_allclose(area, 10 * 100 / 255, rtol=1e-6)
    assert not np.array_equal(area, predict(small, image).depth)


def test_of_several_outputs_one_is_named(predict):
    twice = predict({**DEPTH, "output_name": "double"}, outputs=2)
    np.testing.assert_allclose(twice.depth, RED / 12.75, rtol=1e-5)
    with pytest.raises(UserError, match=r"net\.onnx\.json: output_name must be one of map, double"):
        predict(DEPTH, outputs=2)


def test_the_fingerprint_follows_network_and_declaration(predict, tmp_path):
    predict(DEPTH)
    spec = f"onnx:{tmp_path / 'net.onnx'}"
    expert = depth_expert(spec)
    assert isinstance(expert, DepthExpert)
    assert expert.ambiguity == "scale"
    first = expert.fingerprint()
    assert json.loads(json.dumps(first)) == depth_expert(spec).fingerprint()
    (tmp_path / "net.onnx.json").write_text(json.dumps({**DEPTH, "multiple": 2}))
    assert depth_expert(spec).fingerprint() != first
    (tmp_path / "net.onnx.json").write_text(json.dumps(DEPTH))
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    assert depth_expert(spec).fingerprint() != first


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("[]", r"net\.onnx\.json: an ONNX depth expert needs this file, such as"),
        ("{", "not readable as JSON"),
        ({**DEPTH, "sizes": 3}, "unknown 'sizes'; choose from"),
        ({"ambiguity": "scale", "size": [30, 40]}, "'output' is missing"),
        ({**DEPTH, "output": "inverse"}, "output is 'inverse'; choose depth, disparity, log-depth"),
        ({**DEPTH, "ambiguity": ["scale"]}, "ambiguity is .*; choose metric"),
        ({**DEPTH, "mean": [0.5]}, "mean is .*; give a list of 3 numbers"),
        ({**DEPTH, "std": [1, 1, 0]}, "std is .*; give a list of 3 positive numbers"),
        ({**DEPTH, "size": [30.5, 40]}, "size is .*; give a list of 2 positive whole numbers"),
        ({**DEPTH, "multiple": 0}, "multiple is 0; give a positive whole number"),
        ({**DEPTH, "floor": "a"}, "floor is 'a'; give a positive number"),
        ({**DEPTH, "short_side": 56}, 'give either "size"'),
        ({"output": "depth", "ambiguity": "scale"}, 'give either "size"'),
        ({**DEPTH, "output_name": 3}, "output_name is 3"),
        ({**DEPTH, "output": "log-depth", "ambiguity": "scale+shift"}, "offset of log-depth is a factor"),
    ],
)
def test_bad_declarations(predict, declared, message):
    with pytest.raises(UserError, match=message):
        predict(declared)


def test_networks_that_do_not_fit(predict):
    with pytest.raises(UserError, match=r"takes \[1, 3, 32, 40\] but its declaration makes \[1, 3, 30, 40\]"):
        predict(DEPTH, shape=(1, 3, 32, 40))
    with pytest.raises(UserError, match=r"its input is tensor\(int64\)"):
        predict(DEPTH, kind="INT64")
    with pytest.raises(UserError, match=r"its output is of shape \[1, 1, 1, 40\], not one map"):
        predict(DEPTH, flat=True)


def test_missing_and_damaged_files(photos, tmp_path):
    (tmp_path / "net.onnx.json").write_text(json.dumps(DEPTH))
    with pytest.raises(UserError, match=r"net\.onnx: no such ONNX file"):
        depth_expert(f"onnx:{tmp_path / 'net.onnx'}")
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    expert = depth_expert(f"onnx:{tmp_path / 'net.onnx'}")
    with pytest.raises(UserError, match=r"net\.onnx: not readable as an ONNX network"):
        expert.predict(picture(), photos.frames[0], photos)


def test_without_onnxruntime_or_a_gpu_the_remedy_is_named(predict, photos, tmp_path, monkeypatch):
    predict(DEPTH)
    spec = f"onnx:{tmp_path / 'net.onnx'}"
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="--device cuda:0: not on this machine"):
        depth_expert(spec, device="cuda:0")
    with pytest.raises(UserError, match="no GPU support; pip install onnxruntime-gpu"):
        OnnxDepth.open(tmp_path / "net.onnx", device="cuda:0").predict(picture(), photos.frames[0], photos)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'reliev3r\[onnx\]'"):
        depth_expert(spec).predict(picture(), photos.frames[0], photos)
