# ruff: noqa: E501 - tables: a case a line
"""Hostile and unlucky files by kind. A case says what is damaged, how, and what each verb may answer."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from json_places import ANYTHING, changed, places
from sound_files import photograph, reseal_labels, reseal_prediction, reseal_state

Answer = Literal["any", "told", "refused", "right"]
"""any: one of the three outcomes; told: refused, or right with a word about it; refused: one line and exit code 2."""


@dataclass(frozen=True)
class Case:
    kind: str
    name: str
    parts: tuple[str, ...]
    """Of the sound files, that the verbs need."""
    damage: Callable[[Path], object]
    """Of the folder that holds copies of the parts."""
    verbs: tuple[str, ...]
    """Command lines, in that folder; results go to ``out``."""
    answer: Answer = "any"
    faults: tuple[str, ...] = ()
    """Of the machine: full, no-stdout, pipe."""


# ---- verbs -------------------------------------------------------------------------------------------------------

NET = "--model checkpoint --image-size 56"
LABEL = "label {} --out out --depth none --intrinsics fov:65 --no-judge"
RECONSTRUCT = "reconstruct {} --out out/scene.glb --intrinsics fov:65 " + NET
FIT = "fit {} --out out --depth none --intrinsics fov:65 --steps 1 --force " + NET
ADAPT = "adapt {} --out out --depth none --intrinsics fov:65 --steps 1 " + NET
SHOW = "show checkpoint {} --out out --image-size 56"
EVALUATE = "evaluate model:checkpoint@56 --capture {} --out out"
PHOTOS = tuple(verb.format("photos") for verb in (LABEL, RECONSTRUCT, FIT, ADAPT, SHOW))
CAPTURE = (
    "label capture --out out --depth none", EVALUATE.format("capture"), "convert capture --out out", "datasets capture",
)  # fmt: skip
LABELS = (
    "verify-labels labels", "report-labels labels --out out", f"fit capture --labels labels --out out --steps 1 --force {NET}",
    "show checkpoint capture --labels labels --out out --image-size 56", "view labels --capture capture",
    "prepare tiny-cpu --data capture=labels --image-size 56",
    f"adapt capture --labels labels --out out --steps 1 {NET}",
)  # fmt: skip
STORE = (
    "verify-labels store",
    "report-labels store --out out",
    "prepare tiny-cpu --data captures=store --image-size 56",
)
CHECKPOINT = (
    "reconstruct capture --model checkpoint --out out/scene.glb", SHOW.format("capture"),
    "evaluate model:checkpoint --capture capture --out out", "export-weights --model checkpoint --out out.safetensors",
    "adapt capture --model checkpoint --out out --depth none --steps 1 --image-size 56",
    "fit capture --model checkpoint --out out --depth none --steps 1 --force --image-size 56",
)  # fmt: skip
RUN = (
    "export run --out out", "export run --out out.glb", "refine run", "evaluate fit:run --capture capture --out out",
    "view run",
)  # fmt: skip
RESUME = ("fit capture --out run --resume",)
SCENES = (
    "datasets {}", "convert {} --out out", "evaluate model:checkpoint@56 --benchmark {} --out out --views 3",
)  # fmt: skip


def of_scene(spec: str) -> tuple[str, ...]:
    return tuple(verb.format(spec) for verb in SCENES)


# ---- JSON, by hypothesis -----------------------------------------------------------------------------------------


def drawn(sound: Any, count: int) -> list[tuple[tuple, Any]]:
    """(place, what is put there), the same on every run."""
    found: list[tuple[tuple, Any]] = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(path=st.sampled_from(list(places(sound))), new=ANYTHING)
    def draw(path: tuple, new: Any) -> None:
        found.append((path, new))

    draw()
    return found


@dataclass(frozen=True)
class InPlace:
    """Something else in one place of a JSON file."""

    file: str
    path: tuple
    new: Any
    seal: Callable[[Path, Any], object] | None = None

    def __call__(self, root: Path) -> None:
        content = changed(json.loads((root / self.file).read_text()), self.path, self.new)
        if self.seal is None or not isinstance(content, dict):
            (root / self.file).write_text(json.dumps(content))
        else:
            self.seal(root / self.file, content)


def _sealed(file: Path, content: dict) -> None:
    from reliev3r.core.files import write_sealed

    content.pop("sha256", None)
    write_sealed(file, content)


def json_cases(sound: Path, count: int) -> Iterator[Case]:
    sets: list[tuple[str, tuple[str, ...], tuple[str, ...], Any]] = [
        ("capture/cameras.json", ("capture", "checkpoint"), CAPTURE, None),
        ("nerf/transforms.json", ("nerf", "checkpoint"), of_scene("nerfstudio:nerf"), None),
        ("K.json", ("K.json", "photos", "checkpoint"),
         ("label photos --out out --depth none --intrinsics K.json",
          "reconstruct photos --intrinsics K.json --out out/a.glb " + NET), None),
        ("labels/manifest.json", ("capture", "labels", "checkpoint"), LABELS, _sealed),
        ("labels/quality.json", ("capture", "labels", "checkpoint"), LABELS[1:3], _sealed),
        ("store/store.json", ("captures", "store"), STORE, _sealed),
        ("checkpoint/config.json", ("capture", "checkpoint"), CHECKPOINT, None),
        ("benchmark.json", ("capture", "checkpoint", "benchmark.json"),
         ("evaluate model:checkpoint@56 --benchmark benchmark.json --out out",), None),
    ]  # fmt: skip
    if (sound / "run").is_dir():
        step = next(path for path in (sound / "run" / "training").iterdir() if path.name.isdigit()).name
        parts = ("capture", "run")
        sets += [
            ("run/config.json", parts, (*RUN, *RESUME), None), ("run/quality.json", parts, RUN[:3], None),
            ("run/prediction/prediction.json", parts, RUN, None),
            (f"run/training/{step}/checksums.json", parts, RESUME, None),
            ("run/training/best/record.json", parts, RESUME, _with_record_sealed),
        ]  # fmt: skip
    for file, parts, verbs, seal in sets:
        for number, (path, new) in enumerate(drawn(json.loads((sound / file).read_text()), count)):
            name = f"{file} {number} {'/'.join(map(str, path))}={ascii(new)[:40]}"
            yield Case("json", name, parts, InPlace(file, path, new, seal), (verbs[number % len(verbs)],))
    for number, content in enumerate((b"[" * 100_000, b"1" * 5000, b"\xff\xfe{", b"{", b"", b"\xef\xbb\xbf[]")):
        for file, parts, verbs, _ in sets:
            verb = verbs[number % len(verbs)]
            answer: Answer = "any" if file == "store/store.json" else "told"  # `report-labels` needs no index
            yield Case("json", f"{file} is {content[:8]!r}", parts, lambda root, f=file, c=content: (root / f).write_bytes(c),
                       (verb,), answer)  # fmt: skip


def _with_record_sealed(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content))
    reseal_state(file.parent)


# ---- images ------------------------------------------------------------------------------------------------------


def png_that_claims(path: Path, width: int, height: int, bits: int = 8, kind: int = 2) -> None:
    """A small file whose header announces many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def exif(kind: int, count: int, value: bytes, tag: int = 0x0112) -> bytes:
    return (
        b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHI4s", tag, kind, count, value) + b"\0" * 4
    )


