"""Datasets' own layouts on disk, written from rendered rooms: what the readers' tests and the rehearsal read back.

Each writer follows the dataset's published description, not our reader of it. Depth is exact; what a layout calls
unknown or sky is asked for by the pixels that it is to be.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from reliev3r.synthetic.capture import SynthConfig
from reliev3r.synthetic.path import sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import Scene, make_scene

Pixels = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """Exact arrays of a few overlapping views."""

    rgb: np.ndarray
    """uint8 [v, h, w, 3]"""
    depth: np.ndarray
    """z in metres, float64 [v, h, w]; positive everywhere."""
    K: np.ndarray
    """float64 [3, 3], corner convention, of all views."""
    world_from_cam: np.ndarray
    """OpenCV axes, float64 [v, 4, 4]."""
    scene: Scene | None = None
    """What the views show, where other cameras may look at it too."""

    @staticmethod
    def of(config: SynthConfig, *, shift: tuple[float, float] = (0.0, 0.0)) -> Room:
        """The room and the cameras of a configuration; ``shift`` moves the principal point by so many pixels."""
        scene, size = make_scene(config.seed, config.texture), (config.height, config.width)
        poses = sample_path(scene, config.K, size, config.camera_path, seed=config.seed)
        K = config.K.double().numpy().copy()
        K[:2, 2] += shift
        blank = Room(
            rgb=np.empty(0), depth=np.empty(0), K=K, world_from_cam=poses.double().numpy(), scene=scene
        )  # fmt: skip
        return blank.by(K, (config.width, config.height), supersample=config.supersample)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.rgb.shape[2], self.rgb.shape[1]

    def __len__(self) -> int:
        return len(self.world_from_cam)

    def by(self, K: np.ndarray, size: tuple[int, int], *, supersample: int = 1) -> Room:
        """The same views by another pinhole camera, of images (width, height)."""
        assert self.scene is not None
        poses = torch.from_numpy(self.world_from_cam).float()
        intrinsics = torch.from_numpy(K).float().expand(len(poses), 3, 3)
        views, truth = render(self.scene, intrinsics, poses, size[::-1], supersample=supersample)
        assert truth.valid.all()
        rgb = (views.image.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
        return dataclasses.replace(self, rgb=rgb, depth=truth.depth.double().numpy(), K=K)

    def view(self, index: int) -> Room:
        """One of the views alone."""
        one = slice(index, index + 1)
        return dataclasses.replace(
            self, rgb=self.rgb[one], depth=self.depth[one], world_from_cam=self.world_from_cam[one]
        )

    def through(self, xy: np.ndarray, turn: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What a lens sees that sends the ray (x, y, 1) of its camera to each pixel: (rgb [v, h, w, 3], z [v, h, w]).

        ``xy`` is [h, w, 2]; ``turn`` the rotation cam_from_lens where the lens's camera is turned. Looked up in a
        sharper rendering of a wider angle: colours bilinearly, inverse depth too (it is linear on planes).
        """
        half = np.abs(xy).reshape(-1, 2).max(0) * 1.05
        focal = 0.75 * max(xy.shape[:2]) / half.max()
        width, height = (int(side) for side in 2 * np.ceil(focal * half) + 2)
        pose = np.eye(4)
        pose[:3, :3] = np.eye(3) if turn is None else turn
        turned = dataclasses.replace(self, world_from_cam=self.world_from_cam @ pose)
        wide = turned.by(pinhole(focal, focal, width / 2, height / 2), (width, height))
        x, y = xy[..., 0] * focal + width / 2 - 0.5, xy[..., 1] * focal + height / 2 - 0.5
        colours = bilinear(wide.rgb.astype(np.float64), x, y).round().astype(np.uint8)
        return colours, 1 / bilinear(1 / wide.depth, x, y)


