"""Sound files of every kind, small ones: what the corpus then damages. Made by the verbs themselves."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from builders import network
from reliev3r.cli import main
from reliev3r.core.files import file_hash, read_json, write_json, write_sealed

SIZE = (120, 90)
FOV = 65.0


def reliev3r(*words: object) -> None:
    """A verb that must succeed."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
        code = main([str(word) for word in words])
    assert code == 0, heard.getvalue()


def write_files(root: Path, *, run: bool) -> None:
    """All kinds into ``root``, each a folder of its own; ``run`` (a finished fit) takes seconds."""
    capture, labels, checkpoint = root / "capture", root / "labels", root / "checkpoint"
    reliev3r("synth", "--out", capture, "--views", 3, "--width", SIZE[0], "--height", SIZE[1], "--span", 16,
             "--supersample", 1)  # fmt: skip
    network().save_pretrained(checkpoint)
    reliev3r("label", capture, "--out", labels, "--depth", "none")
    shutil.copytree(capture / "images", root / "photos")
    _write_datasets(root, capture)
    _write_benchmark(root)
    (root / "store").mkdir()
    shutil.copytree(labels, root / "store" / "capture")
    (root / "captures").mkdir()
    shutil.copytree(capture, root / "captures" / "capture")
    reliev3r("label", root / "captures", "--out", root / "store", "--depth", "none")
    _write_video(root / "video.mp4")
    if run:
        reliev3r("fit", capture, "--out", root / "run", "--depth", "none", "--steps", 2, "--force", "--model",
                 checkpoint, "--image-size", 56)  # fmt: skip


def _write_datasets(root: Path, capture: Path) -> None:
    """The capture as COLMAP, nerfstudio and TUM would have it."""
    frames = read_json(capture / "cameras.json")["frames"]
    K = np.array(frames[0]["K"])
    shared = {"camera_model": "OPENCV", "w": SIZE[0], "h": SIZE[1], "fl_x": K[0, 0], "fl_y": K[1, 1],
              "cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0,
              "depth_unit_scale_factor": 0.001}  # fmt: skip
    nerf, colmap, tum = root / "nerf", root / "colmap", root / "tum"
    for folder in (nerf, colmap):
        shutil.copytree(capture / "images", folder / "images")
    shutil.copytree(capture / "depth", nerf / "depth")
    entries = [
        {"file_path": frame["image"], "depth_file_path": frame["depth"],
         "transform_matrix": (np.array(frame["cam_to_world"]) @ np.diag([1.0, -1, -1, 1])).tolist()}
        for frame in frames
    ]  # fmt: skip
    write_json(nerf / "transforms.json", {**shared, "frames": entries})
    write_json(root / "K.json", {"K": K.tolist(), "width": SIZE[0], "height": SIZE[1]})
    _write_colmap(colmap, frames, K)
    for name in ("rgb", "depth"):
        (tum / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for index, frame in enumerate(frames):
        shutil.copy(capture / frame["image"], tum / "rgb" / f"{index}.0.png")
        shutil.copy(capture / frame["depth"], tum / "depth" / f"{index}.0.png")
        lists["rgb"].append(f"{index}.0 rgb/{index}.0.png")
        lists["depth"].append(f"{index}.0 depth/{index}.0.png")
        lists["groundtruth"].append(f"{index}.0 {index} 0 0 0 0 0 1")
    for name, lines in lists.items():
        (tum / f"{name}.txt").write_text("# comment\n" + "\n".join(lines) + "\n")


def _write_colmap(folder: Path, frames: list, K: np.ndarray) -> None:
    """Text, then the same as binary files."""
    import pycolmap

    text, binary = folder / "text", folder / "sparse" / "0"
    text.mkdir()
    binary.mkdir(parents=True)
    (text / "cameras.txt").write_text(
        f"1 PINHOLE {SIZE[0]} {SIZE[1]} {K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}\n"
    )
    (text / "images.txt").write_text(
        "".join(f"{i + 1} 1 0 0 0 {i} 0 0 1 {Path(frame['image']).name}\n10 10 1 20 20 -1\n"
                for i, frame in enumerate(frames))
    )  # fmt: skip
    (text / "points3D.txt").write_text("1 0 0 4 200 100 50 0.5 1 0 2 0 3 0\n")
    pycolmap.Reconstruction(str(text)).write(str(binary))
    shutil.rmtree(text)


def _write_benchmark(root: Path) -> None:
    write_json(root / "benchmark.json", {"name": "two", "protocol": "strict", "scenes": [{"scene": "capture:capture"}]})
    (root / "systems.toml").write_text('[pi3]\nweights = "random"\nrepo = "."\n')
    (root / "list.txt").write_text("capture\n")


def _write_video(file: Path) -> None:
    world = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (120, 240, 3), np.uint8), (0, 0), 1.2)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 10, SIZE)
    for index in range(6):
        writer.write(np.ascontiguousarray(world[10:100, 4 * index : 4 * index + SIZE[0]]))
    writer.release()


def reseal_labels(folder: Path, **changes: object) -> None:
    """What whoever changes labels can do too: the manifest with the right checksums."""
    manifest = {**read_json(folder / "manifest.json"), **changes}
    manifest.pop("sha256", None)
    for name, entry in manifest["files"].items() if isinstance(manifest.get("files"), dict) else ():
        if isinstance(entry, dict) and os.path.isfile(folder / name):
            entry |= {"sha256": file_hash(folder / name), "bytes": (folder / name).stat().st_size}
    write_sealed(folder / "manifest.json", manifest)


def reseal_state(folder: Path) -> None:
    """The same for a checkpoint of a training."""
    named = json.loads((folder / "checksums.json").read_text())
    write_json(
        folder / "checksums.json", {name: file_hash(folder / name) for name in named if (folder / name).exists()}
    )


def reseal_prediction(folder: Path) -> None:
    """The same for a reconstruction."""
    told = read_json(folder / "prediction.json")
    write_json(folder / "prediction.json", {**told, "sha256": file_hash(folder / "prediction.npz")})


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Noise with some structure."""
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)
