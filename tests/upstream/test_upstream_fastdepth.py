"""A real depth network of ../shared/data through ``onnx:FILE``: the maps that its TFLite file gave are there too."""

import json

import cv2
import numpy as np
import pytest
from tflite_to_onnx import convert

from reliev3r.data.capture import load_capture
from reliev3r.labels.registry import depth_expert

pytest.importorskip("tflite", reason="the package tflite reads the network's file: pip install tflite")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

STEP = 0.0717
"""Metres between two of the network's 8-bit answers."""


@pytest.fixture(scope="module")
def fastdepth(shared_data, tmp_path_factory):
    source = shared_data / "models" / "fastdepth" / "fast_depth_224.tflite"
    if not source.is_file():
        pytest.skip(f"no network at {source}")
    target = tmp_path_factory.mktemp("fastdepth") / "fast_depth.onnx"
    convert(source, target)
    declared = {"output": "depth", "ambiguity": "scale", "size": [224, 224], "layout": "nhwc", "resize": "area"}
    target.with_name("fast_depth.onnx.json").write_text(json.dumps(declared))
    return depth_expert(f"onnx:{target}")


@pytest.mark.parametrize("name", ["box_rgbd", "livingroom1"])
def test_it_predicts_what_its_original_does(fastdepth, shared_data, name):
    capture = load_capture(shared_data / name, views=4)
    for index, frame in enumerate(capture.frames):
        found = fastdepth.predict(capture.image(index), frame, capture)
        known = cv2.imread(str(shared_data / name / "mono_fastdepth" / f"{frame.name}.png"), cv2.IMREAD_UNCHANGED)
        known = known.astype(float) / 1000
        depth = cv2.resize(found.depth, known.shape[::-1], interpolation=cv2.INTER_LINEAR)
        error = np.abs(depth - known)
        print(f"{name} {frame.name}: median {np.median(error / known):.4f}, 95 % {np.quantile(error, 0.95):.3f} m")
        assert np.median(error / known) < 0.01  # 0.03 and more with another way of resizing
        assert np.quantile(error, 0.95) < 1.1 * STEP
