"""Exact ray casting of a :class:`~reliev3r.synthetic.scene.Scene`, on any torch device, in chunks of pixels.

A ray's direction has z = 1 in its camera's frame, so that the ray parameter of a hit *is* its z-depth. Arrays are laid
out [..., n] with the rays last (see :mod:`reliev3r.synthetic.texture`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reliev3r.core.progress import Progress
from reliev3r.core.types import Truth, Views
from reliev3r.synthetic.scene import Scene
from reliev3r.synthetic.texture import albedo, argmin, select

_NEAR = 1e-4
"""Hits nearer than this, in ray parameters, count as none."""
_MISS = 1e10
"""Stands for "no hit" inside this file only."""


def render(
    scene: Scene,
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    size: tuple[int, int],
    *,
    supersample: int = 2,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> tuple[Views, Truth]:
    """Images and exact ground truth of the scene from some cameras, on the scene's device.

    Args:
        K: intrinsics in pixels of ``size``, corner convention.
        size: (height, width).
        supersample: each pixel is the mean of ``supersample``^2 rays; depth is that of the one ray through its centre.
        chunk: rays at a time; the result does not depend on it beyond rounding. Chosen by device unless given.
    """
    height, width = size
    device = scene.half.device
    K, world_from_cam = K.to(device, torch.float32), world_from_cam.to(device, torch.float32)
    total = len(K) * height * width
    # On a CPU what counts is that a chunk's arrays stay in the cache, on a GPU that there are few kernels.
    step = max(1, (chunk or (1 << 14 if device.type == "cpu" else 1 << 20)) // supersample**2)
    image = torch.empty(3, total, device=device)
    depth = torch.empty(total, device=device)
    valid = torch.empty(total, dtype=torch.bool, device=device)
    for start in range(0, total, step):
        part = slice(start, min(start + step, total))
        pixels = torch.arange(part.start, part.stop, device=device)
        hits, pixel_size = _cast_pixels(scene, K, world_from_cam, size, pixels, supersample)
        image[:, part] = _shade(scene, hits, pixel_size).unflatten(-1, (supersample**2, -1)).mean(-2)
        if supersample > 1:
            hits, _ = _cast_pixels(scene, K, world_from_cam, size, pixels, 1)
        depth[part], valid[part] = hits.depth, hits.hit
        if progress is not None:
            progress(part.stop, total, "pixels rendered")
    image = image.view(3, len(K), height, width).transpose(0, 1).contiguous()
    truth = Truth(
        depth=depth.view(-1, height, width),
        valid=valid.view(-1, height, width),
        K=K,
        world_from_cam=world_from_cam,
    )
    return Views(image=image, K=K), truth


@dataclass(frozen=True, kw_only=True)
class Hits:
    """First intersections of n rays."""

    depth: Float[Tensor, " n"]
    """Ray parameter; 0 where nothing is hit."""
    hit: Bool[Tensor, " n"]
    object: Int[Tensor, " n"]
    """The object that is hit; any where none is."""
    origin: Float[Tensor, "3 n"]
    """Origin of the ray in that object's frame, in units of its half extents."""
    direction: Float[Tensor, "3 n"]
    """Likewise."""


def cast(scene: Scene, origin: Float[Tensor, "3 n"], direction: Float[Tensor, "3 n"]) -> Hits:
    """The first surface along each ray origin + t * direction, t > 0, world frame (directions of any length)."""
    to_unit = scene.world_from_object[:, :3, :3].permute(2, 0, 1) / scene.half.T[..., None]  # [axis, object, 3]
    shift = -(to_unit * scene.world_from_object[:, :3, 3]).sum(-1, keepdim=True)
    o = _affine(to_unit, shift, origin)
    d = _affine(to_unit, torch.full_like(shift, 1e-20), direction)  # the shift prevents divisions by zero
    cubes = 1 + scene.boxes
    near, far = _cube(o[:, :cubes], d[:, :cubes])
    missed = near - far
    t = torch.cat([_unless(missed[:1], far[:1]), _unless(missed[1:], near[1:]), _ball(o[:, cubes:], d[:, cubes:])])
    depth, index = t.amin(0), argmin(t)
    hit = depth < _MISS / 2
    return Hits(depth=depth * hit, hit=hit, object=index, origin=select(o, index), direction=select(d, index))


def _affine(matrix: Tensor, shift: Tensor, x: Tensor) -> Tensor:
    """matrix [3, k, 3] times x [3, n] plus shift [3, k, 1]: [3, k, n]; neither TF32 nor autocast touch it."""
    result = torch.addcmul(shift, matrix[..., :1], x[0])
    result.addcmul_(matrix[..., 1:2], x[1])
    return result.addcmul_(matrix[..., 2:], x[2])


