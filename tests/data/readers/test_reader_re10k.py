"""RealEstate10K: text files, and frames that somebody downloaded."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import save, write_re10k
from reader_room import assert_poses

from reliev3r.core.errors import UserError
from reliev3r.data.readers import find_reader, list_scenes, open_scene

CLIP = "0c11dbe781b1c11c"
TIMES = ("9977000", "10010366", "10043732", "10077098")


@pytest.fixture
def beside(room, tmp_path):
    write_re10k(tmp_path / f"{CLIP}.txt", tmp_path / CLIP, room)
    return tmp_path


def test_a_clip_is_read_back(room, beside) -> None:
    assert find_reader(beside)[0] == "re10k"
    scene = open_scene(beside)
    assert scene.name == CLIP
    assert scene.capture.names == TIMES
    assert scene.capture.ordered
    assert not scene.truth.metric
    assert_poses(scene, room.world_from_cam, similarity=True)
    for i, frame in enumerate(scene.capture.frames):
        np.testing.assert_array_equal(scene.capture.image(i), room.rgb[i])
        np.testing.assert_allclose(frame.K, room.K, atol=1e-5)
    assert scene.truth.depth(TIMES[0]) is None
    assert any("SLAM" in text for text in scene.caveats)


def test_frames_apart_from_the_texts_of_a_split(room, tmp_path) -> None:
    for split, clip in (("train", "b"), ("test", "a"), ("train", "c")):
        write_re10k(tmp_path / split / f"{clip}.txt", tmp_path / "frames" / split / clip, room)
    (tmp_path / "train" / "missing.txt").write_text((tmp_path / "train" / "b.txt").read_text())
    assert find_reader(tmp_path)[0] == "re10k"
    assert list_scenes(tmp_path) == ["test/a", "train/b", "train/c"]  # those that were downloaded
    assert open_scene(tmp_path, "train/c").capture.names == TIMES
    assert list_scenes(tmp_path / "train") == ["b", "c"]


def test_frames_that_could_not_be_downloaded_are_left_out(room, beside, caplog) -> None:
    (beside / CLIP / "10010366.png").unlink()
    scene = open_scene(beside)
    assert scene.capture.names == (TIMES[0], *TIMES[2:])
    assert "left out 1 of 4 frames without an image" in caplog.text
    assert_poses(scene, room.world_from_cam[[0, 2, 3]], similarity=True)


def test_a_resized_copy_has_its_own_K_and_a_crop_is_refused(room, beside) -> None:
    for time, image in zip(TIMES, room.rgb):
        save(beside / CLIP / f"{time}.png", image[::2, ::2])
    np.testing.assert_allclose(open_scene(beside).capture.frames[0].K[0, 0], room.K[0, 0] / 2, rtol=1e-5)
    for time, image in zip(TIMES, room.rgb):
        save(beside / CLIP / f"{time}.png", image[:, :72])
    with pytest.raises(UserError, match=r"9977000\.png: is 72x72, but the focal lengths .* another aspect ratio"):
        open_scene(beside)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (r"10043732 \S+", "10043732 nonsense", "frame 3 has words that are no numbers"),
        (r"(10043732(?: \S+){4}) \S+", r"\1 0.1", "frame 3 has 0.1 0.000000000 where .* two zeros"),
        (r"(10043732(?: \S+){17}) \S+", r"\1", r"\.txt: frame 3 has 18 numbers, not 19"),
        (r"(10043732(?: \S+){6}) \S+", r"\1 2.5", "frame 3: the pose is no rotation"),
    ],
)
def test_damage_is_told_in_one_line(beside, old, new, word) -> None:
    file = beside / f"{CLIP}.txt"
    file.write_text(re.sub(old, new, file.read_text()))
    with pytest.raises(UserError, match=word) as caught:
        open_scene(beside)
    assert "\n" not in str(caught.value)


def test_frames_of_other_names_are_named(beside) -> None:
    for number, file in enumerate(sorted((beside / CLIP).iterdir())):
        file.rename(file.with_name(f"frame_{number}.png"))
    with pytest.raises(UserError, match=r"has no image of the clip's 4 frames, as 9977000\.png"):
        open_scene(beside)


def test_chunks_of_pixelsplat_are_refused_and_the_documented_lines_unpack_them(room, beside) -> None:
    text = (beside / f"{CLIP}.txt").read_text().splitlines()
    rows = [line.split() for line in text[1:]]
    jpegs = []
    for image in room.rgb:
        save(beside / "one.jpg", image, quality=95)
        jpegs.append(torch.frombuffer(bytearray((beside / "one.jpg").read_bytes()), dtype=torch.uint8))
    example = {
        "key": CLIP, "url": text[0], "images": jpegs, "timestamps": torch.tensor([int(row[0]) for row in rows]),
        "cameras": torch.tensor([[float(x) for x in row[1:]] for row in rows]),
    }  # fmt: skip
    chunks = beside / "packed"
    (chunks / "test").mkdir(parents=True)
    torch.save([example], chunks / "test" / "000000.torch")
    (chunks / "test" / "index.json").write_text("{}")
    assert find_reader(chunks)[0] == "re10k"
    with pytest.raises(UserError, match=r"000000\.torch: pixelSplat's chunks keep the photographs inside"):
        list_scenes(chunks)
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(code.replace("re10k/test", str(chunks / "test")).replace("RE10K", str(beside / "unpacked")))
    scene = open_scene(beside / "unpacked", CLIP)
    assert scene.capture.names == TIMES
    assert_poses(scene, room.world_from_cam, similarity=True)
