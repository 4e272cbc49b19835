"""Depth of a room in the layouts of those who computed it, written as their own scripts write it."""

import json
import struct

import cv2
import numpy as np
from dl3dv_layout import APPLIED, BROWN
from reader_room import Room
from room_layouts import save, write_exr


def undistorted(room: Room, k: dict, *, divisor=4):
    """As MapAnything undistorts an image of an OPENCV lens whose pinhole is the room's: (maps, K stated, size, K true).

    OpenCV's optimal K of all source pixels; images are cropped to the valid part, and K stays as it was.
    """
    K, size = (room.K * divisor).astype(np.float32), (room.size[0] * divisor, room.size[1] * divisor)
    K[2, 2] = 1
    bent = np.array([k["k1"], k["k2"], k["p1"], k["p2"], 0], np.float32)
    stated, (left, top, width, height) = cv2.getOptimalNewCameraMatrix(K, bent, size, 1, size)
    true = stated.copy()
    true[:2, 2] -= [left, top]
    return stated, (width, height), true


def looked_up(room: Room, K: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """z [v, h, w] of the room by pinholes K of images of ``size``, on a grid of ``shape``; NaN beyond the room's."""
    h, w = shape
    u, v = (np.arange(w) + 0.5) * size[0] / w, (np.arange(h) + 0.5) * size[1] / h
    x = (u - K[0, 2]) / K[0, 0] * room.K[0, 0] + room.K[0, 2] - 0.5
    y = (v - K[1, 2]) / K[1, 1] * room.K[1, 1] + room.K[1, 2] - 0.5
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    inverse = [cv2.remap((1 / d).astype(np.float32), x, y, cv2.INTER_LINEAR, borderValue=-1) for d in room.depth]
    return np.stack([np.where(i > 0.01, 1 / np.maximum(i, 1e-6), np.nan) for i in inverse])


def write_wai(folder, room: Room, *, lens=None, unit=1.0, worse=()) -> None:
    """scene_meta.json as convert, undistort, run_mvsanywhere, depth_consistency_confidence and run_moge leave it.

    The upper left corner of every map is nonsense with confidence 0, the lower right corner is sky by the mask.
    ``worse``: views whose depth is half as far as it should be.
    """
    lens = BROWN if lens is None else lens
    stated, size, true = undistorted(room, lens)
    z = looked_up(room, true, size, (48, 64)) / unit
    frames = []
    for index, pose in enumerate(room.world_from_cam):
        name = f"frame_{index + 1:05d}"
        depth = np.nan_to_num(z[index]).astype(np.float32)
        depth[:8, :8] = 1000.0
        depth[-8:, -8:] = 500.0
        write_exr(folder / f"mvsanywhere/v0/depth/{name}.exr", {"Y": depth * (0.5 if index in worse else 1)})
        confidence = np.ones((24, 32), np.float32)
        confidence[:4, :4] = 0.2
        write_exr(folder / f"mvsa_conf/v0/depth_confidence/{name}.exr", {"Y": confidence})
        mask = np.full((96, 128), 255, np.uint8)
        mask[-16:, -16:] = 0
        save(folder / f"moge2/v0/mask/moge2/{name}.png", mask)
        pose = APPLIED @ pose
        pose[:3, 3] /= unit
        frames.append(
            {
                "frame_name": name, "file_path": f"images/{name}.jpg", "image": f"images/{name}.jpg",
                "transform_matrix": pose.tolist(), "mvsanywhere_depth": f"mvsanywhere/v0/depth/{name}.exr",
                "mvsanywhere_depth_confidence": f"mvsa_conf/v0/depth_confidence/{name}.exr",
                "moge2_mask": f"moge2/v0/mask/moge2/{name}.png",
            }
        )  # fmt: skip
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
    own = {"fl_x": stated[0, 0], "fl_y": stated[1, 1], "cx": stated[0, 2], "cy": stated[1, 2],
           "w": size[0], "h": size[1], "camera_model": "PINHOLE"}  # fmt: skip
    own = {key: value if isinstance(value, str) else float(value) for key, value in own.items()}
    (folder / "scene_meta.json").write_text(
        json.dumps({**meta, **own, "frames": frames, "frame_modalities": modalities})
    )
    K = room.K * 4
    before = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": room.size[0] * 4,
              "h": room.size[1] * 4, "camera_model": "OPENCV", **lens}  # fmt: skip
    (folder / "scene_meta_distorted.json").write_text(json.dumps({**meta, **before, "frames": []}))


def write_cut3r(folder, room: Room, *, unit=1.0) -> None:
    """dense/{rgb, depth, cam, sky_mask, outlier_mask}: the room's own pinhole, cropped to the middle of its images."""
    left, top, width, height = 8, 6, 80, 60
    K = room.K.copy()
    K[:2, 2] -= [left, top]
    for index, pose in enumerate(room.world_from_cam):
        name = f"frame_{index + 1:05d}"
        depth = (room.depth[index] / unit)[top : top + height, left : left + width].astype(np.float32)
        depth[0, 0] = np.nan
        depth[30, 40] = 1e4  # an outlier, beyond the 98th percentile
        save(folder / "dense" / "rgb" / f"{name}.png", room.rgb[index][top : top + height, left : left + width])
        for mask, rows in (("sky_mask", np.s_[:5]), ("outlier_mask", np.s_[-5:])):
            values = np.zeros((height, width), np.uint8)
            values[rows] = 255
            save(folder / "dense" / mask / f"{name}.png", values)
            depth[rows] = 7e3
        for part in ("depth", "cam"):
            (folder / "dense" / part).mkdir(exist_ok=True)
        np.save(folder / "dense" / "depth" / f"{name}.npy", depth)
        pose = pose.copy()
        pose[:3, 3] /= unit
        np.savez(folder / "dense" / "cam" / f"{name}.npz", intrinsic=K, pose=pose)


def write_colmap_dense(folder, room: Room, *, unit=1.0) -> None:
    """A workspace of COLMAP's image_undistorter and patch_match_stereo, after COLMAP's documentation of its formats."""
    import pycolmap

    (folder / "sparse").mkdir(parents=True)
    (folder / "stereo" / "depth_maps").mkdir(parents=True)
    K, (width, height) = room.K, room.size
    (folder / "sparse" / "cameras.txt").write_text(
        f"1 PINHOLE {width} {height} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n"
    )
    (folder / "sparse" / "points3D.txt").write_text("")
    lines = []
    for index, pose in enumerate(room.world_from_cam):
        name = f"frame_{index + 1:05d}.png"
        cam = np.linalg.inv(pose)
        q = pycolmap.Rotation3d(cam[:3, :3]).quat  # xyzw
        t = cam[:3, 3] / unit
        lines.append(f"{index + 1} {q[3]} {q[0]} {q[1]} {q[2]} {t[0]} {t[1]} {t[2]} 1 {name}\n\n")
        depth = (room.depth[index] / unit).astype("<f4")
        depth[:4] = 0
        for kind, values in (("geometric", depth), ("photometric", depth * 3)):
            content = f"{width}&{height}&1&".encode() + struct.pack(f"<{values.size}f", *values.ravel())
            (folder / "stereo" / "depth_maps" / f"{name}.{kind}.bin").write_bytes(content)
    (folder / "sparse" / "images.txt").write_text("".join(lines))


WRITERS = {"wai": write_wai, "cut3r": write_cut3r, "colmap": write_colmap_dense}