def _jpeg(root: Path, tags: bytes) -> None:
    for file in sorted((root / "photos").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"), exif=tags, quality=95)
        file.unlink()


def _all_as(root: Path, suffix: str, mode: str, **options: Any) -> None:
    for file in sorted((root / "photos").iterdir()):
        image = Image.open(file).convert(mode)
        file.unlink()
        image.save(file.with_suffix(suffix), **options)


class Executed:
    """Unpickling it leaves a mark."""

    def __reduce__(self):
        return os.system, ("touch EXECUTED",)


PICKLE = pickle.dumps(Executed())


def image_cases() -> Iterator[Case]:
    photo, parts = "photos/000001.png", ("photos", "checkpoint")

    def put(content: bytes) -> Callable[[Path], object]:
        return lambda root: (root / photo).write_bytes(content)

    def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            (root / photo).unlink()
            make(root / photo)

        return damage

    def truncated(share: float) -> Callable[[Path], object]:
        return lambda root: (root / photo).write_bytes(
            (root / photo).read_bytes()[: int(share * (root / photo).stat().st_size)]
        )  # fmt: skip

    def flipped(root: Path) -> None:
        data = bytearray((root / photo).read_bytes())
        data[60:5000:97] = bytes(len(data[60:5000:97]))
        (root / photo).write_bytes(data)

    buffer = io.BytesIO()
    Image.fromarray(np.full((90, 120), np.nan, np.float32)).save(buffer, "TIFF")
    refused: dict[str, Callable[[Path], object]] = {
        "empty": put(b""), "cut to a third": truncated(0.33), "cut by a byte's worth": truncated(0.6),
        "bytes changed": flipped, "HTML": put(b"<html><script>alert(1)</script></html>"), "pickle": put(PICKLE),
        "claims 60000 x 60000": lambda root: png_that_claims(root / photo, 60000, 60000),
        "claims 2^31 x 1": lambda root: png_that_claims(root / photo, 2**31 - 1, 1),
        "claims 13000 x 13000": lambda root: png_that_claims(root / photo, 13000, 13000),
        "claims 0 x 0": lambda root: png_that_claims(root / photo, 0, 0),
        "floating point": put(buffer.getvalue()),
        "dangling link": instead(lambda path: path.symlink_to("nowhere.png")),
        "loop of links": instead(lambda path: path.symlink_to(path.name)),
        "link to a text": instead(lambda path: path.symlink_to("/etc/hostname")),
        "unreadable": lambda root: (root / photo).chmod(0),
        "text chunk bomb": lambda root: _text_bomb(root / photo),
    }  # fmt: skip
    for name, damage in refused.items():
        answer: Answer = (
            "any" if name in ("dangling link", "loop of links", "bytes changed", "text chunk bomb") else "refused"
        )
        yield Case("image", name, parts, damage, PHOTOS, answer)
    any_: dict[str, Callable[[Path], object]] = {
        "a folder called as an image": instead(lambda path: path.mkdir()),
        "FIFO": instead(os.mkfifo), "socket name": instead(lambda path: os.mknod(path, 0o600 | 0o140000)),
        "one pixel": instead(lambda path: photograph((1, 1)).save(path)),
        "another size": instead(lambda path: photograph((97, 211)).save(path)),
        "one pixel high": instead(lambda path: photograph((400, 1)).save(path)),
        "black": instead(lambda path: Image.new("RGB", (120, 90)).save(path)),
        "all alike": lambda root: [shutil.copy(root / "photos/000000.png", file) for file in sorted((root / "photos").iterdir())[1:]],
        "all noise": lambda root: [photograph(seed=i).save(f) for i, f in enumerate(sorted((root / "photos").iterdir()))],
        "EXIF of rubbish": lambda root: _jpeg(root, b"Exif\0\0" + b"\xff" * 60),
        "orientation 65535": lambda root: _jpeg(root, exif(3, 1, b"\xff\xff\0\0")),
        "orientation as text": lambda root: _jpeg(root, exif(2, 2, b"6\0\0\0")),
        "orientation six": lambda root: _jpeg(root, exif(3, 1, b"\x06\0\0\0")),
        "focal length 0": lambda root: _jpeg(root, exif(3, 1, b"\0\0\0\0", 0xA405)),
        "focal length 65535": lambda root: _jpeg(root, exif(3, 1, b"\xff\xff\0\0", 0xA405)),
        "GIF": lambda root: _all_as(root, ".gif", "P"), "CMYK": lambda root: _all_as(root, ".jpg", "CMYK"),
        "transparent": lambda root: _all_as(root, ".webp", "RGBA", lossless=True),
        "16 bits": lambda root: _all_as(root, ".png", "I;16"), "one bit": lambda root: _all_as(root, ".png", "1"),
        "ICC of rubbish": lambda root: _all_as(root, ".png", "RGB", icc_profile=b"\0" * 50),
    }  # fmt: skip
    for number, (name, damage) in enumerate(any_.items()):
        yield Case("image", name, parts, damage, (PHOTOS[0], PHOTOS[1 + number % (len(PHOTOS) - 1)]))


def _text_bomb(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**8)) + data[33:])


# ---- names and folders -------------------------------------------------------------------------------------------

MARKUP = "<img src=x onerror=alert(1)>"


