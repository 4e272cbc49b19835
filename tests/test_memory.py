"""Small files that claim to be large: what a header says is judged before memory is taken for it."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import builders
from reliev3r.core.errors import UserError
from reliev3r.data.images import MOST_PIXELS, affordable, image_size, read_image
from reliev3r.data.readers._depth import read_png16
from reliev3r.labels.depth.precomputed import _read_png
from reliev3r.labels.store import read_tracks
from reliev3r.model.load import load_network


def png_that_claims(path, width: int, height: int, *, bits: int = 16) -> None:
    """A grey PNG whose pixels are missing: only the header counts here."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"IDAT" + zlib.compress(b"\0")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    )  # fmt: skip


@pytest.mark.parametrize("read", [image_size, read_image, affordable, read_png16, _read_png])
def test_pixels(tmp_path, read) -> None:
    png_that_claims(tmp_path / "a.png", 24000, 18000)
    with pytest.raises(UserError, match=r"a\.png: 24000x18000 are more than 250 megapixels"):
        read(tmp_path / "a.png")


def test_two_hundred_megapixels_are_a_photograph(tmp_path) -> None:
    png_that_claims(tmp_path / "a.png", 16320, 12240, bits=8)
    limit = Image.MAX_IMAGE_PIXELS
    assert MOST_PIXELS > 16320 * 12240
    with pytest.raises(UserError, match="truncated"):  # by its pixels, not by its size
        read_image(tmp_path / "a.png")
    assert limit == Image.MAX_IMAGE_PIXELS  # it is the user's own


@pytest.mark.parametrize("shape", [[10**12, 5], [2, 10**12], [3, 5], [-1, 5], [2], [2, -1]])
def test_tracks(tmp_path, shape) -> None:
    seen = np.zeros(0, [("track", "<i4"), ("uv", "<f4", 2), ("weight", "<f4")])
    np.savez(tmp_path / "tracks.npz", key=np.array("{}"), shape=np.array(shape), view00000=seen, view00001=seen)
    with pytest.raises(UserError, match=r"tracks\.npz"):
        read_tracks(tmp_path / "tracks.npz")


@pytest.mark.parametrize("changes", [{"dim": 8192}, {"encoder_depth": 10**7}, {"head_depth": 10**9}, {"dim": "wide"}])
def test_networks(tmp_path, changes) -> None:
    builders.network().save_pretrained(tmp_path)
    load_network(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match="the checkpoint cannot be loaded") as told:
        load_network(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.float8_e4m3fn])
def test_numbers_that_are_no_weights_are_refused(tmp_path, kind) -> None:
    """PyTorch would turn them into some: whole numbers of weights are all 0."""
    builders.network().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: value.to(kind) for name, value in load_file(file).items()}, file)
    with pytest.raises(UserError, match="which holds no weights"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_weights_of_other_precision_are_taken(tmp_path, kind) -> None:
    builders.network().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: value.to(kind) for name, value in load_file(file).items()}, file)
    assert {parameter.dtype for parameter in load_network(tmp_path).parameters()} == {torch.float32}
