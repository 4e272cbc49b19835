"""The room as DL3DV stores scenes: the release's layout, that of the sample on Hugging Face, and the benchmark's."""

import json

import cv2
import numpy as np
from lenses import Distort, brown, through
from reader_room import Room

HASHES = tuple(f"{number:x}" * 64 for number in (0xA, 0xB, 0xC, 0xD))
BROWN = {"k1": 0.08, "k2": -0.02, "p1": 0.004, "p2": -0.003}
# the world that nerfstudio shows is its own: x and y of COLMAP's exchanged, z turned round
APPLIED = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1.0]])
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_scene(
    folder, room: Room, *, images=None, divisor=4, lens: dict | None = None, distort: Distort | None = None, unit=1.0
) -> None:
    """``transforms.json`` in ``folder`` for images ``divisor`` times as large as the copies in ``images``.

    ``unit``: of the world, in metres.
    """
    lens = BROWN if lens is None else lens
    rgb = room.rgb if not any(lens.values()) else through(room, distort or brown(**lens))[0]
    copies = (images or folder) / f"images_{divisor}"
    copies.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    frames = []
    for index, (pixels, pose) in enumerate(zip(rgb, room.world_from_cam)):
        cv2.imwrite(str(copies / f"frame_{index + 1:05d}.png"), pixels[..., ::-1])
        pose = pose.copy()
        pose[:3, 3] /= unit
        frames.append(
            {
                "file_path": f"images/frame_{index + 1:05d}.png",
                "transform_matrix": (APPLIED @ pose @ OPENGL).tolist(),
                "colmap_im_id": index + 1,
            }
        )
    K, (width, height) = room.K * divisor, room.size
    content = {
        "w": width * divisor, "h": height * divisor, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2],
        "camera_model": "OPENCV", **lens, "applied_transform": APPLIED[:3].tolist(), "frames": frames,
    }  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps(content))


def write_release(root, room: Room, *, scenes=3, **options) -> None:
    """ROOT/1K/HASH/{transforms.json, images_4/}."""
    for name in HASHES[:scenes]:
        write_scene(root / "1K" / name, room, **options)


def write_sample(root, room: Room, *, scenes=2, **options) -> None:
    """ROOT/HASH/colmap/{transforms.json, images_4/}; the second scene has its images beside ``colmap``."""
    for index, name in enumerate(HASHES[:scenes]):
        write_scene(root / name / "colmap", room, images=root / name if index == 1 else None, **options)


def write_benchmark(root, room: Room, *, scenes=2, first=0, **options) -> None:
    """ROOT/{benchmark-meta.csv, HASH/nerfstudio/{transforms.json, images_4/}}."""
    names = HASHES[first : first + scenes]
    for name in names:
        write_scene(root / name / "nerfstudio", room, **options)
    (root / "benchmark-meta.csv").write_text("hash\n" + "\n".join(names) + "\n")
