"""The one reader and writer of ``cameras.json``: half pixels, what is refused, and who may read ground truth."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import reliev3r
from reliev3r.core.cameras_json import (
    FrameEntry,
    PosedEntry,
    read_about,
    read_frames,
    read_posed_frames,
    read_shared_intrinsics,
    write_frames,
)
from reliev3r.core.errors import UserError

SOURCE = Path(reliev3r.__file__).parent
K_CENTRES = [[500.0, 0.0, 319.5], [0.0, 510.0, 239.5], [0.0, 0.0, 1.0]]
POSE = [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
FRAME = {"name": "a", "image": "images/a.png", "width": 640, "height": 480, "K": K_CENTRES}


def file_of(folder, *frames, **about):
    file = folder / "cameras.json"
    file.write_text(json.dumps({**about, "frames": frames}))
    return file


def test_reading_moves_the_principal_point_by_half_a_pixel_and_nothing_else(tmp_path):
    (frame,) = read_frames(file_of(tmp_path, FRAME))
    assert frame.K.tolist() == [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
    assert (frame.name, frame.image, frame.width, frame.height) == ("a", "images/a.png", 640, 480)


def test_what_was_read_is_written_as_it_was(tmp_path):
    posed = {**FRAME, "cam_to_world": POSE, "depth": "depth/a.png"}
    file = file_of(tmp_path, posed, {**FRAME, "name": "b"})
    write_frames(tmp_path / "copy.json", read_posed_frames(file), source="hall", metric=False)
    written = json.loads((tmp_path / "copy.json").read_text())
    assert list(written) == ["convention", "source", "metric", "frames"]
    assert written["frames"] == [posed, {**FRAME, "name": "b"}]
    assert [list(frame) for frame in written["frames"]] == [list(posed), list(FRAME)]


def test_predictions_say_that_their_poses_are_a_result(tmp_path):
    frame = PosedEntry(name="a", image="a.png", width=4, height=4, world_from_cam=np.eye(4))
    for predicted in (False, True):
        write_frames(tmp_path / "cameras.json", [frame], predicted=predicted)
        convention = json.loads((tmp_path / "cameras.json").read_text())["convention"]
        assert ("up to one global similarity" in convention) == predicted
        assert ("depth uint16 PNG" in convention) != predicted


def test_a_frame_is_named_by_its_image_if_it_has_no_name(tmp_path):
    frame = {key: value for key, value in FRAME.items() if key != "name"}
    file = file_of(tmp_path, {**frame, "cam_to_world": POSE})
    assert read_frames(file)[0].name == read_posed_frames(file)[0].name == "a"


def test_what_is_not_stated_is_none(tmp_path):
    file = file_of(tmp_path, {"name": "a", "K": None, "width": None})
    nothing = {"image": None, "width": None, "height": None, "K": None, "lens": {}}
    assert vars(read_frames(file)[0]) == {"name": "a", **nothing}
    posed = read_posed_frames(file)[0]
    assert posed.world_from_cam is None
    assert posed.depth is None


def test_a_pose_that_was_not_found_is_no_reason_to_refuse_the_file(tmp_path):
    lost = np.full((4, 4), float("-inf")).tolist()
    frames = read_posed_frames(file_of(tmp_path, {**FRAME, "cam_to_world": lost}))
    assert not np.isfinite(frames[0].world_from_cam).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "../a.png"}, "frame 'a': image: ../a.png lies outside"),
        ({"name": "b/c"}, "frame name 'b/c' cannot name files"),
        ({"name": 3}, "frame name 3 cannot name files"),
        ({"width": 640.5}, "frame 'a': width and height must be whole numbers of pixels, not 640.5"),
        ({"height": 0}, "frame 'a': width and height must be whole numbers"),
        ({"height": "480"}, "frame 'a': width and height must be whole numbers"),
        ({"K": [[500, 0, 320], [0, 0, 240], [0, 0, 1]]}, "frame 'a': K must be"),
        ({"K": [[1, 2], [3]]}, "frame 'a': K is not a matrix of numbers"),
    ],
)
def test_both_readers_refuse_the_same_and_name_file_and_frame(tmp_path, changes, message):
    file = file_of(tmp_path, {**FRAME, "cam_to_world": POSE, **changes})
    for read in (read_frames, read_posed_frames):
        with pytest.raises(UserError) as told:
            read(file)
        assert str(told.value).startswith(f"{file}: {message}")
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("pose", [POSE[:3], "here", [[1]]])
def test_poses_are_judged_only_where_they_are_read(tmp_path, pose):
    file = file_of(tmp_path, {**FRAME, "cam_to_world": pose})
    assert read_frames(file)[0].name == "a"
    with pytest.raises(UserError, match="frame 'a': cam_to_world"):
        read_posed_frames(file)


def test_names_that_differ_in_case_only_are_the_same(tmp_path):
    with pytest.raises(UserError, match="two images are named 'A'"):
        read_frames(file_of(tmp_path, FRAME, {**FRAME, "name": "A"}))


@pytest.mark.parametrize("content", ["[]", "{}", '{"frames": {}}', '{"frames": [1]}', '{"frames": [{}]}'])
def test_what_has_no_frames_is_told_by_the_file(tmp_path, content):
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(UserError, match=r"cameras\.json: needs a list 'frames'"):
        read_frames(tmp_path / "cameras.json")


def test_what_is_said_of_the_whole(tmp_path):
    about = read_about(file_of(tmp_path, FRAME))
    assert (about.synthetic, about.source, about.metric, about.caveats) == (None, "", True, ())
    said = {"synthetic": {"seed": 3}, "source": "hall", "metric": False, "caveats": ["noisy"]}
    about = read_about(file_of(tmp_path, FRAME, **said))
    assert (about.synthetic, about.source, about.metric, about.caveats) == ({"seed": 3}, "hall", False, ("noisy",))
    with pytest.raises(UserError, match='"caveats" must be a list of sentences'):
        read_about(file_of(tmp_path, FRAME, caveats="noisy"))


def test_one_K_for_all_images_is_no_list_of_frames(tmp_path):
    (tmp_path / "K.json").write_text(json.dumps({"K": K_CENTRES, "width": 640, "height": 480}))
    shared = read_shared_intrinsics(tmp_path / "K.json")
    assert (shared.K[0, 2], shared.K[1, 2], shared.width, shared.height) == (320, 240, 640, 480)
    assert read_shared_intrinsics(file_of(tmp_path, FRAME)) is None


def test_the_common_entry_knows_no_pose_and_no_depth():
    assert set(FrameEntry.__annotations__) == {"name", "image", "width", "height", "K", "lens"}


def test_only_the_reader_of_truth_reads_poses():
    """Weak training reads the same file: whoever names the reader of poses could see them."""
    named = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if (isinstance(node, ast.alias | ast.FunctionDef) and node.name == "read_posed_frames")
        or (isinstance(node, ast.Attribute) and node.attr == "read_posed_frames")
    }
    assert named == {"core/cameras_json.py", "data/truth.py"}


def test_no_other_module_reads_or_writes_the_file():
    """Its keys and its name are known in one place; others take the name from there."""
    knows = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.Constant) and node.value == "cam_to_world"
    }
    assert knows == {"core/cameras_json.py"}
