"""Videos made of images with PyAV: a rendered room seen from a moving camera, with what goes wrong in real videos."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from reliev3r.synthetic.capture import SynthConfig
from reliev3r.synthetic.path import look_at, sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene


def room(views: int, *, seed: int = 1, width: int = 240, height: int = 180) -> list[np.ndarray]:
    """Images at equal steps along the chord of an arc, looking at one place."""
    config = SynthConfig(seed=seed, views=2, width=width, height=height, span=25.0, overlap=0.3, supersample=1)
    scene, size = make_scene(seed), (height, width)
    first, last = sample_path(scene, config.K, size, config.camera_path, seed=seed)
    target = (first[:3, 3] + last[:3, 3]) / 2 + 1.5 * (first[:3, 2] + last[:3, 2])
    eyes = torch.lerp(first[:3, 3], last[:3, 3], torch.linspace(0, 1, views)[:, None])
    poses = look_at(eyes, target.expand_as(eyes))
    rendered, _ = render(scene, config.K.expand(views, 3, 3), poses, size, supersample=1)
    return [(image.movedim(0, -1) * 255).round().to(torch.uint8).numpy() for image in rendered.image]


def write_video(path: Path, images: Sequence[np.ndarray], *, times: Sequence[int] | None = None) -> Path:
    """MPEG-4 at high quality; ``times`` are in hundredths of a second (a variable frame rate), else 10 frames/s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=100 if times else 10)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 20_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 100)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_clockwise(path: Path) -> None:
    """Write the display matrix of a phone held upright into the MP4 track header: (x, y) -> (-y, x)."""
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44  # version and flags, times, identifiers, layer, volume
    matrix = b"".join((65536 * value).to_bytes(4, "big", signed=True) for value in [0, 1, 0, -1, 0, 0])
    path.write_bytes(content[:start] + matrix + content[start + 24 :])


def smeared(image: np.ndarray, length: int = 15) -> np.ndarray:
    """Motion blur along the rows."""
    return cv2.filter2D(image, -1, np.full((1, length), 1 / length, np.float32))
