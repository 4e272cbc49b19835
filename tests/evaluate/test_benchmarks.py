"""Benchmarks by name: which scenes, which frames, and clear words for what is none."""

import json

import pytest
from tiny_captures import write_tiny

from reliev3r.core.errors import UserError
from reliev3r.core.files import read_json
from reliev3r.evaluation.benchmarks import capture_benchmark, open_benchmark


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("hall", "attic")):
        write_tiny(tmp_path / "set" / name, views=5, seed=seed)
    return tmp_path / "set"


def test_a_folder_of_captures(root, tmp_path):
    benchmark = open_benchmark(f"captures:{root}", cache=tmp_path)
    assert benchmark.scenes == ("attic", "hall")
    assert benchmark.protocol == "strict"
    scene = benchmark.open("hall", 3)
    assert scene.capture.names == ("000", "002", "004")
    assert scene.truth.camera("002").size == (32, 24)
    assert benchmark.open("hall", None).capture.names == ("000", "001", "002", "003", "004")


def test_any_dataset_that_a_reader_knows_has_eight_views(root, tmp_path):
    lens = {"fl_x": 30.0, "fl_y": 30.0, "cx": 16, "cy": 12, "w": 32, "h": 24}
    poses = [[[1, 0, 0, k], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] for k in range(5)]
    frames = [{"file_path": f"images/{k:03d}.png", "transform_matrix": pose} for k, pose in enumerate(poses)]
    (root / "hall" / "cameras.json").unlink()
    (root / "hall" / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    benchmark = open_benchmark(f"nerfstudio:{root / 'hall'}", cache=tmp_path)
    assert (benchmark.name, benchmark.views, len(benchmark.scenes)) == ("nerfstudio", 8, 1)
    assert len(benchmark.open(benchmark.scenes[0], 2).capture.frames) == 2


def test_a_file_fixes_the_frames(root, tmp_path):
    file = tmp_path / "mine.json"
    entries = [
        {"scene": "set/hall", "frames": ["003", "000"]},
        {"scene": "attic", "root": "capture:set", "frames": ["001", "002", "004"]},
    ]
    file.write_text(json.dumps({"protocol": "pi3", "scenes": entries}))
    benchmark = open_benchmark(str(file), cache=tmp_path)
    assert (benchmark.name, benchmark.protocol, benchmark.scenes) == ("mine", "pi3", ("hall", "attic"))
    assert benchmark.open("hall", None).capture.names == ("003", "000")
    assert benchmark.open("attic", None).capture.names == ("001", "002", "004")
    with pytest.raises(UserError, match="lists 3 frames of attic; leave out --views"):
        benchmark.open("attic", 2)


def test_rooms_are_rendered_once_and_by_seed(tmp_path):
    spec = "synthetic:rooms=2,views=3,span=20,width=32,height=24,supersample=1,overlap=0.1"
    benchmark = open_benchmark(spec, cache=tmp_path)
    assert benchmark.scenes == ("room-5000", "room-5001")
    scene = benchmark.open("room-5001", 2)
    assert scene.capture.names == ("000000", "000002")
    assert read_json(tmp_path / "room-5001" / "cameras.json")["synthetic"]["seed"] == 5001
    written = (tmp_path / "room-5001" / "cameras.json").stat().st_mtime_ns
    open_benchmark(spec, cache=tmp_path).open("room-5001", None)
    assert (tmp_path / "room-5001" / "cameras.json").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="a room of other settings"):
        open_benchmark(spec.replace("span=20", "span=25"), cache=tmp_path).open("room-5001", None)


def test_one_capture_with_the_frames_of_a_run(root):
    benchmark = capture_benchmark(root / "hall", ("004", "001"))
    assert benchmark.scenes == ("hall",)
    assert benchmark.open("hall", 3).capture.names == ("004", "001")
    assert capture_benchmark(root / "hall").open("hall", 2).capture.names == ("000", "004")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown benchmark 'nothing'; known are synthetic"),
        ("nothing:/x", "unknown benchmark 'nothing:/x'; .* formats: dl3dv"),
        ("captures:/nowhere", "/nowhere"),
        ("/nowhere.json", "/nowhere.json: not found"),
        ("synthetic:colour=red", "'colour' is no setting"),
        ("synthetic:span=wide", "is no setting|could not convert"),
    ],
)
def test_what_is_no_benchmark(spec, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_benchmark(spec, cache=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "needs"),
        ({"scenes": []}, "at least one scene"),
        ({"scenes": [{"frames": ["a"]}]}, "needs"),
        ({"scenes": [{"scene": "a/x"}, {"scene": "b/x"}]}, "each with a name of its own"),
        ({"scenes": [{"scene": "x"}], "protocol": "best"}, "unknown protocol 'best'"),
    ],
)
def test_damaged_files(content, message, tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        open_benchmark(str(tmp_path / "b.json"), cache=tmp_path)