def bilinear(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values [v, h, w, ...] of maps [v, H, W, ...] at places [h, w], in pixels with centres at integers."""
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    shape = (*x.shape, *[1] * (maps.ndim - 3))
    a, b = (x - x0).reshape(shape), (y - y0).reshape(shape)
    top = maps[:, y0, x0] * (1 - a) + maps[:, y0, x0 + 1] * a
    return top * (1 - b) + b * (maps[:, y0 + 1, x0] * (1 - a) + maps[:, y0 + 1, x0 + 1] * a)


# lenses -------------------------------------------------------------------------------------------------------------

Distort = Callable[[np.ndarray], np.ndarray]
"""Normalised coordinates (x/z, y/z) [..., 2] to those where the lens images them."""


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def brown(k1: float, k2: float, p1: float, p2: float, k3: float = 0.0) -> Distort:
    """Brown's model as OpenCV and COLMAP write it."""

    def distort(xy: np.ndarray) -> np.ndarray:
        x, y = xy[..., 0], xy[..., 1]
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        bent = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
        return np.stack(bent, axis=-1)

    return distort


def fisheye(k1: float, k2: float, k3: float, k4: float) -> Distort:
    """Equidistant with a polynomial (Kannala and Brandt)."""

    def distort(xy: np.ndarray) -> np.ndarray:
        r = np.maximum(np.linalg.norm(xy, axis=-1, keepdims=True), 1e-12)
        t = np.arctan(r)
        return xy * t * (1 + k1 * t**2 + k2 * t**4 + k3 * t**6 + k4 * t**8) / r

    return distort


def thin_prism_fisheye(*params: float) -> Distort:
    """k1, k2, p1, p2, k3, k4, sx1, sy1: Brown's terms and a prism on the equidistant image, as ETH3D defines it."""
    k1, k2, p1, p2, k3, k4, sx, sy = params
    equidistant = fisheye(0, 0, 0, 0)

    def distort(xy: np.ndarray) -> np.ndarray:
        u, v = np.moveaxis(equidistant(xy), -1, 0)
        r2 = u * u + v * v
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
        bent = (
            u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u) + sx * r2,
            v * radial + p1 * (r2 + 2 * v * v) + 2 * p2 * u * v + sy * r2,
        )
        return np.stack(bent, axis=-1)

    return distort


def inverse(distort: Distort, target: np.ndarray) -> np.ndarray:
    """x with distort(x) = target, by fixed-point iteration with damping; asserts that it was found."""
    x = target.copy()
    for _ in range(200):
        x = x + 0.7 * (target - distort(x))
    assert np.abs(distort(x) - target).max() < 1e-9
    return x


def rays(K: np.ndarray, size: tuple[int, int], distort: Distort | None = None) -> np.ndarray:
    """(x, y) of the ray (x, y, 1) through each pixel's centre of an image (width, height), [h, w, 2]."""
    u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    xy = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]], axis=-1)
    return xy if distort is None else inverse(distort, xy)


