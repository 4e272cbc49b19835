"""Depth from many views under known cameras: a plane sweep over any features, checked across views. No training.

For each view, planes of equal inverse depth are laid before it; where the features of neighbouring views, looked up
through a plane, agree with its own, there is a surface. What several views find alike is sure; ``sfm.fill_depth`` fills
the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reliev3r.core.memory import return_free_memory
from reliev3r.core.progress import Progress
from reliev3r.geometry.camera import pixel_grid, rays_from_uv
from reliev3r.geometry.rigid import invert


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """How a sweep looks, and what it believes."""

    planes: int = 64
    neighbours: int = 5
    """Views that each view is compared with: by baseline and direction."""
    temperature: float = 0.05
    """Of the softmax over planes; similarities are cosines."""
    similar: float = 0.5
    """Least similarity of a surface."""
    agree: float = 0.04
    """Relative difference within which another view confirms a depth."""
    sure: float = 0.5
    """Confidence from which a depth counts as sure."""


NEAR = 24
"""Views, the nearest by their centres, among which a view's neighbours are sought and that confirm what it finds: time
and the sense of what is near stay the same however long a walk is."""
APART = 0.05
"""Of a view's depth: what lies nearer to it sees hardly any parallax (3 degrees), and is asked after all others. Frames
of a video lie nearer: swept with the next ones, their depth is off by a quarter (docs/results/long.md)."""


_TIDY = 50
"""Views after which freed memory is handed back."""


@dataclass(frozen=True, kw_only=True)
class SweptDepth:
    """At the resolution of the features."""

    depth: Float[Tensor, "v fh fw"]
    """z-depth > 0 in the unit of the cameras."""
    confidence: Float[Tensor, "v fh fw"]
    """In [0, 1]: 0 where no surface was found or no other view confirms it."""


@torch.no_grad()
def plane_sweep(
    features: Float[Tensor, "v c fh fw"],
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    size: tuple[int, int],
    depth_range: Float[Tensor, "v 2"],
    config: SweepConfig | None = None,
    progress: Progress | None = None,
) -> SweptDepth:
    """Sweep every view, then keep what other views confirm.

    Args:
        features: of any length (they are normalised), of the whole image.
        K: in pixels of ``size``.
        world_from_cam: known cameras.
        size: (height, width) that ``K`` belongs to.
        depth_range: nearest and farthest z-depth of each view, > 0.
        config: see there.
        progress: hears of each view.
    """
    config = config or SweepConfig()
    features = F.normalize(features.float(), dim=1)
    grid = features.shape[-2:]
    K = _of_grid(K.float(), size, grid)
    cameras = world_from_cam.float()
    apart = APART * depth_range.log().mean(-1).exp()
    depths, confidences = [], []
    for view in range(len(features)):
        others = neighbours(cameras, view, config.neighbours, float(apart[view]))
        depth, confidence = _swept(features, K, cameras, view, others, depth_range[view], config)
        depths.append(depth)
        confidences.append(confidence)
        if view % _TIDY == 0:
            return_free_memory()
        if progress:
            progress(view + 1, len(features), "plane sweep")
    depth, confidence = torch.stack(depths), torch.stack(confidences)
    count = confirmations(depth, K, cameras, config.agree, apart)
    # Two views that confirm a depth are enough; one is where the sweep itself was clear.
    share = torch.where(count >= 2, 1.0, torch.where((count == 1) & (confidence > config.sure), 0.5, 0.0))
    return SweptDepth(depth=depth, confidence=confidence * share)


def neighbours(world_from_cam: Float[Tensor, "v 4 4"], view: int, count: int, apart: float) -> Int[Tensor, " k"]:
    """Views near enough to see the same, far enough (``apart``) to see it from elsewhere, that look the same way."""
    centre, look = world_from_cam[:, :3, 3], world_from_cam[:, :3, 2]
    baseline = (centre - centre[view]).norm(dim=-1)
    others = torch.zeros_like(baseline, dtype=torch.bool).index_fill(0, nearest(world_from_cam, view, apart), True)
    relative = baseline / baseline[others].median().clamp_min(1e-9)
    cost = relative + 4 * (1 - look @ look[view]) + 10.0 * (relative < 0.15) + 10.0 * (baseline < apart)
    return cost.masked_fill(~others, torch.inf).argsort()[: min(count, len(centre) - 1)]


def nearest(world_from_cam: Float[Tensor, "v 4 4"], view: int, apart: float) -> Int[Tensor, " k"]:
    """The up to :data:`NEAR` other views whose centres are nearest, those that lie nearer than ``apart`` after all
    others."""
    baseline = (world_from_cam[:, :3, 3] - world_from_cam[view, :3, 3]).norm(dim=-1)
    cost = torch.where(baseline < apart, baseline.max() + apart - baseline, baseline)
    cost[view] = torch.inf
    return cost.argsort(stable=True)[: min(NEAR, len(baseline) - 1)]


def _of_grid(K: Tensor, size: tuple[int, int], grid: torch.Size) -> Tensor:
    """Intrinsics in cells."""
    shrink = torch.tensor([grid[1] / size[1], grid[0] / size[0], 1.0], device=K.device)
    return K * shrink[:, None]


def _swept(
    features: Tensor, K: Tensor, cameras: Tensor, view: int, others: Tensor, near_far: Tensor, config: SweepConfig
) -> tuple[Float[Tensor, "fh fw"], Float[Tensor, "fh fw"]]:
    rows, columns = features.shape[-2:]
    inverse = torch.linspace(float(1 / near_far[1]), float(1 / near_far[0]), config.planes, device=features.device)
    rays = rays_from_uv(pixel_grid(rows, columns).to(K).reshape(-1, 2), K[view])
    own = features[view].flatten(1)
    similar = []
    for other in others.tolist():
        place, visible = _through_planes(rays, inverse, K[other], invert(cameras[other]) @ cameras[view])
        scale = 2 / place.new_tensor([columns, rows])
        there = F.grid_sample(features[other, None], (place * scale - 1)[None], align_corners=False)[0]  # c planes n
        inside = visible & (place > 0).all(-1) & (place < place.new_tensor([columns, rows])).all(-1)
        similar.append(torch.where(inside, (there * own[:, None]).sum(0), -1.0))
    # The better half of the neighbours speaks: the others may not see the place.
    best = torch.stack(similar).topk(min(len(similar), config.neighbours // 2 + 1), dim=0).values
    cost = best.clamp_min(-0.2).mean(0).unflatten(-1, (rows, columns))
    cost = 0.5 * cost + 0.5 * F.avg_pool2d(cost[None], 3, stride=1, padding=1)[0]
    share = (cost / config.temperature).softmax(0)
    index = (share.argmax(0) + torch.arange(-2, 3, device=share.device)[:, None, None]).clamp(0, config.planes - 1)
    near = share.gather(0, index)
    found = (near * inverse[index]).sum(0) / near.sum(0)
    return 1 / found, near.sum(0).clamp_max(1.0) * (cost.amax(0) > config.similar)


def _through_planes(
    rays: Float[Tensor, "n 3"], inverse: Float[Tensor, " p"], K: Float[Tensor, "3 3"], other_from_own: Tensor
) -> tuple[Float[Tensor, "p n 2"], Bool[Tensor, "p n"]]:
    """Where another view sees each ray at each inverse depth, in its cells, and whether it lies before it."""
    towards = rays @ other_from_own[:3, :3].mT + other_from_own[:3, 3] * inverse[:, None, None]
    seen = towards @ K.mT
    return seen[..., :2] / seen[..., 2:].clamp_min(1e-6), towards[..., 2] > 1e-6


def confirmations(
    depth: Float[Tensor, "v fh fw"],
    K: Float[Tensor, "v 3 3"],
    world_from_cam: Float[Tensor, "v 4 4"],
    agree: float,
    apart: Float[Tensor, " v"],
) -> Int[Tensor, "v fh fw"]:
    """In how many of the :func:`nearest` other views a point's depth is that view's own, within the share ``agree``; K
    in cells."""
    views, rows, columns = depth.shape
    asks = torch.eye(views, dtype=torch.bool, device=depth.device)
    for view in range(views):
        asks[view, nearest(world_from_cam, view, float(apart[view]))] = True
    at = pixel_grid(rows, columns).to(depth).reshape(-1, 2)
    points = torch.stack([rays_from_uv(at, K[v]) * depth[v].reshape(-1, 1) for v in range(views)])
    points = points @ world_from_cam[:, :3, :3].mT + world_from_cam[:, None, :3, 3]
    count = torch.zeros(views, rows * columns, dtype=torch.long, device=depth.device)
    for other in range(views):
        who = asks[:, other].nonzero()[:, 0]
        seen = (points[who] - world_from_cam[other, :3, 3]) @ world_from_cam[other, :3, :3]
        z = seen[..., 2]
        place = seen @ K[other].mT
        place = place[..., :2] / place[..., 2:].clamp_min(1e-6)
        inside = (z > 1e-6) & (place > 0).all(-1) & (place < place.new_tensor([columns, rows])).all(-1)
        cell = place.floor().long().clamp_min(0)
        index = cell[..., 1].clamp_max(rows - 1) * columns + cell[..., 0].clamp_max(columns - 1)
        own = depth[other].reshape(-1)[index]
        same = inside & ((own / z.clamp_min(1e-6)).log().abs() < agree)
        same[who == other] = False
        count[who] += same
    return count.view(depth.shape)


def patch_features(image: Float[Tensor, "v 3 h w"], side: int = 5) -> Float[Tensor, "v c h2 w2"]:
    """Plain patches of the image, each channel less its mean, at half the resolution: features that need no weights."""
    patches = F.unfold(image, side, padding=side // 2, stride=2).unflatten(1, (3, -1))
    patches = (patches - patches.mean(2, keepdim=True)).flatten(1, 2)
    return F.normalize(patches + 1e-4, dim=1).unflatten(-1, (-(-image.shape[-2] // 2), -(-image.shape[-1] // 2)))


def principal_directions(features: Float[Tensor, "v c fh fw"], count: int) -> Float[Tensor, "c k"]:
    """The ``count`` strongest directions of the unit features over all views, the strongest first."""
    flat = F.normalize(features.float(), dim=1).movedim(1, 0).flatten(1)
    _, vectors = torch.linalg.eigh(flat @ flat.T)
    return vectors[:, -count:].flip(1)


def in_directions(features: Float[Tensor, "v c fh fw"], directions: Float[Tensor, "c k"]) -> Float[Tensor, "v k fh fw"]:
    """Unit features in these directions: nearly the same products in less time."""
    return torch.einsum("ck,vchw->vkhw", directions, F.normalize(features.float(), dim=1))
