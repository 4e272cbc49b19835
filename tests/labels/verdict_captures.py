"""Captures that are wrong in one way each, and good ones: small, rendered, seeded. Nothing here is read as truth."""

import functools
import json
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from reliev3r.geometry.rigid import so3_exp
from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.path import sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene

WIDTH, HEIGHT, VIEWS = 240, 180, 6


def write(folder: Path, images: list[np.ndarray], K: np.ndarray | None) -> Path:
    """A capture folder without poses or depth."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for view, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{view:03d}.png")
        frames.append({"name": f"{view:03d}", "image": f"images/{view:03d}.png"})
        if K is not None:
            frames[-1]["K"] = (K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])).tolist()
    (folder / "cameras.json").write_text(json.dumps({"frames": frames}))
    return folder


def config(seed: int, texture: str = "masonry", *, views: int = VIEWS, span: float = 40.0) -> SynthConfig:
    return SynthConfig(
        seed=seed, views=views, width=WIDTH, height=HEIGHT, span=span, supersample=1, texture=texture
    )  # fmt: skip


@functools.cache  # nothing writes into the images
def good(seed: int, texture: str = "masonry", **changes) -> tuple[list[np.ndarray], np.ndarray]:
    settings = config(seed, texture, **changes)
    return to_images(render_capture(settings)[0].image), settings.K.double().numpy()


@functools.cache
def only_turning(seed: int, texture: str = "masonry") -> tuple[list[np.ndarray], np.ndarray]:
    """The first camera of a good capture turns by 35 degrees on the spot."""
    settings = config(seed, texture)
    scene = make_scene(seed, settings.texture)
    size = (HEIGHT, WIDTH)
    pose = sample_path(scene, settings.K, size, settings.camera_path, seed=seed)[:1].repeat(VIEWS, 1, 1)
    for view, angle in enumerate(np.linspace(-0.3, 0.3, VIEWS).tolist()):
        pose[view, :3, :3] @= so3_exp(torch.tensor([0.1 * math.sin(3 * angle), angle, 0.05 * angle]))
    views, _ = render(scene, settings.K.expand(VIEWS, 3, 3), pose, size, supersample=1)
    return to_images(views.image), settings.K.double().numpy()


def shaken(seed: int, texture: str = "masonry", *, length: int = 13) -> tuple[list[np.ndarray], np.ndarray]:
    """A good capture, each image smeared over ``length`` pixels in a direction of its own."""
    images, K = good(seed, texture)
    angles = np.random.default_rng(seed).uniform(0, 180, len(images))
    return [smeared(image, length, angle) for image, angle in zip(images, angles, strict=True)], K


def smeared(image: np.ndarray, length: int, angle: float) -> np.ndarray:
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    middle = (length - 1) / 2
    kernel = cv2.warpAffine(kernel, cv2.getRotationMatrix2D((middle, middle), angle, 1), (length, length))
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def bare(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Smooth walls under sensor noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    images = []
    for view in range(VIEWS):
        wall = 150 + 20 * np.sin((x + 10 * view) / 150 + seed) + 15 * np.cos(y / 130)
        images.append((wall[..., None] + rng.normal(0, 2, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8))
    return images, wall_K()


def facade(seed: int, *, mirrored: bool, own: float = 3.0) -> tuple[list[np.ndarray], np.ndarray]:
    """A wall of 4 x 8 windows: one and its mirror images all over (``mirrored``), or each window another.

    ``own`` is the standard deviation, in grey levels, of the dirt that makes even copies differ a little.
    """
    rng = np.random.default_rng(seed)
    rows, columns, side = 4, 8, 48
    if mirrored:
        window = _window(rng, side)
        row = np.concatenate([window if k % 2 == 0 else window[:, ::-1] for k in range(columns)], axis=1)
        wall = np.concatenate([row if k % 2 == 0 else row[::-1] for k in range(rows)], axis=0)
    else:
        wall = np.concatenate(
            [np.concatenate([_window(rng, side) for _ in range(columns)], axis=1) for _ in range(rows)], axis=0
        )
    dirt = rng.normal(0, own, (6 * rows, 6 * columns, 3)).astype(np.float32)
    wall = wall + cv2.resize(dirt, wall.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    metres = 4.0 / (3 * side)  # of a pixel of the wall
    centred = np.array([[metres, 0, -wall.shape[1] * metres / 2], [0, metres, -wall.shape[0] * metres / 2], [0, 0, 1]])
    images = []
    for share in np.linspace(-0.5, 0.5, VIEWS):
        rotation = cv2.Rodrigues(np.array([0.05 * math.sin(5 * share), -0.5 * share, 0.02 * share]))[0]
        centre = np.array([0.45 * share * columns * side * metres, 0.1 * math.cos(4 * share), -4.0])
        plane = np.stack([rotation[:, 0], rotation[:, 1], -rotation @ centre], axis=1)  # image of (x, y, 1) at z = 0
        image = cv2.warpPerspective(
            wall, wall_K() @ plane @ centred, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101
        )
        images.append((image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8))
    return images, wall_K()


def wall_K() -> np.ndarray:
    return np.array([[190.0, 0, WIDTH / 2], [0, 190.0, HEIGHT / 2], [0, 0, 1]])


def _window(rng: np.random.Generator, side: int) -> np.ndarray:
    window = np.full((side, side, 3), rng.uniform(90, 180, 3), np.float32)
    for _ in range(14):
        x, y = (int(v) for v in rng.integers(0, side, 2))
        colour = rng.uniform(20, 235, 3).tolist()
        if rng.random() < 0.6:
            cv2.rectangle(window, (x, y), (x + int(rng.integers(4, 16)), y + int(rng.integers(4, 16))), colour, -1)
        else:
            cv2.circle(window, (x, y), int(rng.integers(3, 8)), colour, -1)
    return window


def to_images(images: torch.Tensor) -> list[np.ndarray]:
    return [(image.movedim(0, -1) * 255).round().to(torch.uint8).numpy() for image in images]
