"""Depth of a room in the layouts of those who computed it, written as their own scripts write it."""

import struct

import numpy as np
from layouts import Room, save, write_wai


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
