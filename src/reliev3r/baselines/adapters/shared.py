"""What adapters share: finding upstream code, loading weights safely, resizing, and rigid transforms in numpy.

Everything here runs in the interpreter of the upstream system (Python 3.8 or newer, numpy; torch and Pillow inside
functions). Poses are float64 ``world_from_cam`` matrices with OpenCV camera axes; pixels are corner-based.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MIN_DEPTH = 1e-6
"""Relative to the median depth: points at or behind the camera are moved here, so that rays stay finite."""

VIT_LARGE = {
    "pos_embed": "RoPE100",
    "enc_embed_dim": 1024,
    "enc_depth": 24,
    "enc_num_heads": 16,
    "dec_embed_dim": 768,
    "dec_depth": 12,
    "dec_num_heads": 12,
}
"""Arguments of CroCo's classes in the released sizes of DUSt3R and what grew from it."""

_KEPT: list[Any] = []


def add_repo(repo: str | None, *folders: str) -> None:
    """Put a checkout (or its sub-folders) first on the import path; nothing for ``None`` (a package is installed).

    Raises:
        FileNotFoundError: no such folder.
    """
    for folder in folders or ("",):
        if repo is not None:
            path = os.path.join(os.path.abspath(repo), folder).rstrip(os.sep)
            if not os.path.isdir(path):
                raise FileNotFoundError(f"{path}: no such folder; --repo names a checkout of the system's repository")
            sys.path.insert(0, path)


def seeded(build: Callable[[], Any]) -> Any:
    """A model that ``build`` makes with random weights of seed 0, in evaluation mode."""
    import torch

    torch.manual_seed(0)
    model = build()
    model.eval()  # on its own line: some upstream classes return nothing
    return model


def read_state(path: str, key: str | None = None, allow: Sequence[Any] = ()) -> dict[str, Any]:
    """The tensors of a checkpoint (safetensors, or a torch file read with weights_only), on the CPU.

    ``key`` names the entry that holds the state dict (bare dicts are accepted too); ``allow`` are harmless classes that
    the file may hold besides tensors, for instance ``argparse.Namespace``.
    """
    import torch

    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    with torch.serialization.safe_globals(list(allow)):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return content[key] if key is not None and key in content else content


def load_state(model: Any, state: dict[str, Any], ignore: Sequence[str] = ()) -> Any:
    """Load ``state`` strictly; weights of either side that start with a prefix in ``ignore`` may be absent.

    Raises:
        ValueError: weights are missing or unknown.
    """
    found = model.load_state_dict(state, strict=False)
    for what, names in (("lacks", found.missing_keys), ("has unknown", found.unexpected_keys)):
        names = [name for name in names if not name.startswith(tuple(ignore))]
        if names:
            raise ValueError(f"the checkpoint {what} {len(names)} weights, the first is {names[0]}")
    return model


def repair_torchvision() -> None:
    """Let torchvision be imported where its compiled part does not fit torch (a CUDA build beside a CPU torch).

    It then fails for want of two operators, which no adapter calls: they are declared. Nothing else is changed, and
    nothing at all where the import works or there is no torchvision.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)  # its declarations live as long as it does


def resize(image: np.ndarray, width: int, height: int, method: str = "LANCZOS") -> np.ndarray:
    """An uint8 image [h, w, 3] at another size with Pillow's filter, as most upstream loaders do."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), getattr(Image, method)))


def resize_and_crop(
    image: np.ndarray, resized: tuple[int, int], size: tuple[int, int], method: str = "LANCZOS"
) -> tuple[np.ndarray, list[float]]:
    """Resize to ``resized`` = (width, height), then cut ``size`` = (width, height) out of the middle.

    Also the region that is left, (left, top, width, height) in pixels of the original image.
    """
    height, width = image.shape[:2]
    left, top = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    picture = resize(image, resized[0], resized[1], method)[top : top + size[1], left : left + size[0]]
    x, y = width / resized[0], height / resized[1]
    return picture, [left * x, top * y, size[0] * x, size[1] * y]


def whole(images: Sequence[np.ndarray]) -> np.ndarray:
    """Regions [v, 4] that cover the whole images."""
    return np.array([[0.0, 0.0, image.shape[1], image.shape[0]] for image in images])


