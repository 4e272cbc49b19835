# ruff: noqa: E501 - tables: a case a line
"""What an outsider tried on what :mod:`bad_files` did not have: other files of the same kinds.

Formats and tags of photographs, files that are no files, names that only one system tells apart, JSON that says a
thing twice, COLMAP models and TUM lists of other editors, masks as people draw them, videos of odd streams, weights of
other types, results that would fall upon what they were made from, and full disks under every verb that writes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bad_files import (
    ADAPT,
    CAPTURE,
    CHECKPOINT,
    EVALUATE,
    FIT,
    LABEL,
    NET,
    PHOTOS,
    RECONSTRUCT,
    RUN,
    SHOW,
    Answer,
    Case,
    exif,
    of_scene,
)  # fmt: skip
from sound_files import SIZE, photograph

Damage = Callable[[Path], object]
COLMAP, NERF, TUM = of_scene("colmap:colmap"), of_scene("nerfstudio:nerf"), of_scene("tum:tum")
RANK = "rank model:checkpoint@56 colmap --footage photos --out out"


def outside_cases(*, run: bool) -> Iterator[Case]:
    yield from _photographs()
    yield from _no_files()
    yield from _names()
    yield from _texts()
    yield from _models()
    yield from _cameras()
    yield from _masks()
    yield from _videos()
    yield from _weights()
    yield from _upon_itself(run=run)
    yield from _full_disks()
    if run:
        yield from _runs()


def _stem_changed(file: Path, suffix: str, image: Image.Image, **options: Any) -> None:
    file.unlink()
    image.save(file.with_suffix(suffix), **options)


def _photographs() -> Iterator[Case]:
    parts = ("photos", "checkpoint")

    def all_as(suffix: str, mode: str = "RGB", **options: Any) -> Damage:
        def damage(root: Path) -> None:
            if suffix == ".heic":
                import pillow_heif

                pillow_heif.register_heif_opener()
            for file in sorted((root / "photos").iterdir()):
                _stem_changed(file, suffix, Image.open(file).convert(mode), **options)

        return damage

    def several(suffix: str) -> Damage:
        def damage(root: Path) -> None:
            for file in sorted((root / "photos").iterdir()):
                more = [photograph(seed=7), photograph(seed=8)]
                _stem_changed(file, suffix, Image.open(file), save_all=True, append_images=more)

        return damage

    def sized(*size: int) -> Damage:
        return lambda root: [photograph(size, i).save(f) for i, f in enumerate(sorted((root / "photos").iterdir()))]

    for suffix in (".heic", ".avif", ".webp", ".tiff", ".png", ".jpg"):
        for tag in (3, 6):
            turned = exif(3, 1, struct.pack("<HH", tag, 0))
            yield Case(
                "image", f"{suffix} turned by tag {tag}", parts, all_as(suffix, exif=turned), (PHOTOS[0],), "right"
            )
    kinds = {
        "LAB TIFF": all_as(".tiff", "LAB"), "YCbCr TIFF": all_as(".tiff", "YCbCr"), "grey with alpha": all_as(".png", "LA"),
        "32-bit integers": all_as(".tiff", "I"), "JPEG 2000": all_as(".jp2"), "PPM": all_as(".ppm"), "PGM": all_as(".pgm", "L"),
        "one bit TIFF": all_as(".tiff", "1"), "palette with alpha": all_as(".png", "P", transparency=0),
        "HEIC called JPEG": lambda root: (all_as(".heic")(root), [f.rename(f.with_suffix(".jpg")) for f in sorted((root / "photos").iterdir())]),
        "PNG called HEIC": lambda root: [f.rename(f.with_suffix(".heic")) for f in sorted((root / "photos").iterdir())],
        "400 x 10": sized(400, 10), "10 x 400": sized(10, 400), "all of one pixel": sized(1, 1), "of 9 x 9": sized(9, 9),
    }  # fmt: skip
    for number, (name, damage) in enumerate(kinds.items()):
        yield Case("image", name, parts, damage, (PHOTOS[0], PHOTOS[1 + number % 4]))
    for width, height in ((12000, 3), (3, 12000), (400, 2)):
        yield Case("image", f"{width} x {height}", parts, sized(width, height), PHOTOS[:2], "refused")
    for suffix in (".gif", ".png", ".webp", ".tiff"):
        yield Case("image", f"several pictures in one {suffix}", parts, several(suffix), (PHOTOS[0],), "told")


def _no_files() -> Iterator[Case]:
    """FIFOs, devices and links where a file is read: none of them may be waited for."""

    def instead(place: str, make: Damage) -> Damage:
        def damage(root: Path) -> None:
            (root / place).unlink()
            make(root / place)

        return damage

    places: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "photos/000001.png": (("photos", "checkpoint"), (PHOTOS[0], PHOTOS[1])),
        "capture/images/000001.png": (("capture", "checkpoint"), (CAPTURE[0], CAPTURE[2])),
        "capture/cameras.json": (("capture", "checkpoint"), CAPTURE[:3]),
        "capture/depth/000001.png": (("capture", "checkpoint"), CAPTURE[1:3]),
        "nerf/images/000001.png": (("nerf", "checkpoint"), NERF[1:]), "nerf/transforms.json": (("nerf", "checkpoint"), NERF),
        "nerf/depth/000001.png": (("nerf", "checkpoint"), NERF[1:2]),
        "colmap/images/000001.png": (("colmap", "checkpoint"), COLMAP[1:]), "colmap/sparse/0/images.bin": (("colmap", "checkpoint"), COLMAP[1:]),
        "colmap/sparse/0/points3D.bin": (("colmap", "checkpoint"), COLMAP[1:2]), "tum/rgb/1.0.png": (("tum", "checkpoint"), TUM[1:]),
        "tum/groundtruth.txt": (("tum", "checkpoint"), TUM[1:]), "tum/depth.txt": (("tum", "checkpoint"), TUM[1:2]),
        "labels/manifest.json": (("capture", "labels", "checkpoint"), ("verify-labels labels", f"fit capture --labels labels --out out --steps 1 --force {NET}")),
        "labels/tracks.npz": (("capture", "labels", "checkpoint"), ("verify-labels labels", "adapt capture --labels labels --out out --steps 1 " + NET)),
        "labels/quality.json": (("capture", "labels"), ("report-labels labels --out out",)),
        "store/store.json": (("captures", "store"), ("verify-labels store", "report-labels store --out out")),
        "checkpoint/config.json": (("capture", "checkpoint"), CHECKPOINT[:2]),
        "checkpoint/model.safetensors": (("capture", "checkpoint"), (CHECKPOINT[0], CHECKPOINT[3])),
        "K.json": (("K.json", "photos"), ("label photos --out out --depth none --intrinsics K.json",)),
        "list.txt": (("capture", "list.txt"), ("label list.txt --out out --depth none --no-judge",)),
        "systems.toml": (("capture", "checkpoint", "systems.toml"), ("evaluate model:checkpoint@56 --systems systems.toml --capture capture --out out",)),
        "benchmark.json": (("capture", "checkpoint", "benchmark.json"), ("evaluate model:checkpoint@56 --benchmark benchmark.json --out out",)),
        "video.mp4": (("video.mp4", "checkpoint"), (LABEL.format("video.mp4"),)),
    }  # fmt: skip
    for place, (parts, verbs) in places.items():
        answer: Answer = (
            "any"
            if "points3D" in place or "store.json" in place or "quality" in place or "depth.txt" in place
            else "told"
        )
        yield Case("no file", f"{place} is a FIFO", parts, instead(place, os.mkfifo), verbs, answer)
        yield Case(
            "no file",
            f"{place} is /dev/zero",
            parts,
            instead(place, lambda path: path.symlink_to("/dev/zero")),
            verbs[:1],
            answer,
        )
        yield Case(
            "no file",
            f"{place} is a link to itself",
            parts,
            instead(place, lambda path: path.symlink_to(path.name)),
            verbs[-1:],
            answer,
        )
        yield Case(
            "no file",
            f"{place} is a link to nowhere",
            parts,
            instead(place, lambda path: path.symlink_to("nowhere")),
            verbs[:1],
            answer,
        )


def _names() -> Iterator[Case]:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    parts = ("photos", "checkpoint")

    def called(*names: str) -> Damage:
        return lambda root: [f.rename(f.with_name(n)) for f, n in zip(sorted((root / "photos").iterdir()), names)]

    def below(root: Path) -> None:
        """As cameras store them: the counter begins anew in each folder."""
        (root / "photos/101CANON").mkdir()
        for seed, name in enumerate(("000000.png", "more.png")):
            photograph(seed=seed).save(root / "photos/101CANON" / name)

    def linked(root: Path) -> None:
        (root / "photos").rename(root / "real")
        (root / "photos").symlink_to("real")

    yield Case(
        "name", "composed and decomposed", parts, called(f"{composed}.png", f"{decomposed}.png"), PHOTOS[:3], "refused"
    )
    yield Case("name", "sharp s", parts, called("stra\u00dfe.png", "STRASSE.png"), PHOTOS[:2], "refused")
    yield Case("name", "decomposed alone", parts, called(f"{decomposed}.png"), (PHOTOS[0],), "right")
    yield Case("name", "more in a folder below", parts, below, (PHOTOS[0], PHOTOS[2]), "told")
    yield Case("name", "the folder is a link", parts, linked, (PHOTOS[0], PHOTOS[1]), "right")

    def in_cameras(*names: str) -> Damage:
        def damage(root: Path) -> None:
            content = json.loads((root / "capture/cameras.json").read_text())
            for entry, name in zip(content["frames"], names):
                entry["name"] = name
            (root / "capture/cameras.json").write_text(json.dumps(content))

        return damage

    same = {"twice": ("a", "a"), "case": ("a", "A"), "composed": (composed, decomposed)}
    for name, names in same.items():
        yield Case(
            "name", f"cameras.json: {name}", ("capture", "checkpoint"), in_cameras(*names), CAPTURE[:3], "refused"
        )
    odd = ("CON", "a:b", "a*b?", "x" * 255, "-rf", "a\u202eb", "\ufeffa", "a\u2028b", "~", "$HOME", "..a", "a.", " a")
    for number, name in enumerate(odd):
        verb = ("label capture --out out --depth none --no-judge", "convert capture:capture --out out", FIT.format("capture"),
                EVALUATE.format("capture"), SHOW.format("capture"))[number % 5]  # fmt: skip
        yield Case(
            "name",
            f"cameras.json: {name[:20]!r}",
            ("capture", "checkpoint"),
            in_cameras(name),
            (verb, "convert capture:capture --out out"),
        )


def _texts() -> Iterator[Case]:
    """JSON and text as other editors and other systems write them."""
    files: dict[str, tuple[tuple[str, ...], str]] = {
        "capture/cameras.json": (("capture", "checkpoint"), "convert capture:capture --out out"),
        "nerf/transforms.json": (("nerf", "checkpoint"), "convert nerfstudio:nerf --out out"),
        "K.json": (("K.json", "photos"), "label photos --out out --depth none --no-judge --intrinsics K.json"),
        "benchmark.json": (("capture", "checkpoint", "benchmark.json"), "evaluate model:checkpoint@56 --benchmark benchmark.json --out out"),
        "checkpoint/config.json": (("capture", "checkpoint"), CHECKPOINT[0]),
        "tum/rgb.txt": (("tum", "checkpoint"), "convert tum:tum --out out"), "tum/groundtruth.txt": (("tum", "checkpoint"), "convert tum:tum --out out"),
        "list.txt": (("capture", "list.txt"), "label list.txt --out out --depth none --no-judge"),
        "systems.toml": (("capture", "checkpoint", "systems.toml"), "evaluate model:checkpoint@56 --systems systems.toml --capture capture --out out"),
    }  # fmt: skip

    def rewritten(file: str, change: Callable[[str], bytes]) -> Damage:
        return lambda root: (root / file).write_bytes(change((root / file).read_text()))

    changes: dict[str, tuple[Callable[[str], bytes], Answer]] = {
        "CRLF": (lambda text: text.replace("\n", "\r\n").encode(), "right"),
        "a byte-order mark": (lambda text: text.encode("utf-8-sig"), "right"),
        "UTF-16": (lambda text: text.encode("utf-16"), "refused"), "UTF-32": (lambda text: text.encode("utf-32"), "refused"),
        "zeros behind it": (lambda text: text.encode() + b"\0" * 4096, "refused"), "a page of HTML": (lambda text: b"<!DOCTYPE html><html>404</html>", "refused"),
        "a pointer of Git LFS": (lambda text: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "refused"),
    }  # fmt: skip
    for file, (parts, verb) in files.items():
        for name, (change, answer) in changes.items():
            possible = "any" if answer == "right" and file == "checkpoint/config.json" else answer  # PyTorch's to read
            yield Case("text", f"{file} with {name}", parts, rewritten(file, change), (verb,), possible)
    for file, (parts, verb) in list(files.items())[:5]:

        def twice(text: str) -> bytes:
            content = json.loads(text)
            key = next(key for key in ("frames", "K", "scenes", "dim") if key in content)
            return (text.rstrip()[:-1] + f', "{key}": {json.dumps(content[key])}}}').encode()

        def nested(text: str) -> bytes:
            return (text.rstrip()[:-1] + ', "more": ' + "[" * 100_000 + "]" * 100_000 + "}").encode()

        yield Case("text", f"{file} says a thing twice", parts, rewritten(file, twice), (verb,), "refused")
        yield Case("text", f"{file} nested", parts, rewritten(file, nested), (verb,), "refused")
    words: dict[str, Any] = {"NaN": "NaN", "nan": "nan", "Infinity": "Infinity", "1e999": "1e999", "a number as text": "100.0", "huge": 10**30,
                             "true": True, "a fraction": "1/2", "a comma": "100,5", "full-width text": "１００"}  # fmt: skip
    for name, word in words.items():

        def in_frame(root: Path, word: Any = word) -> None:
            content = json.loads((root / "capture/cameras.json").read_text())
            content["frames"][1]["K"][0][0] = word
            (root / "capture/cameras.json").write_text(json.dumps(content))

        def in_lens(root: Path, word: Any = word) -> None:
            content = json.loads((root / "nerf/transforms.json").read_text())
            (root / "nerf/transforms.json").write_text(json.dumps({**content, "fl_x": word, "k1": word}))

        yield Case(
            "text",
            f"K says {name}",
            ("capture", "checkpoint"),
            in_frame,
            (CAPTURE[2], CAPTURE[0]),
            "any" if "text" in name else "refused",
        )
        yield Case(
            "text",
            f"fl_x and k1 say {name}",
            ("nerf", "checkpoint"),
            in_lens,
            (NERF[1],),
            "any" if "text" in name else "refused",
        )


def _models() -> Iterator[Case]:
    parts, model = ("colmap", "checkpoint"), "colmap/sparse/0"

    def text(change: Callable[[Path], object]) -> Damage:
        """The model as text, then changed."""

        def damage(root: Path) -> None:
            import pycolmap

            pycolmap.Reconstruction(str(root / model)).write_text(str(root / model))
            for file in (root / model).glob("*.bin"):
                file.unlink()
            change(root / model)

        return damage

    def each(change: Callable[[bytes], bytes]) -> Damage:
        return text(lambda folder: [f.write_bytes(change(f.read_bytes())) for f in sorted(folder.glob("*.txt"))])

    def line(file: str, change: Callable[[list[str]], list[str]]) -> Damage:
        def damage(folder: Path) -> None:
            lines = (folder / file).read_text().splitlines()
            (folder / file).write_text("\n".join(change(lines)) + "\n")

        return text(damage)

    def word(number: int, value: str) -> Callable[[list[str]], list[str]]:
        """In the first line that is no comment."""

        def change(lines: list[str]) -> list[str]:
            at = next(i for i, text in enumerate(lines) if not text.startswith("#"))
            words = lines[at].split(" ")
            words[number] = value
            return [*lines[:at], " ".join(words), *lines[at + 1 :]]

        return change

    def named(name: bytes) -> Damage:
        def damage(root: Path) -> None:
            file = root / model / "images.bin"
            file.write_bytes(file.read_bytes().replace(b"000001.png\0", name + b"\0"))

        return damage

    def named_and_there(name: bytes) -> Damage:
        def damage(root: Path) -> None:
            named(name)(root)
            os.rename(os.fsencode(root / "colmap/images/000001.png"), os.fsencode(root / "colmap/images") + b"/" + name)

        return damage

    def without_end(root: Path) -> None:
        file = root / model / "images.bin"
        data = file.read_bytes()
        file.write_bytes(
            data[: data.rindex(b".png\0") + 4].replace(b"\0", b"\1") if False else data[: data.rindex(b".png\0") + 4]
        )

    damages: dict[str, tuple[Damage, Answer]] = {
        "text": (text(lambda folder: None), "right"), "text with CRLF": (each(lambda data: data.replace(b"\n", b"\r\n")), "right"),
        "text with a byte-order mark": (each(lambda data: b"\xef\xbb\xbf" + data), "any"), "text in UTF-16": (each(lambda data: data.decode().encode("utf-16")), "refused"),
        "name of latin-1": (named(b"caf\xe9.png"), "refused"), "name of latin-1 that is there": (named_and_there(b"caf\xe9.png"), "refused"),
        "name with an escape that is there": (named_and_there(b"a\x1b[31m.png"), "refused"), "name with a line break that is there": (named_and_there(b"a\nb.png"), "refused"),
        "name of nothing": (named(b""), "refused"), "name of dots": (named(b".."), "refused"), "name of a folder": (named(b"."), "refused"),
        "the name of another": (named(b"000000.png"), "refused"), "the name in capitals": (named(b"000000.PNG"), "refused"),
        "a name without an end": (without_end, "refused"), "a name of 70 000": (named(b"x" * 70_000), "refused"),
        "no such camera": (line("images.txt", word(8, "7")), "refused"), "quaternion NaN": (line("images.txt", word(1, "nan")), "told"),
        "quaternion 0": (line("images.txt", word(1, "0")), "any"), "place NaN": (line("images.txt", word(5, "nan")), "told"),
        "place far": (line("images.txt", word(5, "1e300")), "told"), "place in UTM": (line("images.txt", word(5, "4512345.678")), "right"),
        "camera id huge": (line("images.txt", word(8, "99999999999999999999")), "refused"), "image id -1": (line("images.txt", word(0, "-1")), "any"),
        "focal NaN": (line("cameras.txt", word(4, "nan")), "refused"), "focal 0": (line("cameras.txt", word(4, "0")), "refused"),
        "focal negative": (line("cameras.txt", word(4, "-100")), "refused"), "width 10^12": (line("cameras.txt", word(2, "1000000000000")), "refused"),
        "width -1": (line("cameras.txt", word(2, "-1")), "refused"), "width of another": (line("cameras.txt", word(2, "240")), "refused"),
        "model unknown": (line("cameras.txt", word(1, "SPHERICAL")), "refused"), "model with other numbers": (line("cameras.txt", word(1, "OPENCV")), "refused"),
        "cut lines": (line("images.txt", lambda lines: [text[: len(text) // 2] for text in lines]), "refused"),
        "an image twice": (line("images.txt", lambda lines: lines + lines[-2:]), "any"),
        "without images": (line("images.txt", lambda lines: [t for t in lines if t.startswith("#")]), "refused"),
        "points without images": (lambda root: shutil.rmtree(root / "colmap/images"), "refused"),
    }  # fmt: skip
    for number, (name, (damage, answer)) in enumerate(damages.items()):
        yield Case(
            "dataset",
            f"COLMAP {name}",
            parts,
            damage,
            (COLMAP[1], COLMAP[2]) if number % 3 == 0 else (COLMAP[1],),
            answer,
        )

    def tum(file: str, change: Callable[[list[str]], list[str]]) -> Damage:
        return lambda root: (root / "tum" / file).write_text(
            "\n".join(change((root / "tum" / file).read_text().splitlines())) + "\n"
        )

    lists: dict[str, tuple[Damage, Answer]] = {
        "an image twice": (tum("rgb.txt", lambda lines: [*lines, "2.01 rgb/2.0.png"]), "refused"), "a time twice": (tum("rgb.txt", lambda lines: [*lines, "2.0 rgb/1.0.png"]), "refused"),
        "poses of another time": (tum("groundtruth.txt", lambda lines: [f"9{each}" for each in lines if each[0] != "#"]), "refused"),
        "quaternion not of length 1": (tum("groundtruth.txt", lambda lines: [each.replace("0 0 0 1", "0 0 0 5") for each in lines]), "any"),
        "commas": (tum("rgb.txt", lambda lines: [each.replace(" ", ",") for each in lines]), "refused"), "tabs": (tum("rgb.txt", lambda lines: [each.replace(" ", "\t") for each in lines]), "right"),
        "in UTM": (tum("groundtruth.txt", lambda lines: [each.replace(" 0 0 0 0 0 1", " 4512345.678 400 0 0 0 1") for each in lines]), "right"),
        "time NaN": (tum("groundtruth.txt", lambda lines: [*lines, "nan 0 0 0 0 0 0 1"]), "any"), "time inf": (tum("rgb.txt", lambda lines: [*lines, "inf rgb/2.0.png"]), "any"),
    }  # fmt: skip
    for name, (damage, answer) in lists.items():
        yield Case("dataset", f"TUM {name}", ("tum", "checkpoint"), damage, TUM[1:], answer)

    def nerf(**changes: Any) -> Damage:
        return lambda root: (root / "nerf/transforms.json").write_text(
            json.dumps({**json.loads((root / "nerf/transforms.json").read_text()), **changes})
        )

    def nerf_frame(**changes: Any) -> Damage:
        def damage(root: Path) -> None:
            content = json.loads((root / "nerf/transforms.json").read_text())
            content["frames"][1] |= changes
            (root / "nerf/transforms.json").write_text(json.dumps(content))

        return damage

    far = np.eye(4)
    far[:3, 3] = (500_000.5, 4_500_000.25, 300)
    scenes: dict[str, tuple[Damage, Answer]] = {
        "K of twice the size": (nerf(fl_x=240, fl_y=240, cx=120, cy=90, w=240, h=180), "refused"), "K of a size that is not stated": (nerf(w=None, h=None, cx=120, cy=90), "refused"),
        "only fl_x": (nerf(fl_y=None), "any"), "fl_y far from fl_x": (nerf(fl_y=20.0), "any"), "an unknown model": (nerf(camera_model="SPHERICAL"), "refused"),
        "applied scale": (nerf(applied_scale=0.5), "any"), "masks": (nerf_frame(mask_path="masks/1.png"), "told"), "k4": (nerf(k4=0.3), "refused"),
        "lens that folds": (nerf(k1=-3.0), "any"), "lens huge": (nerf(k1=1e30), "any"), "rolling shutter": (nerf(is_fisheye=True), "any"),
        "a frame twice": (nerf_frame(file_path="images/000000.png"), "refused"), "depth unit 1e30": (nerf(depth_unit_scale_factor=1e30), "any"),
        "depth of another image": (nerf_frame(depth_file_path="images/000000.png"), "refused"), "in UTM": (nerf_frame(transform_matrix=far.tolist()), "right"),
    }  # fmt: skip
    for name, (damage, answer) in scenes.items():
        yield Case("dataset", f"nerfstudio {name}", ("nerf", "checkpoint"), damage, NERF[1:], answer)


def _cameras() -> Iterator[Case]:
    parts = ("capture", "checkpoint")

    def turned(tag: int, *, size: bool = False) -> Damage:
        """Photographs that EXIF turns under a K of their stored pixels."""

        def damage(root: Path) -> None:
            content = json.loads((root / "capture/cameras.json").read_text())
            for entry in content["frames"]:
                file = root / "capture" / entry["image"]
                Image.open(file).save(file, exif=exif(3, 1, struct.pack("<HH", tag, 0)))
                if not size:
                    entry.pop("width"), entry.pop("height")
            (root / "capture/cameras.json").write_text(json.dumps(content))

        return damage

    def frames(change: Callable[[dict], object]) -> Damage:
        def damage(root: Path) -> None:
            content = json.loads((root / "capture/cameras.json").read_text())
            for entry in content["frames"]:
                change(entry)
            (root / "capture/cameras.json").write_text(json.dumps(content))

        return damage

    def scaled(x: float, y: float) -> Damage:
        def change(entry: dict) -> None:
            entry["K"] = (np.diag([x, y, 1]) @ entry["K"]).tolist()
            entry |= {"width": round(entry["width"] * x), "height": round(entry["height"] * y)}

        return frames(change)

    def shifted(entry: dict) -> None:
        entry["cam_to_world"][0][3] += 500_000.0
        entry["cam_to_world"][1][3] += 4_500_000.0

    for tag in (5, 6, 7, 8):
        yield Case("number", f"K of stored pixels, tag {tag}", parts, turned(tag), (CAPTURE[0], CAPTURE[2]), "refused")
        yield Case(
            "number", f"K and size of stored pixels, tag {tag}", parts, turned(tag, size=True), (CAPTURE[0],), "refused"
        )
    sizes: dict[str, tuple[Damage, Answer]] = {
        "of 2 x the size": (scaled(2, 2), "right"), "of 2 x 3 the size": (scaled(2, 3), "refused"), "of 1.2 x 1 the size": (scaled(1.2, 1), "refused"),
        "in UTM": (frames(shifted), "right"), "width as text": (frames(lambda e: e.update(width="120")), "refused"), "width 10^30": (frames(lambda e: e.update(width=10**30)), "refused"),
        "a lens that is not read": (frames(lambda e: e.update(dist=[0.1, 0, 0, 0])), "refused"), "a lens that folds": (frames(lambda e: e.update(camera_model="RADIAL", k1=-2.0, k2=0.0)), "any"),
        "a pose twice": (frames(lambda e: e.update(cam_to_world=np.eye(4).tolist())), "any"),
    }  # fmt: skip
    for name, (damage, answer) in sizes.items():
        yield Case("number", f"cameras {name}", parts, damage, (CAPTURE[2], CAPTURE[1], CAPTURE[0]), answer)


def _masks() -> Iterator[Case]:
    parts = ("capture", "checkpoint")
    half = np.zeros((90, 120), np.uint8)
    half[:45] = 255

    def masked(name: str, image: Image.Image, **options: Any) -> Damage:
        def damage(root: Path) -> None:
            (root / "capture/masks").mkdir()
            image.save(root / "capture/masks" / name, **options)

        return damage

    alpha = Image.merge("LA", (Image.new("L", SIZE, 255), Image.fromarray(half)))
    masks: dict[str, tuple[Damage, Answer]] = {
        "of 0 and 1": (masked("000001.png", Image.fromarray(half // 255)), "refused"), "by transparency": (masked("000001.png", alpha), "any"),
        "of 16 bits": (masked("000001.png", Image.fromarray(half.astype(np.uint16) * 257)), "any"), "in colours": (masked("000001.png", photograph()), "any"),
        "floating point": (masked("000001.png", Image.fromarray(half.astype(np.float32)), format="TIFF"), "any"),
        "for no image": (masked("mask_1.png", Image.fromarray(half)), "told"), "as JPEG": (masked("000001.jpg", Image.fromarray(half)), "told"),
        "turned by EXIF": (masked("000001.png", Image.fromarray(half), exif=exif(3, 1, b"\x03\0\0\0")), "any"),
        "of stored pixels": (masked("000001.png", Image.fromarray(half).transpose(Image.Transpose.ROTATE_90)), "refused"),
    }  # fmt: skip
    for name, (damage, answer) in masks.items():
        yield Case(
            "mask",
            name,
            parts,
            damage,
            ("label capture --out out --depth none --no-judge", "convert capture:capture --out out"),
            answer,
        )


def _moving(count: int, size: tuple[int, int] = SIZE, start: int = 0) -> list[np.ndarray]:
    world = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (400, 800, 3), np.uint8), (0, 0), 1.2)
    return [
        np.ascontiguousarray(world[10 : 10 + size[1], 4 * i : 4 * i + size[0]]) for i in range(start, start + count)
    ]


def write_video(
    file: Path,
    parts: list[tuple[int, tuple[int, int]]],
    *,
    codec: str = "mpeg2video",
    form: str = "mpegts",
    aspect: str = "",
) -> None:
    """Parts of a size each, one after another in one stream."""
    import av

    with open(file, "wb") as out:
        start = 0
        for count, size in parts:
            piece = file.with_suffix(".piece")
            with av.open(str(piece), "w", format=form) as container:
                stream = container.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
                if aspect:
                    stream.codec_context.sample_aspect_ratio = Fraction(aspect)
                for pixels in _moving(count, size, start):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                container.mux(stream.encode())
            out.write(piece.read_bytes())
            piece.unlink()
            start += count


def _videos() -> Iterator[Case]:
    def made(*sizes: tuple[int, int], aspect: str = "") -> Damage:
        return lambda root: write_video(root / "video.mp4", [(6, size) for size in sizes], aspect=aspect)

    def frames(count: int) -> Damage:
        return lambda root: write_video(root / "video.mp4", [(count, SIZE)])

    def sound(root: Path) -> None:
        import av

        with av.open(str(root / "video.mp4"), "w", format="mp4") as container:
            stream = container.add_stream("aac", rate=44100)
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 44100
            container.mux(stream.encode(tone))
            container.mux(stream.encode())

    def header(root: Path) -> None:
        """The file says 65535 x 65535 where the frames are not."""
        data = bytearray((root / "video.mp4").read_bytes())
        at = data.find(b"mp4v", data.find(b"stsd")) + 28
        data[at : at + 4] = b"\xff\xff\xff\xff"
        (root / "video.mp4").write_bytes(data)

    def matrix(root: Path) -> None:
        """Turned by 90 degrees, as phones write it."""
        data = bytearray((root / "video.mp4").read_bytes())
        at = data.find(b"tkhd") + 44
        data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
        (root / "video.mp4").write_bytes(data)

    def skewed(root: Path) -> None:
        data = bytearray((root / "video.mp4").read_bytes())
        at = data.find(b"tkhd") + 44
        data[at : at + 36] = struct.pack(">9i", 46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)
        (root / "video.mp4").write_bytes(data)

    videos: dict[str, tuple[Damage, Answer]] = {
        "of two sizes": (made(SIZE, (240, 180)), "told"), "of two shapes": (made((120, 90), (90, 120)), "told"), "anamorphic": (made(SIZE, aspect="4/3"), "any"),
        "of one frame": (frames(1), "refused"), "of two frames": (frames(2), "any"), "sound alone": (sound, "refused"), "header claims 65535 x 65535": (header, "any"),
        "turned": (matrix, "right"), "turned by 45 degrees": (skewed, "any"), "still": (lambda root: write_video(root / "video.mp4", [(1, SIZE)] * 8), "any"),
        "a GIF": (lambda root: photograph().save(root / "video.mp4", "GIF", save_all=True, append_images=[photograph(seed=i) for i in range(5)]), "any"),
        "a photograph": (lambda root: photograph().save(root / "video.mp4", "PNG"), "refused"),
        "zeros": (lambda root: (root / "video.mp4").write_bytes(bytes(100_000)), "refused"),
    }  # fmt: skip
    for number, (name, (damage, answer)) in enumerate(videos.items()):
        verbs = (LABEL.format("video.mp4"), (RECONSTRUCT, FIT, SHOW)[number % 3].format("video.mp4"))
        yield Case(
            "video", name, ("video.mp4", "checkpoint"), damage, verbs[:1] if answer == "right" else verbs, answer
        )


def _weights() -> Iterator[Case]:
    parts, file = ("capture", "checkpoint"), "checkpoint/model.safetensors"

    def cast(dtype: torch.dtype) -> Damage:
        def damage(root: Path) -> None:
            save_file({name: value.to(dtype) for name, value in load_file(root / file).items()}, root / file)

        return damage

    def header(change: Callable[[dict], dict | bytes]) -> Damage:
        def damage(root: Path) -> None:
            data = (root / file).read_bytes()
            length = struct.unpack("<Q", data[:8])[0]
            new = change(json.loads(data[8 : 8 + length]))
            text = new if isinstance(new, bytes) else json.dumps(new).encode()
            (root / file).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

        return damage

    def overlapping(entries: dict) -> dict:
        names = [name for name in entries if name != "__metadata__"]
        return {**entries, names[1]: entries[names[0]]}

    def twice(entries: dict) -> bytes:
        text = json.dumps(entries)
        name = next(name for name in entries if name != "__metadata__")
        return (text[:-1] + f', "{name}": {json.dumps(entries[name])}}}').encode()

    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float64", torch.float64), ("int32", torch.int32), ("bool", torch.bool),
                        ("float8", torch.float8_e4m3fn), ("complex64", torch.complex64)):  # fmt: skip
        answer: Answer = "told" if name in ("int32", "bool", "complex64", "float8") else "any"
        yield Case(
            "weights", f"of type {name}", parts, cast(dtype), (CHECKPOINT[0], CHECKPOINT[3], CHECKPOINT[5]), answer
        )
    headers: dict[str, tuple[Damage, Answer]] = {
        "overlap": (header(overlapping), "refused"), "a tensor named twice": (header(twice), "any"), "spaces of 50 MB": (header(lambda e: json.dumps(e).encode() + b" " * 50_000_000), "any"),
        "metadata of rubbish": (header(lambda e: {**e, "__metadata__": {"format": "\x1b[31m<script>"}}), "any"), "metadata a list": (header(lambda e: {**e, "__metadata__": [1]}), "refused"),
        "a gap": (header(lambda e: {k: v if k == "__metadata__" else {**v, "data_offsets": [o + 4 for o in v["data_offsets"]]} for k, v in e.items()}), "refused"),
        "shapes negative": (header(lambda e: {k: v if k == "__metadata__" else {**v, "shape": [-1]} for k, v in e.items()}), "refused"),
    }  # fmt: skip
    for number, (name, (damage, answer)) in enumerate(headers.items()):
        yield Case(
            "weights", f"header: {name}", parts, damage, (CHECKPOINT[number % 2], CHECKPOINT[3 + number % 3]), answer
        )


def _upon_itself(*, run: bool) -> Iterator[Case]:
    """Results upon what they are made from: nothing of it may be lost."""

    def nothing(root: Path) -> None:
        return None

    lines: list[tuple[str, tuple[str, ...]]] = [
        (f"fit capture --out capture --depth none --steps 1 --force {NET}", ("capture", "checkpoint")),
        (f"fit photos --out photos --depth none --intrinsics fov:65 --steps 1 --force {NET}", ("photos", "checkpoint")),
        (f"reconstruct capture --out capture {NET}", ("capture", "checkpoint")), (f"reconstruct capture --out capture --overwrite {NET}", ("capture", "checkpoint")),
        (f"reconstruct capture --out capture/cameras.json --overwrite {NET}", ("capture", "checkpoint")),
        (f"reconstruct photos --intrinsics fov:65 --out photos --overwrite {NET}", ("photos", "checkpoint")),
        ("label capture --out capture --depth none --no-judge", ("capture",)), ("label photos --out photos --depth none --intrinsics fov:65 --no-judge", ("photos",)),
        ("label captures --out captures --depth none", ("captures",)), ("convert capture:capture --out capture", ("capture",)), ("convert capture:capture --out capture/copy", ("capture",)),
        ("synth --out capture --views 2", ("capture",)), ("show checkpoint capture --out capture --image-size 56", ("capture", "checkpoint")),
        ("show checkpoint capture --out checkpoint --image-size 56", ("capture", "checkpoint")),
        ("evaluate model:checkpoint@56 --capture capture --out capture", ("capture", "checkpoint")), ("report-labels labels --out labels", ("labels",)),
        ("export-weights --model checkpoint --out checkpoint/model.safetensors", ("checkpoint",)), ("export-weights --model checkpoint --out checkpoint", ("checkpoint",)),
        (f"adapt photos --out photos --depth none --intrinsics fov:65 --steps 1 {NET}", ("photos", "checkpoint")),
        (f"adapt photos --out checkpoint --depth none --intrinsics fov:65 --steps 1 {NET}", ("photos", "checkpoint")),
        ("rank model:checkpoint@56 colmap --footage photos --out photos", ("photos", "checkpoint")),
        ("export-labels labels --captures capture --format wai --out capture", ("capture", "labels")), ("export-labels labels --captures capture --format wai --out labels", ("capture", "labels")),
    ]  # fmt: skip
    if run:
        lines += [(line, ("capture", "run")) for line in (
            "export run --out run",  "export run --out capture", "export run --out capture --overwrite", "export run --out capture/cameras.json --overwrite",
             "label run --out run --depth none --no-judge", "fit run --out run --resume",
        )]  # fmt: skip
    for line, parts in lines:
        yield Case("upon itself", line, parts, nothing, (line,))


def _full_disks() -> Iterator[Case]:
    verbs: dict[str, tuple[str, ...]] = {
        ADAPT.format("photos"): ("photos", "checkpoint"), RANK: ("photos", "checkpoint"), "label captures --out out --depth none": ("captures",),
        "prepare tiny-cpu --data captures=store --image-size 56": ("captures", "store"), "export-labels store --captures captures --format wai --out out": ("captures", "store"),
        "export-labels store --captures captures --format dust3r --out out": ("captures", "store"), LABEL.format("video.mp4"): ("video.mp4",),
        "convert nerfstudio:nerf --out out": ("nerf",), "convert colmap:colmap --out out": ("colmap",), "report-labels store --out out": ("store",),
        "train tiny-cpu --data captures=store --image-size 56 --steps 1 --out out": ("captures", "store"), RECONSTRUCT.format("photos").replace("scene.glb", "scene"): ("photos", "checkpoint"),
    }  # fmt: skip
    for verb, parts in verbs.items():
        for limit in (0, 5000, 200_000):
            yield Case(
                "fault",
                f"{verb.split()[0]} {verb.split()[1]}: files of {limit} bytes at most",
                parts,
                lambda root: None,
                (verb,),
                faults=(f"full {limit}",),
            )


def _runs() -> Iterator[Case]:
    parts = ("capture", "run")

    def config(**changes: Any) -> Damage:
        return lambda root: (root / "run/config.json").write_text(
            json.dumps({**json.loads((root / "run/config.json").read_text()), **changes})
        )

    captures = {
        "relative": "capture",
        "up": "../../../../etc",
        "root": "/",
        "nothing": "",
        "null": None,
        "a file": "/etc/passwd",
        "control": "\x1b[31m",
        "nul": "a\0b",
        "long": "x" * 5000,
        "a list": [],
    }
    for number, (name, value) in enumerate(captures.items()):
        yield Case("run", f"config's capture: {name}", parts, config(capture=value), (RUN[1 + number % 2], RUN[2]))
    folders = {
        "in prediction": "run/prediction/prediction.json",
        "in labels": "run/labels/manifest.json",
        "in quality": "run/quality.json",
        "in cameras": "run/cameras.json",
    }
    for name, place in folders.items():
        yield Case(
            "run",
            f"a FIFO {name}",
            parts,
            lambda root, p=place: ((root / p).unlink(missing_ok=True), os.mkfifo(root / p)),
            RUN,
        )
    links = {
        "images leads out": ("run/images", "../../elsewhere"),
        "labels leads out": ("run/labels", "../../elsewhere"),
        "sparse leads out": ("run/sparse", "../../elsewhere"),
        "depth leads out": ("run/depth", "../../elsewhere"),
    }
    for name, (place, target) in links.items():

        def linked(root: Path, place: str = place, target: str = target) -> None:
            shutil.rmtree(root / place, ignore_errors=True)
            (root / place).symlink_to(target)

        yield Case("run", name, parts, linked, RUN[:3])