def _cube(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Ray parameters [k, n] of entering and leaving the cube [-1, 1]^3 (slab test)."""
    inverse = d.reciprocal()
    middle = (o * inverse).neg_()  # in place wherever possible: fresh memory costs more than the arithmetic
    extent = inverse.abs_()
    return (middle - extent).amax(0), middle.add_(extent).amin(0)


def _ball(o: Tensor, d: Tensor) -> Tensor:
    """Ray parameter [k, n] of entering the unit ball from outside, _MISS or more where there is none."""
    a, b, c = _dot(d, d), _dot(o, d), _dot(o, o) - 1
    discriminant = b * b - a * c
    return _unless(-discriminant, (-b - discriminant.clamp_min(0).sqrt()) / a)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Inner product over the first of axes [3, ...]."""
    return torch.addcmul(x[0] * y[0], x[1], y[1]).addcmul_(x[2], y[2])


def _unless(missed: Tensor, t: Tensor) -> Tensor:
    """``t``, or _MISS and more where ``missed`` > 0 or t < _NEAR (by arithmetic, see texture.py)."""
    return t.clamp(0, _MISS) + (1e30 * torch.maximum(missed, _NEAR - t)).clamp(0, _MISS)


def _cast_pixels(
    scene: Scene, K: Tensor, world_from_cam: Tensor, size: tuple[int, int], pixels: Tensor, supersample: int
) -> tuple[Hits, Tensor]:
    """Hits of the supersample^2 * n rays through the sub-pixel centres of n flat indices into [v, h, w].

    Also the distance between neighbouring rays at depth 1.
    """
    height, width = size
    row, view = pixels // width, pixels // (height * width)
    sub = (torch.arange(supersample, device=pixels.device) + 0.5) / supersample
    sub_v, sub_u = torch.meshgrid(sub, sub, indexing="ij")
    u = (sub_u.reshape(-1, 1) + (pixels - row * width)).flatten()
    v = (sub_v.reshape(-1, 1) + (row - view * height)).flatten()
    focal_and_centre = torch.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]])
    table = torch.cat([focal_and_centre, world_from_cam[:, :3].permute(2, 1, 0).flatten(0, 1)])
    camera = table.index_select(1, view.repeat(supersample**2))
    x, y = (u - camera[2]) / camera[0], (v - camera[3]) / camera[1]
    right, down, forward, origin = camera[4:].unflatten(0, (4, 3))
    return cast(scene, origin, right * x + down * y + forward), 1 / (supersample * camera[0])


def _shade(scene: Scene, hits: Hits, pixel_size: Tensor) -> Tensor:
    """RGB [3, n] under the point light and ambient light; ``pixel_size`` is a pixel's width at depth 1."""
    ball = (torch.arange(len(scene.half), device=scene.half.device) > scene.boxes).float()
    inward = 1 - 2.0 * (torch.arange(len(scene.half), device=scene.half.device) < 1).float()
    rotation, centre = scene.world_from_object[:, :3, :3], scene.world_from_object[:, :3, 3]
    light = ((scene.light - centre)[:, None] @ rotation)[:, 0]
    table = torch.cat([scene.half.T, light.T, ball[None], inward[None]]).index_select(1, hits.object)
    half, light, ball, side = table[:3], table[3:6], table[6], table[7]

    unit = hits.origin + hits.depth * hits.direction
    size = unit.abs()
    axis = argmin(2 - size)  # of the face
    towards = (1e30 * select(unit, axis)).clamp(-1, 1)
    face = 6 * hits.object + 2 * axis + (towards > 0)
    # A ball is textured as a cube whose faces are blown up (equal angles, not equal lengths, along them).
    across = torch.tensor([[1, 0, 0], [2, 2, 1]], device=axis.device).index_select(1, axis)
    uv = torch.stack([select(unit, row) for row in across])
    uv = torch.lerp(uv, torch.atan(uv / size.amax(0).clamp_min(1e-6)), ball)
    uv = uv * torch.stack([select(half, row) for row in across])

    cube_normal = towards * torch.eye(3, device=axis.device).index_select(1, axis)
    normal = side * torch.lerp(cube_normal, unit, ball)
    light = light - unit * half
    distance = _dot(light, light).sqrt()
    lambert = (_dot(normal, light) / distance.clamp_min(1e-6)).clamp_min(0)
    brightness = scene.ambient + (1 - scene.ambient) * lambert * 1.3 / (1 + (distance / 4).square())

    direction = hits.direction * half
    incidence = _dot(normal, direction).abs() / _dot(direction, direction).sqrt().clamp_min(1e-6)
    footprint = pixel_size * hits.depth / incidence.clamp_min(0.05).sqrt() + 1e-6
    return (albedo(scene.materials, face, uv, footprint) * brightness).clamp(0, 1) * hits.hit