def channels_first(images: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 images of one size [h, w, 3] as float32 [v, 3, h, w] in [0, 1]."""
    return np.ascontiguousarray(np.stack(list(images)).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def to_numpy(value: Any) -> np.ndarray:
    """A tensor as an array; bfloat16 and half become float32."""
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def autocast(device: str) -> Any:
    """bfloat16 on GPUs that have it, float16 on older ones, nothing on the CPU: as the upstream scripts do."""
    import contextlib

    import torch

    if not device.startswith("cuda"):
        return contextlib.nullcontext()
    modern = torch.cuda.get_device_capability(torch.device(device))[0] >= 8
    return torch.autocast("cuda", dtype=torch.bfloat16 if modern else torch.float16)


def rotation_from_quaternion(wxyz: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4], real part first, of any length."""
    w, x, y, z = np.moveaxis(wxyz / np.linalg.norm(wxyz, axis=-1, keepdims=True), -1, 0).astype(np.float64)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Matrices [..., 4, 4] of rotations [..., 3, 3] and translations [..., 3], float64."""
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., :3, :3], matrix[..., :3, 3], matrix[..., 3, 3] = rotation, translation, 1
    return matrix


def orthonormal(a_from_b: np.ndarray) -> np.ndarray:
    """The same poses with the nearest rotation matrices: float32 or bfloat16 heads leave them slightly off."""
    u, _, vt = np.linalg.svd(np.asarray(a_from_b, np.float64)[..., :3, :3])
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return pose(u @ vt, a_from_b[..., :3, 3])


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """b_from_a of rigid transforms [..., 4, 4]."""
    rotation = np.swapaxes(a_from_b[..., :3, :3], -1, -2)
    return pose(rotation, -(rotation @ a_from_b[..., :3, 3:])[..., 0])


def in_first(world_from_cam: np.ndarray) -> np.ndarray:
    """Poses [v, 4, 4] in the frame of the first camera, whose own becomes exactly the identity."""
    moved = invert(world_from_cam[0]) @ world_from_cam
    moved[0] = np.eye(4)
    return moved


def depth_and_rays(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z-depth [v, h, w] and rays [v, h, w, 3] with z = 1, whose product is the camera-frame ``points`` [v, h, w, 3]."""
    z = points[..., 2]
    front = z[z > 0]
    depth = np.maximum(z, MIN_DEPTH * (np.median(front) if front.size else 1.0))
    return depth, np.concatenate([points[..., :2] / depth[..., None], np.ones_like(depth)[..., None]], axis=-1)


def rays_from_K(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rays [v, h, w, 3] with z = 1 through the pixel centres, of K [v, 3, 3] (corner convention, zero skew)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x = (u - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    y = (v - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def cover(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, list[float]]:
    """The largest central part of an image that has this aspect, at width x height; also its region (see above)."""
    from PIL import Image

    scale = min(image.shape[1] / width, image.shape[0] / height)
    left, top = (image.shape[1] - scale * width) / 2, (image.shape[0] - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(picture), [left, top, scale * width, scale * height]


def in_region(K: np.ndarray, regions: np.ndarray, width: int, height: int) -> np.ndarray:
    """K [v, 3, 3] of original pixels in pixels of maps of width x height that cover ``regions`` [v, 4]."""
    moved = np.array(K, np.float64)
    moved[:, :2, 2] -= regions[:, :2]
    return moved * np.stack([width / regions[:, 2], height / regions[:, 3], np.ones(len(regions))], -1)[:, :, None]


def centred_K(focal: np.ndarray, width: int, height: int) -> np.ndarray:
    """K [v, 3, 3] of focal lengths [v] in pixels, with square pixels and the principal point in the middle."""
    K = np.zeros((len(focal), 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    return K


def most_confident(conf: np.ndarray, share: float) -> np.ndarray:
    """Which entries belong to the ``share`` with the highest confidence: confidences compare by rank only."""
    return conf >= np.quantile(conf, 1 - share)


def focal_from_points(points: np.ndarray, trusted: np.ndarray, rounds: int = 10) -> float:
    """Focal length in pixels of a camera-frame point map [h, w, 3]: Weiszfeld's iteration for the L1 misfit
    |uv - f (x, y) / z| over the trusted pixels [h, w], with the principal point in the middle (as DUSt3R does).

    Between a quarter and six times the longer side: nonsense points may ask for any, and for negative ones. NaN where
    no trusted point lies before the camera.
    """
    height, width = points.shape[:2]
    trusted = trusted & (points[..., 2] > 0)
    uv = np.stack(np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2), axis=-1)
    uv, xy = uv[trusted], (points[..., :2][trusted] / points[..., 2:][trusted]).astype(np.float64)
    along, square = (uv * xy).sum(-1), (xy * xy).sum(-1)
    if not square.sum() > 0:
        return float("nan")
    focal = along.sum() / square.sum()
    for _ in range(rounds):
        weight = 1 / np.maximum(np.linalg.norm(uv - focal * xy, axis=-1), 1e-8)
        focal = (weight * along).sum() / (weight * square).sum()
    return float(np.clip(focal, max(height, width) / 4, max(height, width) * 6))


def pose_from_points(points: np.ndarray, trusted: np.ndarray, K: np.ndarray, pixels: float = 5.0) -> np.ndarray | None:
    """world_from_cam [4, 4] of the camera that sees the world ``points`` [h, w, 3] at their own pixels; PnP.

    RANSAC with SQPnP over the trusted pixels [h, w] (an inlier is off by less than ``pixels``), then least squares over
    its inliers. ``None`` where no pose is found, which the caller must report as such: it is no identity.
    """
    import cv2

    trusted = trusted & np.isfinite(points).all(-1)
    rows, columns = np.nonzero(trusted)
    if len(rows) < 6 or not np.isfinite(K).all():
        return None
    uv, xyz = np.stack([columns, rows], axis=-1) + 0.5, points[trusted].astype(np.float64)
    scale = np.median(np.linalg.norm(xyz, axis=-1))
    if not scale > 0:
        return None
    cv2.setRNGSeed(0)
    try:
        found, turn, shift, inliers = cv2.solvePnPRansac(
            xyz / scale, uv, K, None, iterationsCount=200, reprojectionError=pixels, flags=cv2.SOLVEPNP_SQPNP
        )
        if not found or inliers is None or len(inliers) < 6:
            return None
        chosen = inliers[:, 0]
        turn, shift = cv2.solvePnPRefineLM(xyz[chosen] / scale, uv[chosen], K, None, turn, shift)
    except cv2.error:  # degenerate points
        return None
    cam_from_world = pose(cv2.Rodrigues(turn)[0], shift[:, 0] * scale)
    return invert(cam_from_world) if np.isfinite(cam_from_world).all() else None


def poses_from_points(points: np.ndarray, trusted: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """world_from_cam [v, 4, 4] and found [v] of maps [v, h, w, 3] in the first camera's frame; see pose_from_points.

    The first camera is the frame itself. Where nothing is found the matrix is a placeholder and ``found`` is False.
    """
    poses, found = np.tile(np.eye(4), (len(points), 1, 1)), np.ones(len(points), bool)
    for view in range(1, len(points)):
        solved = pose_from_points(points[view], trusted[view], K[view])
        found[view] = solved is not None
        poses[view] = np.eye(4) if solved is None else solved
    return poses, found


def to_cameras(points: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """World points [v, h, w, 3] in the frames of the cameras [v, 4, 4]."""
    cam_from_world = invert(world_from_cam)[:, None, None]
    return (cam_from_world[..., :3, :3] @ points[..., None])[..., 0] + cam_from_world[..., :3, 3]


def stand_in(name: str, **attributes: Any) -> None:
    """An empty module ``name`` (and its parents) with these attributes, unless it is installed.

    For packages that an upstream repository imports but does not need on the path that is run here.
    """
    import importlib.util
    import types

    parent, _, child = name.rpartition(".")
    if parent:
        stand_in(parent)
    if name in sys.modules and getattr(sys.modules[name], "__spec__", None) is not None:
        return
    if name not in sys.modules:
        try:
            if importlib.util.find_spec(name) is not None:
                return
        except (ModuleNotFoundError, ValueError):  # the parent is a stand-in
            pass
        sys.modules[name] = types.ModuleType(name)
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    for key, value in attributes.items():
        setattr(sys.modules[name], key, value)