def name_cases() -> Iterator[Case]:
    parts = ("photos", "checkpoint")

    def called(*names: str | bytes) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            for file, name in zip(sorted((root / "photos").iterdir()), names):
                os.rename(os.fsencode(file), os.path.join(os.fsencode(root / "photos"), os.fsencode(name)))

        return damage

    def emptied(root: Path) -> None:
        shutil.rmtree(root / "photos")
        (root / "photos").mkdir()

    def only_one(root: Path) -> None:
        for file in sorted((root / "photos").iterdir())[1:]:
            file.unlink()

    def is_file(root: Path) -> None:
        shutil.rmtree(root / "photos")
        (root / "photos").write_bytes(b"photos")

    def gone(root: Path) -> None:
        shutil.rmtree(root / "photos")

    refused = {
        "newline": called(b"a\nb.png"), "escape": called(b"\x1b[31mred.png"), "latin-1": called(b"caf\xe9.png"),
        "tab and bell": called(b"a\t\x07.png"), "same but for case": called("a.png", "A.png"), "same stem": called("a.png", "a.jpg"),
        "no images": emptied, "one image": only_one, "a file": is_file, "gone": gone,
        "unreadable": lambda root: (root / "photos").chmod(0), "all hidden": called(".0.png", ".1.png", ".2.png"),
    }  # fmt: skip
    for name, damage in refused.items():
        yield Case("name", name, parts, damage, PHOTOS, "refused")
    fine = {
        "markup": called(f"{MARKUP}.png"), "quotes": called("a\"'&;.png"), "other scripts": called("写真 é.png", "😀.png"),
        "dots": called("a..b.png", "...png"), "long": called("x" * 250 + ".png"), "dash": called("--out.png", "-rf.png"),
        "right to left": called("\u202egnp.exe.png"), "hidden": called("._000000.png"), "percent": called("%2e%2e%2f.png"),
        "backslash": called("..\\..\\a.png"), "colon": called("C:a.png"), "spaces": called("  a .png", " .png"),
        "dollar": called("$(touch EXECUTED).png"), "braces": called("{capture}.png", "{0}.png", "%s.png"),
        "rich markup": called("[red]x[].png", "[link=file:x]a.png"),
    }  # fmt: skip
    for number, (name, damage) in enumerate(fine.items()):
        yield Case("name", name, parts, damage, (PHOTOS[number % 2], PHOTOS[2 + number % 3]))
    lists = {
        "missing": b"nowhere\n", "control": b"a\x1b[2J\n", "nul": b"a\0b\n", "latin-1": b"caf\xe9\n", "itself": b"list.txt\n",
        "empty": b"", "outside": b"../../../etc\n", "twice": b"capture\ncapture\n", "binary": bytes(range(256)),
        "long": b"x" * 5000 + b"\n",
    }  # fmt: skip
    for name, content in lists.items():
        yield Case("name", f"list of captures: {name}", ("capture", "checkpoint", "list.txt"),
                   lambda root, c=content: (root / "list.txt").write_bytes(c),
                   ("label list.txt --out out --depth none --no-judge", ADAPT.format("list.txt")))  # fmt: skip


# ---- what files name ---------------------------------------------------------------------------------------------

OUTSIDE = ("../secret.png", "{root}/../secret.png", "images/../../../secret.png", "..\\..\\secret.png", "a\0b.png",
           "\x1b[31m.png", "x" * 300 + ".png", "../../secret.png")  # fmt: skip


def path_cases() -> Iterator[Case]:
    def in_json(file: str, key: str, name: str) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            content = json.loads((root / file).read_text())
            content["frames"][1][key] = name.format(root=root)
            (root / file).write_text(json.dumps(content))

        return damage

    def in_text(file: str, number: int, name: str) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            lines = (root / file).read_text().splitlines()
            lines[number] = f"{lines[number].split()[0]} {name.format(root=root)}"
            (root / file).write_text("\n".join(lines) + "\n")

        return damage

    def in_model(name: str) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            file = root / "colmap/sparse/0/images.bin"
            file.write_bytes(file.read_bytes().replace(b"000001.png\0", name.format(root=root).encode() + b"\0"))

        return damage

    for name in OUTSIDE:
        for key in ("image", "depth"):
            yield Case("path", f"cameras.json {key} {name!r}", ("capture", "checkpoint"),
                       in_json("capture/cameras.json", key, name), (EVALUATE.format("capture"), "convert capture:capture --out out"),
                       "refused")  # fmt: skip
        for key in ("file_path", "depth_file_path"):
            yield Case("path", f"transforms.json {key} {name!r}", ("nerf", "checkpoint"),
                       in_json("nerf/transforms.json", key, name), of_scene("nerfstudio:nerf")[1:], "told")  # fmt: skip
        if "\0" not in name:
            yield Case("path", f"COLMAP {name!r}", ("colmap", "checkpoint"), in_model(name), of_scene("colmap:colmap")[1:],
                       "told")  # fmt: skip
        yield Case("path", f"benchmark's scene {name!r}", ("captures", "checkpoint", "benchmark.json"),
                   lambda root, n=name: (root / "benchmark.json").write_text(
                       json.dumps({"scenes": [{"root": "captures", "scene": n.format(root=root)}]})),
                   ("evaluate model:checkpoint@56 --benchmark benchmark.json --out out",), "refused")  # fmt: skip
        for file in ("rgb.txt", "depth.txt"):
            yield Case("path", f"TUM {file} {name!r}", ("tum", "checkpoint"), in_text(f"tum/{file}", 2, name),
                       of_scene("tum:tum")[1:], "told")  # fmt: skip


# ---- numbers -----------------------------------------------------------------------------------------------------


