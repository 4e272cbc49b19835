"""A page to share: one HTML file to look around in, with points and cameras inside; it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from reliev3r.core.files import atomic_path
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.cloud import Cloud, whole_scene
from reliev3r.export.maps import data_uri
from reliev3r.export.points import frustum_size, view_colours

LARGEST = 10_000_000
"""Bytes of a page; the points get what cameras and programs leave, of more than some thousand cameras nothing."""
MOST_POINTS = 350_000
_THUMBNAILS = 2_500_000
_SIDES = (320, 224, 160, 112, 80, 56, 40)
_POINT = 20
"""Bytes of a point in the file: 12 + 3 as base64."""


def write_view(reconstruction: Reconstruction, path: Path | str) -> int:
    """Write the page, atomically, and return the number of its points; a system without depth has cameras alone.

    The most confident pixel of each voxel becomes a point; voxels are as small as the file's size allows. Everything
    is turned upright (:func:`~reliev3r.export.cameras.upright_from_world`). Names and other text of files are data to
    the page, never HTML, and its content security policy allows neither other scripts nor any address.
    """
    upright = upright_from_world(reconstruction.prediction.world_from_cam)
    cameras = (upright @ reconstruction.prediction.world_from_cam.double()).numpy()
    pictures = _thumbnails(reconstruction)
    programs = {name: _text(name) for name in ("page.html", "page.css", "page.js", "three.min.js")}
    room = LARGEST - sum(map(len, [*programs.values(), *pictures])) - 1000 * len(pictures) - 20_000
    cloud = Cloud.of(reconstruction, upright, max(0, min(MOST_POINTS, room // _POINT)))
    title = f"{len(cameras)} views by {reconstruction.meta.get('system', 'an unknown system')}"
    facts = f"{len(cloud.points):,} points, {len(cameras)} cameras"
    scene = {"facts": facts, "cameras": _cameras(reconstruction, cameras, pictures), **_scene(cloud, cameras)}
    with atomic_path(path) as temporary:
        temporary.write_text(_document(programs, title, scene), encoding="utf8")
    return len(cloud.points)


def _scene(cloud: Cloud, cameras: Float[np.ndarray, "v 4 4"]) -> dict[str, Any]:
    """The cloud, and where to look at it from."""
    centres, count = cameras[:, :3, 3], len(cloud.points)
    seen = cloud.points if count else centres
    place = whole_scene(centres, seen)
    last = [max(0, round(count * (1 - hidden / 100)) - 1) for hidden in range(100)]
    return {
        "count": count,
        "positions": _base64(cloud.points.astype("<f4")),
        "colours": _base64(cloud.colours),
        "thresholds": [round(float(cloud.conf[rank]), 3) for rank in last] if count else [],
        "spacing": cloud.spacing,
        "camera_size": frustum_size(centres, seen),
        "extent": place.extent,
        "target": place.target.tolist(),
        "start": place.start.tolist(),
    }


def _cameras(reconstruction: Reconstruction, cameras: np.ndarray, pictures: list[str]) -> list[dict[str, Any]]:
    """Pose, corners of the map (rays with z = 1, clockwise from the top left), colour, a distance to turn around."""
    height, width = reconstruction.prediction.depth.shape[-2:]
    K = reconstruction.prediction.K.double().numpy()
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    rays = corners @ np.linalg.inv(K).transpose(0, 2, 1)
    spread = float(np.linalg.norm(cameras[:, :3, 3] - cameras[:, :3, 3].mean(0), axis=1).mean())
    depth = reconstruction.prediction.depth.flatten(1).median(1).values.nan_to_num(0.0, 0.0, 0.0)
    return [
        {
            "name": name,
            "pose": pose.flatten().tolist(),
            "corners": ray.flatten().tolist(),
            "colour": colour.tolist(),
            "image": picture,
            "distance": (float(depth[view]) if reconstruction.predicts_depth else spread) or 1.0,
        }
        for view, (name, pose, ray, colour, picture) in enumerate(
            zip(reconstruction.names, cameras, rays, view_colours(len(cameras)), pictures, strict=True)
        )
    ]


def _thumbnails(reconstruction: Reconstruction) -> list[str]:
    """The images as JPEG addresses, as large as all of them together may be."""
    pictures: list[str] = []
    for side in _SIDES:
        pictures = [_jpeg(image, side) for image in reconstruction.image.numpy()]
        if sum(map(len, pictures)) <= _THUMBNAILS:
            break
    return pictures


def _jpeg(image: UInt8[np.ndarray, "h w 3"], side: int) -> str:
    factor = min(1.0, side / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return data_uri(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _text(name: str) -> str:
    return (files("reliev3r.export") / "viewer" / name).read_text(encoding="utf8")


def _document(programs: dict[str, str], title: str, scene: dict[str, Any]) -> str:
    """The page; ``<`` in the data is written as JSON's escape, so that no text can end its element."""
    three, script, style = programs["three.min.js"], programs["page.js"], programs["page.css"]
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allowed(style)}; "
        f"script-src {_allowed(three)} {_allowed(script)}; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(scene, allow_nan=False).replace("<", "\\u003c")
    return Template(programs["page.html"]).substitute(
        title=escape(title), policy=policy, style=style, scene=data, three=three, script=script
    )


def _allowed(program: str) -> str:
    digest = hashlib.sha256(program.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