# files --------------------------------------------------------------------------------------------------------------


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    """An image, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)


def write_text(path: Path, text: str) -> None:
    """A file of text in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def quaternion_line(pose: np.ndarray) -> str:
    """x y z qx qy qz qw"""
    return " ".join(f"{value:.9f}" for value in [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()])


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    """Uncompressed scan lines of OpenEXR 2: a header of typed attributes, a table of offsets, one block a line."""
    height, width = next(iter(channels.values())).shape
    names = sorted(channels)

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    entries = [n.encode() + b"\0" + struct.pack("<4i", 1 if channels[n].itemsize == 2 else 2, 0, 1, 1) for n in names]
    header = struct.pack("<2i", 20000630, 2)
    header += attribute("channels", "chlist", b"".join(entries) + b"\0")
    header += attribute("compression", "compression", b"\0")
    header += attribute("dataWindow", "box2i", box) + attribute("displayWindow", "box2i", box)
    header += attribute("lineOrder", "lineOrder", b"\0")
    header += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    lines = [b"".join(channels[n][y].tobytes() for n in names) for y in range(height)]
    blocks = [struct.pack("<2i", y, len(line)) + line for y, line in enumerate(lines)]
    offsets = len(header) + 8 * height + np.cumsum([0] + [len(block) for block in blocks[:-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + offsets.astype("<u8").tobytes() + b"".join(blocks))


def write_pfm(path: Path, depth: np.ndarray) -> None:
    """Little endian (negative scale), the bottom row first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.000000\n".encode() + np.flipud(depth).astype("<f4").tobytes())


def millimetres(depth: np.ndarray) -> np.ndarray:
    """As 16-bit PNGs hold it."""
    return np.rint(1000 * depth).astype(np.uint16)


# nerfstudio, DL3DV and what is made of it -----------------------------------------------------------------------------

APPLIED = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""nerfstudio's own world: x and y of COLMAP's exchanged, z turned round."""
LENS = {"k1": 0.08, "k2": -0.02, "p1": 0.004, "p2": -0.003}
"""Stronger than DL3DV's, so that an image that was not rectified shows."""


def opengl(world_from_cam: np.ndarray) -> np.ndarray:
    """Columns: right, up, backward, centre."""
    right, down, forward, centre = world_from_cam.T[:, :3]
    columns = np.stack([right, -down, -forward, centre], axis=1)
    return np.concatenate([columns, [[0, 0, 0, 1]]])


def frame_name(index: int) -> str:
    """As nerfstudio and DL3DV count."""
    return f"frame_{index + 1:05d}"


def write_nerfstudio(
    folder: Path,
    room: Room,
    *,
    rgb: np.ndarray | None = None,
    depth: np.ndarray | None = None,
    images: str = "images",
    per_frame: bool = False,
    **lens: Any,
) -> dict[str, Any]:
    """The room as a nerfstudio folder, its frames in no order; ``depth`` in metres becomes millimetres."""
    shared = {
        "w": room.size[0], "h": room.size[1], "fl_x": room.K[0, 0], "fl_y": room.K[1, 1],
        "cx": room.K[0, 2], "cy": room.K[1, 2], **lens,
    }  # fmt: skip
    frames = []
    for i in range(len(room)):
        name = frame_name(i)
        save(folder / images / f"{name}.png", (room.rgb if rgb is None else rgb)[i])
        frame: dict[str, Any] = {
            "file_path": f"{images}/{name}.png",
            "transform_matrix": (APPLIED @ opengl(room.world_from_cam[i])).tolist(),
        }
        if depth is not None:
            save(folder / "depth" / f"{name}.png", millimetres(depth[i]))
            frame["depth_file_path"] = f"depth/{name}.png"
        frames.append({**frame, **shared} if per_frame else frame)
    content = {"applied_transform": APPLIED[:3].tolist(), "frames": frames[::-1], **({} if per_frame else shared)}
    write_text(folder / "transforms.json", json.dumps(content))
    return content


def write_dl3dv(
    folder: Path,
    room: Room,
    *,
    images: Path | None = None,
    divisor: int = 4,
    lens: dict[str, float] | None = None,
    unit: float = 1.0,
) -> None:
    """A scene of DL3DV: smaller copies of the images in ``images_4`` (or 8), the lens stated for the full size.

    The scene of the release is HASH/, that of the sample on Hugging Face HASH/colmap/, that of the benchmark
    HASH/nerfstudio/. The copies lie beside ``transforms.json`` unless ``images`` is another folder; a ``unit`` of the
    world are so many metres.
    """
    lens = LENS if lens is None else lens
    rgb = room.through(rays(room.K, room.size, brown(**lens)))[0] if any(lens.values()) else room.rgb
    frames = []
    for index, pose in enumerate(room.world_from_cam):
        name = f"{frame_name(index)}.png"
        save((images or folder) / f"images_{divisor}" / name, rgb[index])
        pose = (APPLIED @ opengl(in_unit(pose, unit))).tolist()
        frames.append({"file_path": f"images/{name}", "transform_matrix": pose, "colmap_im_id": index + 1})
    content = {
        **_intrinsics(room.K * divisor, (room.size[0] * divisor, room.size[1] * divisor)), "camera_model": "OPENCV",
        **lens, "applied_transform": APPLIED[:3].tolist(), "frames": frames,
    }  # fmt: skip
    write_text(folder / "transforms.json", json.dumps(content))


def in_unit(world_from_cam: np.ndarray, unit: float) -> np.ndarray:
    """The pose in a world whose unit are so many metres."""
    pose = world_from_cam.copy()
    pose[:3, 3] /= unit
    return pose


def _intrinsics(K: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    K = np.asarray(K, np.float64)
    return {"w": size[0], "h": size[1], "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}


def write_wai(
    folder: Path, room: Room, *, lens: dict[str, float] | None = None, unit: float = 1.0, worse: Sequence[int] = ()
) -> None:
    """What map-anything's convert, undistort, run_mvsanywhere, depth_consistency_confidence and run_moge leave.

    Images of four times the room's size are rectified to OpenCV's K of all source pixels and cropped to the valid part;
    the file states K as it was before the crop. The upper left corner of every map is nonsense with confidence 0, the
    lower right corner is sky by the mask. Depth of the views ``worse`` is half as far as it should be.
    """
    import cv2

    lens = LENS if lens is None else lens
    size = (room.size[0] * 4, room.size[1] * 4)
    K = (room.K * 4).astype(np.float32)
    K[2, 2] = 1
    bent = np.array([lens["k1"], lens["k2"], lens["p1"], lens["p2"], 0], np.float32)
    stated, (left, top, width, height) = cv2.getOptimalNewCameraMatrix(K, bent, size, 1, size)
    h, w = (2 * side // 3 for side in (room.size[1], room.size[0]))
    own = np.diag([w / width, h / height, 1]) @ (stated - [[0, 0, left], [0, 0, top], [0, 0, 0]])
    z = room.by(own, (w, h)).depth / unit
    z[:, : h // 6, : w // 8] = 1000.0
    z[:, -(h // 6) :, -(w // 8) :] = 500.0
    confidence, mask = np.ones((h // 2, w // 2), np.float32), np.full((2 * h, 2 * w), 255, np.uint8)
    confidence[: h // 12, : w // 16] = 0.2
    mask[-2 * (h // 6) :, -2 * (w // 8) :] = 0
    frames = []
    for index, pose in enumerate(room.world_from_cam):
        name = frame_name(index)
        paths = {
            "mvsanywhere_depth": f"mvsanywhere/v0/depth/{name}.exr",
            "mvsanywhere_depth_confidence": f"mvsa_conf/v0/depth_confidence/{name}.exr",
            "moge2_mask": f"moge2/v0/mask/moge2/{name}.png",
        }
        factor = 0.5 if index in worse else 1.0
        write_exr(folder / paths["mvsanywhere_depth"], {"Y": (factor * z[index]).astype(np.float32)})
        write_exr(folder / paths["mvsanywhere_depth_confidence"], {"Y": confidence})
        save(folder / paths["moge2_mask"], mask)
        image, posed = f"images/{name}.jpg", (APPLIED @ in_unit(pose, unit)).tolist()
        frames.append({"frame_name": name, "file_path": image, "image": image, "transform_matrix": posed, **paths})
    meta = {
        "scene_name": folder.name, "dataset_name": "dl3dv", "version": "0.1", "shared_intrinsics": True,
        "camera_convention": "opencv", "scale_type": "colmap",
    }  # fmt: skip
    modalities = {
        "image": {"frame_key": "image", "format": "image"},
        "pred_depth": {"mvsanywhere": {"frame_key": "mvsanywhere_depth", "format": "depth"}},
        "depth_confidence": {"mvsanywhere": {"frame_key": "mvsanywhere_depth_confidence", "format": "scalar"}},
        "pred_mask": {"moge2": {"frame_key": "moge2_mask", "format": "binary"}},
    }
    rectified = {**meta, **_intrinsics(stated, (width, height)), "camera_model": "PINHOLE", "frames": frames}
    write_text(folder / "scene_meta.json", json.dumps({**rectified, "frame_modalities": modalities}))
    before = {**meta, **_intrinsics(room.K * 4, size), "camera_model": "OPENCV", **lens, "frames": []}
    write_text(folder / "scene_meta_distorted.json", json.dumps(before))


# Aria Synthetic Environments ------------------------------------------------------------------------------------------

ASE_FOCAL, ASE_CENTRE = 297.6375381033778, (357.6599197217746, 349.1922497127481)
ASE_RADIAL = (0.3650890375644368, -0.1738082418112771, -0.7534945484033189, 2.434788882752295, -2.57786220300886,
              0.8788483538598834)  # fmt: skip
ASE_TANGENTIAL = (0.0008005198595407136, -0.000294237814554143)
DEVICE_FROM_CAMERA = np.eye(4)
DEVICE_FROM_CAMERA[:3, :3] = Rotation.from_quat(
    [0.32640934382849085, 0.029274992008313648, 0.033361059956531547, 0.9441858687689326]
).as_matrix()
DEVICE_FROM_CAMERA[:3, 3] = [-0.007530096566173914, -0.01090854984158026, -0.003598063315542823]


def aria(angles: np.ndarray) -> np.ndarray:
    """The published lens on (theta cos phi, theta sin phi); its focal length and principal point left out."""
    theta2 = (angles**2).sum(-1, keepdims=True)
    bent = angles * (1 + sum(k * theta2 ** (i + 1) for i, k in enumerate(ASE_RADIAL)))
    x, y = bent[..., 0], bent[..., 1]
    p, q = ASE_TANGENTIAL
    return np.stack([x + p * (3 * x**2 + y**2) + 2 * q * x * y, y + q * (x**2 + 3 * y**2) + 2 * p * x * y], axis=-1)


def write_ase(folder: Path, room: Room, *, side: int = 176, unknown: Pixels | None = None) -> None:
    """Images of the fisheye camera on its side, millimetres along the ray, poses of the device."""
    scale = side / 704
    u, v = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    target = np.stack(
        [(u / scale - 0.5 - ASE_CENTRE[0]) / ASE_FOCAL, (v / scale - 0.5 - ASE_CENTRE[1]) / ASE_FOCAL], axis=-1
    )
    outside = np.linalg.norm(target, axis=-1) > 1415 / 4 / ASE_FOCAL  # the lens sees nothing there
    angles = inverse(aria, np.where(outside[..., None], 0, target))
    theta = np.linalg.norm(angles, axis=-1, keepdims=True)
    xy = angles * np.tan(theta) / np.maximum(theta, 1e-12)
    # the world's up is -y of an upright camera; this one lies on its side: its x axis points down, its y axis left
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]
    rgb, z = room.through(xy, turn[:3, :3])
    length = millimetres(z * np.sqrt((xy**2).sum(-1) + 1))
    rgb[:, outside], length[:, outside] = 0, 0
    if unknown is not None:
        length[:, *unknown] = 65535
    names = "tx_world_device,ty_world_device,tz_world_device,qx_world_device,qy_world_device,qz_world_device,"
    lines = [f"graph_uid,tracking_timestamp_us,utc_timestamp_ns,{names}qw_world_device,quality_score"]
    for k, pose in enumerate(room.world_from_cam):
        save(folder / "rgb" / f"vignette{k:07d}.jpg", rgb[k], quality=95)
        save(folder / "depth" / f"depth{k:07d}.png", length[k])
        numbers = quaternion_line(pose @ turn @ np.linalg.inv(DEVICE_FROM_CAMERA)).split()
        lines.append(",".join(["uid", str(33333 * k), "-1", *numbers, "1.0"]))
    write_text(folder / "trajectory.csv", "\n".join(lines) + "\n")


# TartanAir, MVS-Synth, BlendedMVS -------------------------------------------------------------------------------------


def ned(world_from_cam: np.ndarray) -> np.ndarray:
    """The same camera with axes forward, right, down."""
    right, down, forward = world_from_cam[:3, 0], world_from_cam[:3, 1], world_from_cam[:3, 2]
    pose = world_from_cam.copy()
    pose[:3, :3] = np.stack([forward, right, down], axis=1)
    return pose


def write_tartanair(folder: Path, room: Room, *, width: int = 96, sky: Pixels | None = None) -> Room:
    """Version 1, images of 4:3 and 90 degrees; returns the views that were written."""
    focal, height = width / 2, 3 * width // 4
    seen = room.by(pinhole(focal, focal, width / 2, height / 2), (width, height))
    depth = seen.depth.astype(np.float32)
    if sky is not None:
        depth[:, *sky] = 10000
    (folder / "depth_left").mkdir(parents=True)
    for k in range(len(room)):
        save(folder / "image_left" / f"{k:06d}_left.png", seen.rgb[k])
        np.save(folder / "depth_left" / f"{k:06d}_left_depth.npy", depth[k])
    write_text(folder / "pose_left.txt", "\n".join(quaternion_line(ned(p)) for p in room.world_from_cam) + "\n")
    return seen


def left_handed(world_from_cam: np.ndarray, unit: float) -> np.ndarray:
    """camera-from-world for a world whose y and z axes are exchanged, in another unit."""
    mirrored_from_world = np.eye(4)[[0, 2, 1, 3]]
    world_from_cam = world_from_cam.copy()
    world_from_cam[:3, 3] *= unit
    return np.linalg.inv(mirrored_from_world @ world_from_cam)


def write_mvs_synth(folder: Path, room: Room, *, unit: float = 10.0, sky: Pixels | None = None) -> None:
    """A sequence GTAV_540/0000; ``unit`` of the game are a metre."""
    K = room.K
    for k in range(len(room)):
        depth = (unit * room.depth[k]).astype(np.float32)
        if sky is not None:
            depth[sky] = np.inf
        save(folder / "images" / f"{k:04d}.png", room.rgb[k])
        write_exr(folder / "depths" / f"{k:04d}.exr", {"Y": depth})
        content = {"f_x": K[0, 0], "f_y": K[1, 1], "c_x": K[0, 2], "c_y": K[1, 2]}
        content["extrinsic"] = left_handed(room.world_from_cam[k], unit).tolist()
        write_text(folder / "poses" / f"{k:04d}.json", json.dumps(content))


def write_blendedmvs(folder: Path, room: Room, *, unit: float = 7.3, unknown: Pixels | None = None) -> None:
    """A scene of the low-resolution set; ``unit`` of it are a metre."""
    write_text(folder / "cams" / "pair.txt", "0\n")
    for k in range(len(room)):
        save(folder / "blended_images" / f"{k:08d}.jpg", room.rgb[k], quality=95)
        save(folder / "blended_images" / f"{k:08d}_masked.jpg", 0 * room.rgb[k])
        depth = unit * room.depth[k]
        if unknown is not None:
            depth[unknown] = 0
        write_pfm(folder / "rendered_depth_maps" / f"{k:08d}.pfm", depth)
        pose = room.world_from_cam[k].copy()
        pose[:3, 3] *= unit
        rows = [" ".join(f"{x:.9g}" for x in row) for row in np.linalg.inv(pose)]
        rows_K = [" ".join(f"{x:.9g}" for x in row) for row in room.K]
        text = "\n".join(["extrinsic", *rows, "", "intrinsic", *rows_K, "", "2.5 0.1 128 20.0", ""])
        write_text(folder / "cams" / f"{k:08d}_cam.txt", text)


# COLMAP and ScanNet++ -------------------------------------------------------------------------------------------------


def write_model(
    folder: Path, room: Room, names: Sequence[str], *, model: str = "PINHOLE", params: Sequence[float] = ()
) -> None:
    """cameras.txt, images.txt, points3D.txt."""
    K, (width, height) = room.K, room.size
    numbers = [K[0, 0], K[1, 1], K[0, 2], K[1, 2], *params]
    write_text(
        folder / "cameras.txt", f"# cameras\n1 {model} {width} {height} {' '.join(map(repr, map(float, numbers)))}\n"
    )
    lines = ["# images"]
    for i, name in enumerate(names):
        cam_from_world = np.linalg.inv(room.world_from_cam[i])
        x, y, z, w = Rotation.from_matrix(cam_from_world[:3, :3]).as_quat()
        pose = " ".join(repr(float(p)) for p in (w, x, y, z, *cam_from_world[:3, 3]))
        lines += [f"{i + 1} {pose} 1 {name}", "10.0 12.0 -1"]
    write_text(folder / "images.txt", "\n".join(lines) + "\n")
    write_text(folder / "points3D.txt", "# none\n")


def mesh_of(scene: Scene) -> Any:
    """Its triangles: cubes exactly, balls of 5120 facets (``trimesh.Trimesh``)."""
    import trimesh

    parts = []
    for number, (pose, half) in enumerate(zip(scene.world_from_object.double().numpy(), scene.half.double().numpy())):
        unit = trimesh.creation.box((2, 2, 2)) if number <= scene.boxes else trimesh.creation.icosphere(subdivisions=4)
        corners = unit.vertices * half @ pose[:3, :3].T + pose[:3, 3]
        parts.append(trimesh.Trimesh(corners, unit.faces, process=False))
    return trimesh.util.concatenate(parts)


def write_scannetpp(folder: Path, room: Room, *, bad: Sequence[int] = ()) -> None:
    """A scene data/ID with its mesh; poses of the nerfstudio file: OpenGL, in another world than COLMAP's.

    Frames ``bad`` are marked so; the first is a test frame.
    """
    assert room.scene is not None
    dslr = folder / "dslr"
    names = [f"DSC0{1001 + i}.JPG" for i in range(len(room))]
    write_model(dslr / "colmap", room, names, model="OPENCV_FISHEYE", params=(0.03, -0.01, 0.002, 0.0))
    frames = []
    for i, name in enumerate(names):
        save(dslr / "resized_undistorted_images" / name, room.rgb[i], format="JPEG", quality=95)
        pose = APPLIED @ opengl(room.world_from_cam[i])
        frames.append({"file_path": name, "transform_matrix": pose.tolist(), "is_bad": i in bad})
    K, (width, height) = room.K, room.size
    content = {
        "camera_model": "PINHOLE", "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": width,
        "h": height, "frames": frames[1:], "test_frames": frames[:1],
    }  # fmt: skip
    write_text(dslr / "nerfstudio" / "transforms_undistorted.json", json.dumps(content))
    (folder / "scans").mkdir()
    mesh_of(room.scene).export(folder / "scans" / "mesh_aligned_0.05.ply")


# ETH3D and RealEstate10K ----------------------------------------------------------------------------------------------

THIN_PRISM = (-0.03, 0.01, 0.002, -0.001, 0.003, -0.002, 0.004, -0.003)


def write_eth3d(folder: Path, room: Room, *, unknown: Pixels) -> None:
    """A training scene, as taken and undistorted; depth, infinite at the pixels ``unknown``, is of those as taken."""
    names = [f"DSC_{6491 - i:04d}.JPG" for i in range(len(room))]
    _write_photographs(folder, "dslr_calibration_undistorted", "dslr_images_undistorted", names, room)
    rgb, depth = room.through(rays(room.K, room.size, thin_prism_fisheye(*THIN_PRISM)))
    seen = dataclasses.replace(room, rgb=rgb, depth=depth)
    _write_photographs(folder, "dslr_calibration_jpg", "dslr_images", names, seen, "THIN_PRISM_FISHEYE", THIN_PRISM)
    (folder / "ground_truth_depth" / "dslr_images").mkdir(parents=True)
    for name, z in zip(names, depth):
        z[unknown] = np.inf
        z.astype("<f4").tofile(folder / "ground_truth_depth" / "dslr_images" / name)


def _write_photographs(
    folder: Path, calibration: str, place: str, names: Sequence[str], room: Room,
    model: str = "PINHOLE", params: Sequence[float] = (),
) -> None:  # fmt: skip
    write_model(folder / calibration, room, [f"{place}/{name}" for name in names], model=model, params=params)
    for name, image in zip(names, room.rgb):
        save(folder / "images" / place / name, image, format="JPEG", quality=95, subsampling=0)


def write_re10k(file: Path, frames: Path, room: Room, *, unit: float = 3.1) -> None:
    """The text of a clip, and its frames in a folder; lengths are in an arbitrary ``unit``."""
    K, (width, height) = room.K, room.size
    shares = [K[0, 0] / width, K[1, 1] / height, K[0, 2] / width, K[1, 2] / height, 0, 0]
    lines = ["https://www.youtube.com/watch?v=0123456789a"]
    for i, image in enumerate(room.rgb):
        time = 9977000 + 33366 * i
        cam_from_world = np.linalg.inv(in_unit(room.world_from_cam[i], unit))[:3]
        lines.append(" ".join([str(time), *(f"{value:.9f}" for value in [*shares, *cam_from_world.ravel()])]))
        save(frames / f"{time}.png", image)
    write_text(file, "\n".join(lines) + "\n")