def number_cases() -> Iterator[Case]:
    nan, inf = float("nan"), float("inf")
    Ks: dict[str, Any] = {
        "NaN": [[nan, 0, 60], [0, 100, 45], [0, 0, 1]], "inf": [[inf, 0, 60], [0, 100, 45], [0, 0, 1]],
        "huge": [[1e300, 0, 60], [0, 1e300, 45], [0, 0, 1]], "tiny": [[1e-300, 0, 60], [0, 1e-300, 45], [0, 0, 1]],
        "negative": [[-100, 0, 60], [0, -100, 45], [0, 0, 1]], "normalised": [[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]],
        "twice the size": [[240, 0, 130], [0, 240, 95], [0, 0, 1]], "skewed": [[100, 40, 60], [0, 100, 45], [0, 0, 1]],
        "zeros": [[0] * 3] * 3, "of other shape": [[100, 100, 60, 45]], "text": "K", "nested": [[[[1]]]],
    }  # fmt: skip
    poses: dict[str, tuple[Any, Answer]] = {
        "mirrored": (np.diag([-1.0, 1, 1, 1]).tolist(), "refused"), "scaled": (np.diag([2.0, 2, 2, 1]).tolist(), "refused"),
        "zeros": (np.zeros((4, 4)).tolist(), "refused"), "3 x 4": (np.eye(4)[:3].tolist(), "any"),
        "NaN": (np.full((4, 4), nan).tolist(), "any"), "far": ([[1, 0, 0, 1e30], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "any"),
        "inf": ([[1, 0, 0, inf], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "any"),
        "farther than float32": ([[1, 0, 0, 1e200], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "any"),
    }  # fmt: skip

    def frame(key: str, value: Any, index: slice = slice(None)) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            content = json.loads((root / "capture/cameras.json").read_text())
            for entry in content["frames"][index]:
                entry[key] = value
            (root / "capture/cameras.json").write_text(json.dumps(content))

        return damage

    for name, K in Ks.items():
        yield Case("number", f"K {name}", ("capture", "checkpoint"), frame("K", K), CAPTURE[:3], "refused")
    for name, (pose, answer) in poses.items():
        for which, index in (("one", slice(1, 2)), ("all", slice(None))):
            yield Case("number", f"{which} pose {name}", ("capture", "checkpoint"), frame("cam_to_world", pose, index),
                       CAPTURE[1:3], answer)  # fmt: skip
    words = {
        "fov:nan": "refused", "fov:1e400": "refused", "fov:-5": "refused", "fov:0": "refused", "fov:180": "refused", "fov:": "refused",
        "exif:": "refused", "": "refused", "\x1b[31m": "refused", "fov:65;rm": "refused", "nowhere.json": "refused", "photos": "refused",
    }  # fmt: skip
    for word, answer in words.items():
        yield Case("number", f"--intrinsics {word!r}", ("photos", "checkpoint"), lambda root: None,
                   (f"label photos --out out --depth none --intrinsics={word}", f"reconstruct photos --out out.glb {NET} --intrinsics={word}"),
                   answer)  # fmt: skip


# ---- videos, masks, depth ----------------------------------------------------------------------------------------


def media_cases() -> Iterator[Case]:
    videos: dict[str, bytes | float] = {
        "random": bytes(range(256)) * 40, "empty": b"", "ffconcat": b"ffconcat version 1.0\nfile photos/000000.png\n",
        "HLS": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n", "half": 0.5, "most": 0.9,
    }  # fmt: skip

    def video(content: bytes | float) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            file = root / "video.mp4"
            whole = file.read_bytes()
            file.write_bytes(content if isinstance(content, bytes) else whole[: int(content * len(whole))])

        return damage

    for name, content in videos.items():
        verbs = tuple(verb.format("video.mp4") for verb in (LABEL, RECONSTRUCT, FIT, SHOW))
        yield Case("video", name, ("video.mp4", "checkpoint"), video(content), verbs,
                   "told" if isinstance(content, float) else "refused")  # fmt: skip
    masks: dict[str, Callable[[Path], object]] = {
        "of another size": lambda path: Image.new("L", (50, 50), 255).save(path), "text": lambda path: path.write_text("mask"),
        "a folder": lambda path: path.mkdir(), "claims 50000 x 50000": lambda path: png_that_claims(path, 50000, 50000, 8, 0),
        "black": lambda path: Image.new("L", (120, 90)).save(path), "unreadable": lambda path: (path.write_bytes(b"x"), path.chmod(0)),
    }  # fmt: skip
    for name, make in masks.items():

        def with_mask(root: Path, make: Callable[[Path], object] = make) -> None:
            (root / "capture/masks").mkdir()
            make(root / "capture/masks/000001.png")

        yield Case("mask", name, ("capture", "checkpoint"), with_mask,
                   ("label capture --out out --depth none --no-judge", "convert capture:capture --out out",
                    f"fit capture --out out --depth none --steps 1 --force {NET}"),
                   "any" if name in ("black", "a folder") else "told")  # fmt: skip
    depths: dict[str, tuple[Callable[[Path], object], Answer]] = {
        "of another size": (lambda path: Image.fromarray(np.full((30, 40), 1000, np.uint16)).save(path), "any"),
        "of another aspect": (lambda path: Image.fromarray(np.full((50, 50), 1000, np.uint16)).save(path), "refused"),
        "8 bits": (lambda path: Image.new("L", (120, 90), 7).save(path), "refused"),
        "colours": (lambda path: photograph().save(path), "refused"), "empty": (lambda path: path.write_bytes(b""), "refused"),
        "cut": (lambda path: path.write_bytes(path.read_bytes()[:200]), "refused"),
        "claims 24000 x 18000": (lambda path: png_that_claims(path, 24000, 18000, 16, 0), "refused"),
        "zeros": (lambda path: Image.fromarray(np.zeros((90, 120), np.uint16)).save(path), "any"),
        "a folder": (lambda path: (path.unlink(), path.mkdir()), "refused"), "gone": (lambda path: path.unlink(), "refused"),
    }  # fmt: skip
    for name, (make, answer) in depths.items():
        for parts, place, verbs in (
            ("capture", "capture/depth/000001.png", (EVALUATE.format("capture"), "convert capture:capture --out out")),
            ("nerf", "nerf/depth/000001.png", of_scene("nerfstudio:nerf")[1:]),
            ("tum", "tum/depth/1.0.png", of_scene("tum:tum")[1:]),
        ):
            yield Case("depth", f"{place} {name}", (parts, "checkpoint"), lambda root, m=make, p=place: m(root / p), verbs,
                       "any" if answer == "any" or parts == "tum" else answer)  # fmt: skip
    yield from _expert_depth_cases()


def _expert_depth_cases() -> Iterator[Case]:
    ones = np.ones((90, 120), np.float32)
    maps: dict[str, tuple[Callable[[Path], object], Answer]] = {
        "NaN": (lambda path: np.save(path, np.nan * ones), "any"), "inf": (lambda path: np.save(path, np.inf * ones), "any"),
        "zeros": (lambda path: np.save(path, 0 * ones), "any"), "negative": (lambda path: np.save(path, -ones), "any"),
        "huge": (lambda path: np.save(path, 3e38 * ones), "any"), "1e300": (lambda path: np.save(path, 1e300 * ones.astype(float)), "any"),
        "text": (lambda path: np.save(path, np.array(["a"])), "refused"), "pickle": (lambda path: path.write_bytes(PICKLE), "refused"),
        "objects": (lambda path: np.save(path, np.array([Executed()], object), allow_pickle=True), "refused"),
        "three axes": (lambda path: np.save(path, np.ones((2, 3, 4))), "refused"), "no pixels": (lambda path: np.save(path, np.ones((0, 0))), "refused"),
        "another aspect": (lambda path: np.save(path, np.ones((50, 50))), "refused"),
        "lies about its size": (lambda path: path.write_bytes(_npy_header((10**6, 10**6))), "refused"),
        "lies a little": (lambda path: path.write_bytes(_npy_header((90, 120)) + b"\0" * 100), "refused"),
        "complex": (lambda path: np.save(path, ones.astype(complex)), "refused"),
    }  # fmt: skip
    for name, (make, answer) in maps.items():

        def damage(root: Path, make: Callable[[Path], object] = make) -> None:
            (root / "maps").mkdir()
            for index in range(3):
                make(root / "maps" / f"{index:06d}.npy")

        yield Case("depth", f"expert's map {name}", ("capture", "checkpoint"), damage,
                   ("label capture --out out --depth folder:maps",
                    f"fit capture --out out --depth folder:maps --steps 1 --force {NET}"), answer)  # fmt: skip


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


# ---- binary models and datasets ----------------------------------------------------------------------------------


def dataset_cases(seed: int = 0) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    for file in ("cameras.bin", "images.bin", "points3D.bin"):
        for _ in range(6):
            share = rng.uniform(0.02, 0.98)

            def cut(root: Path, file: str = file, share: float = share) -> None:
                path = root / "colmap/sparse/0" / file
                path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

            yield Case("dataset", f"COLMAP {file} cut at {share:.2f}", ("colmap", "checkpoint"), cut, of_scene("colmap:colmap")[1:],
                       "refused" if file != "points3D.bin" else "any")  # fmt: skip
        for number in range(8):
            bits = rng.integers(0, 256, 8, dtype=np.uint8).tobytes()
            place = rng.uniform(0, 0.95)

            def overwritten(root: Path, file: str = file, bits: bytes = bits, place: float = place) -> None:
                path = root / "colmap/sparse/0" / file
                data = bytearray(path.read_bytes())
                at = int(place * (len(data) - 8))
                data[at : at + 8] = bits
                path.write_bytes(data)

            yield Case("dataset", f"COLMAP {file} overwritten {number}", ("colmap", "checkpoint"), overwritten,
                       (of_scene("colmap:colmap")[number % 3],))  # fmt: skip

        def counts(root: Path, file: str = file) -> None:
            path = root / "colmap/sparse/0" / file
            path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])

        yield Case("dataset", f"COLMAP {file} counts 2^60", ("colmap", "checkpoint"), counts, of_scene("colmap:colmap")[1:],
                   "refused" if file != "points3D.bin" else "any")  # fmt: skip
    texts = (b"", b"# only a comment\n", b"\xff\xfe\0", b"nan nan nan nan nan nan nan nan\n", b"0.0\n", b"1.0 rgb/1.0.png extra words\n" * 3,
             b"1e400 0 0 0 0 0 0 1\n", b"0.0 0 0 0 0 0 0 0\n" * 3, b"x" * 100_000)  # fmt: skip
    for number, content in enumerate(texts):
        for file in ("rgb.txt", "depth.txt", "groundtruth.txt"):
            yield Case("dataset", f"TUM {file} {number}", ("tum", "checkpoint"),
                       lambda root, f=file, c=content: (root / "tum" / f).write_bytes(c), (of_scene("tum:tum")[number % 3],))  # fmt: skip
    for place in ("colmap/sparse/0/images.bin", "tum/rgb.txt", "nerf/transforms.json", "capture/cameras.json"):
        kind = {"colmap": "colmap", "tum": "tum", "nerf": "nerfstudio", "capture": "capture"}[place.split("/")[0]]
        part = place.split("/")[0]

        def folder(root: Path, place: str = place) -> None:
            (root / place).unlink()
            (root / place).mkdir()

        for name, damage in (("is a folder", folder), ("is unreadable", lambda root, p=place: (root / p).chmod(0))):
            yield Case("dataset", f"{place} {name}", (part, "checkpoint"), damage, of_scene(f"{kind}:{part}"))
    for content in (b"", b"=", b"[colmap]\nweights = 5\n", b"[a]\n[a]\n", b"\xff", b"a = " + b"[" * 5000, b"[pi3]\nweights = '../x'\n",
                    b"[colmap]\npython = '/dev/null'\nrepo = '/'\n"):  # fmt: skip
        yield Case("dataset", f"systems.toml {content[:12]!r}", ("capture", "checkpoint", "systems.toml"),
                   lambda root, c=content: (root / "systems.toml").write_bytes(c),
                   ("evaluate model:checkpoint@56 --systems systems.toml --capture capture --out out",))  # fmt: skip


# ---- labels ------------------------------------------------------------------------------------------------------


def _npz(path: Path, **arrays: Any) -> None:
    with np.load(path) as content:
        stored = {name: content[name] for name in content.files}
    stored = {name: value for name, value in {**stored, **arrays}.items() if value is not None}
    np.savez(path, **stored)


def _npz_raw(path: Path, name: str, content: bytes) -> None:
    """One member replaced by any bytes."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members[f"{name}.npy"] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def _bomb(path: Path, name: str, shape: tuple[int, ...], real: int) -> None:
    """A member that unpacks to ``real`` bytes of a thousandth of that, whose header claims ``shape``."""
    _npz_raw(path, name, _npy_header(shape) + bytes(real))


def label_cases() -> Iterator[Case]:
    tracks, depth = "labels/tracks.npz", "labels/depth/000001.npz"
    seen = np.dtype([("track", "<i4"), ("uv", "<f4", (2,)), ("weight", "<f4")])

    def observations(**values: float) -> np.ndarray:
        array = np.zeros(10, seen)
        array["track"], array["weight"], array["uv"] = np.arange(10), 1, 20
        for name, value in values.items():
            array[name] = value
        return array

    damages: dict[str, Callable[[Path], object]] = {
        "tracks cut": lambda root: (root / tracks).write_bytes((root / tracks).read_bytes()[:900]),
        "tracks pickle": lambda root: (root / tracks).write_bytes(PICKLE),
        "tracks of objects": lambda root: np.savez(root / tracks, key=np.array([Executed()], object), allow_pickle=True),
        "tracks without views": lambda root: _npz(root / tracks, view00001=None),
        "tracks NaN": lambda root: _npz(root / tracks, view00001=observations(uv=np.nan)),
        "tracks inf": lambda root: _npz(root / tracks, view00001=observations(uv=np.inf)),
        "tracks far": lambda root: _npz(root / tracks, view00001=observations(uv=1e30)),
        "tracks weigh NaN": lambda root: _npz(root / tracks, view00001=observations(weight=np.nan)),
        "tracks weigh -1": lambda root: _npz(root / tracks, view00001=observations(weight=-1)),
        "tracks weigh 1e30": lambda root: _npz(root / tracks, view00001=observations(weight=1e30)),
        "tracks numbered -5": lambda root: _npz(root / tracks, view00001=observations(track=-5)),
        "tracks numbered 2^31": lambda root: _npz(root / tracks, view00001=observations(track=2**31 - 1)),
        "tracks none": lambda root: _npz(root / tracks, view00000=observations()[:0], view00001=observations()[:0]),
        "tracks shape 10^12": lambda root: _npz(root / tracks, shape=np.array([10**12, 5])),
        "tracks shape NaN": lambda root: _npz(root / tracks, shape=np.array([np.nan, 5])),
        "tracks shape 3 x 10^8": lambda root: _npz(root / tracks, shape=np.array([3, 10**8])),
        "tracks key is a list": lambda root: _npz(root / tracks, key=np.array("[]")),
        "tracks header lies": lambda root: _npz_raw(root / tracks, "view00001", _npy_header((10**12,))),
        "tracks of rubbish": lambda root: _npz_raw(root / tracks, "view00001", b"\x93NUMPY" + b"\xff" * 50),
        "depth cut": lambda root: (root / depth).write_bytes((root / depth).read_bytes()[:300]),
        "depth gone": lambda root: (root / depth).unlink(),
        "depth header lies": lambda root: _npz_raw(root / depth, "code", _npy_header((10**6, 10**6))),
        "depth bomb": lambda root: _bomb(root / depth, "code", (3 * 10**4, 10**4), 12 * 10**8),
        "depth of floats": lambda root: _npz(root / depth, code=np.full((90, 120), np.nan)),
        "depth of one axis": lambda root: _npz(root / depth, code=np.ones(5, np.uint16)),
        "depth no pixels": lambda root: _npz(root / depth, code=np.ones((0, 0), np.uint16)),
        "depth another aspect": lambda root: _npz(root / depth, code=np.ones((50, 50), np.uint16)),
        "depth limits NaN": lambda root: _npz(root / depth, code=np.ones((90, 120), np.uint16), limits=np.array([np.nan, 1])),
        "depth limits 1e300": lambda root: _npz(root / depth, code=np.ones((90, 120), np.uint16), limits=np.array([1e300, 1e300])),
        "depth limits gone": lambda root: _npz(root / depth, limits=None),
        "depth fov text": lambda root: _npz(root / depth, fov=np.array("wide")),
        "depth is a folder": lambda root: ((root / depth).unlink(), (root / depth).mkdir()),
    }  # fmt: skip
    for number, (name, damage) in enumerate(damages.items()):

        def sealed(root: Path, damage: Callable[[Path], object] = damage) -> None:
            damage(root)
            reseal_labels(root / "labels")

        verbs = (LABELS[0], LABELS[2 + number % 5])
        yield Case("labels", name, ("capture", "labels", "checkpoint"), sealed, verbs)
    names = ("../../ESCAPED", "/tmp/ESCAPED", "a\0b", "\x1b[31m", "..", MARKUP, "x" * 300)
    for number, name in enumerate(names):

        def renamed(root: Path, name: str = name) -> None:
            manifest = json.loads((root / "labels/manifest.json").read_text())
            frames = copy.deepcopy(manifest["frames"])
            frames[1]["name"] = name
            files = {**manifest["files"], f"depth/{name}.npz": manifest["files"]["depth/000001.npz"]}
            reseal_labels(root / "labels", frames=frames, files=files)

        yield Case("labels", f"frame called {name!r}", ("capture", "labels", "checkpoint"), renamed,
                   (LABELS[0], LABELS[1], LABELS[2 + number % 5]))  # fmt: skip


# ---- weights, training state, runs -------------------------------------------------------------------------------


def weight_cases() -> Iterator[Case]:
    file = "checkpoint/model.safetensors"

    def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            stored = load_file(root / file)
            change(stored)
            save_file(stored, root / file)

        return damage

    def raw(content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda root: (root / file).write_bytes(content((root / file).read_bytes()))

    def header(entries: dict) -> bytes:
        text = json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text

    def first(stored: dict[str, torch.Tensor]) -> str:
        return sorted(name for name, value in stored.items() if value.ndim == 2)[0]

    lie = {"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**62]}}
    refused: dict[str, Callable[[Path], object]] = {
        "empty": raw(lambda data: b""), "cut": raw(lambda data: data[: len(data) // 2]), "pickle": raw(lambda data: PICKLE),
        "header 2^62": raw(lambda data: struct.pack("<Q", 2**62) + data[8:]), "header lies": raw(lambda data: header(lie) + bytes(64)),
        "header is a list": raw(lambda data: header([])), "zeros": raw(lambda data: bytes(100)),
        "a tensor gone": tensors(lambda stored: stored.pop(first(stored))),
        "a tensor turned": tensors(lambda stored: stored.update({first(stored): stored[first(stored)].reshape(-1)})),
        "a tensor too many": tensors(lambda stored: stored.update({"extra": torch.zeros(3)})),
        "gone": lambda root: (root / file).unlink(), "a folder": lambda root: ((root / file).unlink(), (root / file).mkdir()),
        "unreadable": lambda root: (root / file).chmod(0), "no config": lambda root: (root / "checkpoint/config.json").unlink(),
        "a link to nowhere": lambda root: ((root / file).unlink(), (root / file).symlink_to("nowhere")),
        "pytorch_model.bin": lambda root: ((root / file).unlink(), (root / "checkpoint/pytorch_model.bin").write_bytes(PICKLE)),
    }  # fmt: skip
    for number, (name, damage) in enumerate(refused.items()):
        verbs = (CHECKPOINT[number % 6], CHECKPOINT[(number + 2) % 6])
        yield Case("weights", name, ("capture", "checkpoint"), damage, verbs, "refused")
    for name, value in (("NaN", float("nan")), ("inf", float("inf")), ("huge", 1e30), ("zeros", 0.0)):
        yield Case("weights", f"all {name}", ("capture", "checkpoint"),
                   tensors(lambda stored, v=value: [stored.update({k: t * 0 + v}) for k, t in list(stored.items()) if t.is_floating_point()]),
                   (CHECKPOINT[0], CHECKPOINT[1], CHECKPOINT[5], CHECKPOINT[4]), "told" if name != "zeros" else "any")  # fmt: skip
    disguised = {
        "pi3:FILE.pt": "--model pi3:weights.pt", "pi3:FILE.safetensors": "--model pi3:weights.safetensors", "dinov2": "--init-from dinov2:weights.pt",
        "vggt": "--init-from vggt:weights.pt", "a file": "--model weights.pt", "onnx": "--depth onnx:weights.onnx",
        "cotracker": "--tracks cotracker:weights.pt", "folder of pt": "--model pi3:weights",
    }  # fmt: skip
    for name, words in disguised.items():

        def written(root: Path) -> None:
            (root / "weights").mkdir()
            for suffix in ("pt", "safetensors", "onnx", "bin"):
                (root / f"weights.{suffix}").write_bytes(PICKLE)
            torch.save({"a": Executed()}, root / "weights/model.pt")
            torch.save({"a": Executed()}, root / "weights.pt")

        depth = "" if "--depth" in words else "--depth none"
        yield Case("weights", f"pickle as {name}", ("capture",), written,
                   (f"fit capture --out out {depth} --steps 1 --force --image-size 56 {words}",), "refused")  # fmt: skip
    configs: dict[str, Any] = {
        "wide": {"dim": 2**20}, "deep": {"encoder_depth": 10**7}, "heads": {"heads": 7}, "no patch": {"patch_size": 0}, "negative": {"dim": -32},
        "many heads": {"heads": 10**9}, "large grid": {"encoder_grid": 10**6}, "patch": {"patch_size": 10**6}, "image": {"image_size": 10**9},
        "image 1": {"image_size": 1}, "image text": {"image_size": "big"}, "code": {"_target_": "os.system"}, "fov": {"fov": "wide"},
    }  # fmt: skip
    for number, (name, change) in enumerate(configs.items()):

        def configured(root: Path, change: dict = change) -> None:
            path = root / "checkpoint/config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

        yield Case(
            "weights",
            f"config {name}",
            ("capture", "checkpoint"),
            configured,
            (CHECKPOINT[0], CHECKPOINT[1 + number % 5]),
        )


def run_cases(sound: Path) -> Iterator[Case]:
    training = sound / "run/training"
    step = next(path for path in training.iterdir() if path.name.isdigit()).name
    parts, state, npz = ("capture", "run"), f"run/training/{step}", "run/prediction/prediction.npz"

    def states(change: Callable[[dict], object]) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            stored = torch.load(root / state / "state.pt", weights_only=True)
            change(stored)
            torch.save(stored, root / state / "state.pt")
            reseal_state(root / state)

        return damage

    def moments(value: Callable[[torch.Tensor], Any]) -> Callable[[dict], object]:
        def change(stored: dict) -> None:
            for entries in stored["optimizer"]["state"].values():
                for name, tensor in list(entries.items()):
                    if isinstance(tensor, torch.Tensor) and tensor.ndim:
                        entries[name] = value(tensor)

        return change

    def raw_state(content: bytes) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            (root / state / "state.pt").write_bytes(content)
            reseal_state(root / state)

        return damage

    states_: dict[str, Callable[[Path], object]] = {
        "moments of one number": states(moments(lambda tensor: torch.zeros(1))),
        "moments turned": states(moments(lambda tensor: tensor.reshape(-1))),
        "moments text": states(moments(lambda tensor: "m")), "moments NaN": states(moments(lambda tensor: tensor * float("nan"))),
        "no optimizer": states(lambda stored: stored.pop("optimizer")), "optimizer is a list": states(lambda s: s.update(optimizer=[])),
        "optimizer empty": states(lambda s: s.update(optimizer={})), "no state": states(lambda s: s["optimizer"].update(state={})),
        "groups gone": states(lambda s: s["optimizer"].update(param_groups=[])), "step text": states(lambda s: s.update(step="two")),
        "step -5": states(lambda s: s.update(step=-5)), "step 10^30": states(lambda s: s.update(step=10**30)),
        "step NaN": states(lambda s: s.update(step=float("nan"))), "elapsed NaN": states(lambda s: s.update(elapsed=float("nan"))),
        "random of rubbish": states(lambda s: s.update(random={"cpu": torch.zeros(1, 3)})), "random a list": states(lambda s: s.update(random=[1])),
        "something else": states(lambda s: s.update(more=1)), "lr NaN": states(lambda s: [g.update(lr=float("nan")) for g in s["optimizer"]["param_groups"]]),
        "pickle": raw_state(PICKLE), "empty": raw_state(b""), "zip of nothing": raw_state(b"PK\5\6" + bytes(18)),
    }  # fmt: skip
    for name, damage in states_.items():
        yield Case("state", name, parts, damage, RESUME)

    def prediction(**arrays: Any) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            _npz(root / npz, **arrays)
            reseal_prediction(root / "run/prediction")

        return damage

    def raw(name: str, content: bytes) -> Callable[[Path], object]:
        def damage(root: Path) -> None:
            _npz_raw(root / npz, name, content)
            reseal_prediction(root / "run/prediction")

        return damage

    with np.load(sound / npz) as content:
        stored = {name: content[name] for name in content.files}
    for number, (name, value) in enumerate(stored.items()):
        floats = value.astype(np.float64) if value.dtype.kind == "f" else value
        damages = {
            "gone": prediction(**{name: None}), "flat": prediction(**{name: value.reshape(-1)}), "none": prediction(**{name: value[:0]}),
            "lies": raw(name, _npy_header((10**6, 10**6))), "rubbish": raw(name, b"\x93NUMPY\xff"),
        }  # fmt: skip
        if value.dtype.kind == "f":
            damages |= {word: prediction(**{name: (floats * 0 + bad).astype(np.float32)}) for word, bad in
                        (("NaN", np.nan), ("inf", np.inf), ("huge", 3e38), ("zeros", 0.0), ("negative", -1.0))}  # fmt: skip
        for order, (word, damage) in enumerate(damages.items()):
            yield Case(
                "run",
                f"prediction's {name} {word}",
                parts,
                damage,
                (RUN[(number + order) % 5], RUN[(number + order + 2) % 5]),
            )
    for number, name in enumerate(
        ("../../ESCAPED", "/tmp/ESCAPED", "a\0b", "\x1b[31m", "..", MARKUP, "x" * 300, "a/b", "con\n", "")
    ):
        for key in ("names", "image_files"):

            def named(root: Path, name: str = name, key: str = key) -> None:
                path = root / "run/prediction/prediction.json"
                content = json.loads(path.read_text())
                content[key][1] = name
                path.write_text(json.dumps(content))

            yield Case("run", f"{key} {name[:30]!r}", parts, named, (RUN[0], RUN[1 + number % 4]))
    places_: dict[str, Callable[[Path], object]] = {
        "no prediction": lambda root: shutil.rmtree(root / "run/prediction"), "no labels": lambda root: shutil.rmtree(root / "run/labels"),
        "no images": lambda root: shutil.rmtree(root / "run/images"), "no capture": lambda root: shutil.rmtree(root / "capture"),
        "refined is a file": lambda root: (root / "run/refined").write_text("x"), "refined is empty": lambda root: (root / "run/refined").mkdir(),
        "metrics of rubbish": lambda root: (root / "run/metrics.jsonl").write_bytes(b"\xff\n{}\n[1]\n{\"step\": \"a\"}\n"),
        "images is a file": lambda root: (shutil.rmtree(root / "run/images"), (root / "run/images").write_text("x")),
        "images leads outside": lambda root: (shutil.rmtree(root / "run/images"), (root / "run/images").symlink_to("../elsewhere")),
        "a photograph replaced": lambda root: photograph(seed=5).save(root / "capture/images/000001.png"),
        "a photograph gone": lambda root: (root / "capture/images/000001.png").unlink(),
        "all replaced by HTML": lambda root: [f.write_text("<html>") for f in (root / "run/images").iterdir()],
        "checkpoint gone": lambda root: shutil.rmtree(root / "run/checkpoint"), "training gone": lambda root: shutil.rmtree(root / "run/training"),
        "unreadable": lambda root: (root / "run").chmod(0), "is a file": lambda root: (shutil.rmtree(root / "run"), (root / "run").write_text("x")),
        "empty": lambda root: (shutil.rmtree(root / "run"), (root / "run").mkdir()),
    }  # fmt: skip
    for name, damage in places_.items():
        yield Case("run", name, parts, damage, (*RUN, *RESUME))


# ---- faults of the machine ---------------------------------------------------------------------------------------


def fault_cases(*, run: bool) -> Iterator[Case]:
    verbs = [PHOTOS[0], PHOTOS[1], "convert capture:capture --out out", "report-labels labels --out out", "synth --out out --views 2 --span 16",
             EVALUATE.format("capture"), SHOW.format("capture"), "export-weights --model checkpoint --out out.safetensors", PHOTOS[2]]  # fmt: skip
    parts = ["photos", "capture", "labels", "checkpoint"]
    if run:
        verbs += ["export run --out out", "refine run"]
        parts += ["run"]
    for verb in verbs:
        name, used = verb.split()[0], tuple(part for part in parts if part in verb)
        for limit in (0, 3000, 60000):
            yield Case(
                "fault",
                f"{name}: files of {limit} bytes at most",
                used,
                lambda root: None,
                (verb,),
                faults=(f"full {limit}",),
            )
    places_ = {
        "a file": lambda root: [(root / name).write_text("mine") for name in ("out", "out.safetensors")],
        "a dangling link": lambda root: [(root / name).symlink_to("nowhere/deep") for name in ("out", "out.safetensors")],
        "a loop": lambda root: [(root / name).symlink_to(name) for name in ("out", "out.safetensors")],
        "closed": lambda root: root.chmod(0o555),
    }  # fmt: skip
    for name, damage in places_.items():
        for verb in verbs[:9]:
            used = tuple(part for part in parts if part in verb)
            yield Case(
                "fault",
                f"{verb.split()[0]}: out is {name}",
                used,
                damage,
                (verb,),
                "refused" if name != "a dangling link" else "any",
            )
    for fault in ("no-stdout", "pipe", "full-stdout"):
        for verb in (
            "datasets",
            "experts",
            "baselines",
            "train --list",
            "fit --help",
            *verbs[:4],
            "verify-labels labels",
        ):
            used = tuple(part for part in parts if part in re.split("[ :]", verb))
            yield Case("fault", f"{verb.split()[0]}: {fault}", used, lambda root: None, (verb,), faults=(fault,))
    words = ("", "\x1b[31m", "--nothing", "fit", "../../..", "x" * 5000, "caf\udce9", "label --depth", "{}")
    for word in words:
        for verb in ("fit", "train", "adapt", "label", "prepare", "reconstruct", "evaluate", "convert", "export", "refine", "show", "view",
                     "datasets", "verify-labels", "report-labels", "export-weights"):  # fmt: skip
            line = {
                "evaluate": f"evaluate {word} --capture {word} --out out",
                "export-weights": f"export-weights --model {word} --out out.safetensors",
                "show": f"show {word} {word} --out out",
                "train": f"train {word} --out out",
                "prepare": f"prepare tiny-cpu --data {word}",
            }
            yield Case("word", f"{verb} {word[:20]!r}", (), lambda root: None,
                       (line.get(verb, f"{verb} {word} --out out" if verb in ("fit", "adapt", "label", "reconstruct", "convert", "export") else f"{verb} {word}"),))  # fmt: skip
