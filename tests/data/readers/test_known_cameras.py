"""Nobody goes on with K unknown while K lies beside the images: the line says what to run instead."""

import shlex

import numpy as np
import pytest
from dl3dv_layout import HASHES, write_benchmark, write_release, write_sample
from layouts import write_dl3dv
from PIL import Image

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.intrinsics import with_intrinsics
from reliev3r.synthetic.capture import SynthConfig, write_capture

FAST = ("--depth", "none", "--no-judge")


def command_in(message: str) -> list[str]:
    """The command that a message tells the user to run."""
    return shlex.split(message.partition("`reliev3r ")[2].partition("`")[0])


@pytest.mark.parametrize(("write", "kind"), [(write_release, "dl3dv"), (write_sample, "dl3dv"),
                                             (write_benchmark, "dl3dv-benchmark")])  # fmt: skip
def test_labelling_a_dataset_straight_names_the_command_and_it_works(room, tmp_path, capsys, write, kind) -> None:
    root = tmp_path / "DATA"
    write(root, room, scenes=2)
    assert main(["label", str(root), "--out", str(tmp_path / "labels"), *FAST]) == 2
    told = capsys.readouterr().err
    assert "whose intrinsics would not be used" in told
    assert not (tmp_path / "labels").exists()
    command = command_in(told)
    assert command == ["convert", f"{kind}:{root}", "--out", "CAPTURES"]
    assert main([*command[:-1], str(tmp_path / "one"), "--name", _first_scene(root, kind)]) == 0
    np.testing.assert_allclose(load_capture(tmp_path / "one").frames[0].K, room.K)


def _first_scene(root, kind) -> str:
    from reliev3r.data.readers import list_scenes

    return list_scenes(f"{kind}:{root}")[0]


@pytest.mark.parametrize("place", ["scene", "images", "sample", "benchmark"])
def test_a_scene_or_its_images_given_alone(room, tmp_path, place) -> None:
    """As ``fit``, ``reconstruct`` and the Python API ask for intrinsics, too."""
    scene, images = tmp_path / HASHES[0], tmp_path / HASHES[0] / "images_4"
    kind = "dl3dv"
    if place == "sample":
        write_dl3dv(scene / "colmap", room, images=scene)
    elif place == "benchmark":
        write_dl3dv(scene / "nerfstudio", room)
        images, kind = scene / "nerfstudio" / "images_4", "dl3dv-benchmark"
    else:
        write_dl3dv(scene, room)
    capture = load_capture(images)
    with pytest.raises(UserError, match=r"knows the images' cameras, and would not be used") as caught:
        with_intrinsics(capture)
    assert command_in(str(caught.value)) == ["convert", f"{kind}:{scene}", "--out", "CAPTURE"]
    assert not with_intrinsics(capture, "estimate").has_K  # the user's own word
    assert with_intrinsics(capture, "fov:60").has_K


def test_a_nerfstudio_folder_and_a_colmap_model(room, tmp_path) -> None:
    write_dl3dv(tmp_path / "desk", room)
    (tmp_path / "desk" / "images_4").rename(tmp_path / "desk" / "images")
    with pytest.raises(UserError) as caught:
        with_intrinsics(load_capture(tmp_path / "desk"))
    assert command_in(str(caught.value))[1] == f"nerfstudio:{tmp_path / 'desk'}"
    (tmp_path / "desk" / "transforms.json").unlink()
    with_intrinsics(load_capture(tmp_path / "desk"))
    model = tmp_path / "desk" / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.bin").touch()
    (model / "images.bin").write_bytes(b"\0\1frame_00001.png\0")
    for given in ("desk", "desk/images"):
        with pytest.raises(UserError, match="knows the images' cameras") as caught:
            with_intrinsics(load_capture(tmp_path / given))
        assert command_in(str(caught.value))[1] == f"colmap:{tmp_path / 'desk'}"


def test_the_images_of_a_capture_folder(tmp_path) -> None:
    write_capture(tmp_path / "room", SynthConfig(views=3, width=48, height=36, span=25.0, supersample=1))
    with pytest.raises(UserError, match=rf"would not be used; give {tmp_path / 'room'};"):
        with_intrinsics(load_capture(tmp_path / "room" / "images"))


def test_files_about_other_images_change_nothing(room, tmp_path) -> None:
    write_dl3dv(tmp_path / "desk", room)
    for name in ("frame_0000", "frame_000"):  # beginnings of names that the file has
        (tmp_path / "desk" / "mine").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / "desk" / "mine" / f"{name}.png")
    assert not with_intrinsics(load_capture(tmp_path / "desk" / "mine")).has_K
