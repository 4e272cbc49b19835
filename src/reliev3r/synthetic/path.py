"""Camera paths through a room whose views overlap, by exact co-visibility, and that touch nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.core.errors import UserError
from reliev3r.geometry.camera import project, rays_from_uv, transform
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp
from reliev3r.geometry.sampling import inside
from reliev3r.synthetic.render import cast
from reliev3r.synthetic.scene import Scene

PathKind = Literal["smooth", "random"]

_ARCS, _CANDIDATES = 50, 8
"""Arcs that are tried, and viewpoints that are tried for each view on one of them."""
_GRID = 16
"""Overlap is measured on _GRID x _GRID pixels."""


@dataclass(frozen=True, kw_only=True)
class PathConfig:
    """How cameras are placed."""

    kind: PathKind = "smooth"
    """A handheld walk along an arc around a target, or independent viewpoints within that arc."""
    views: int = 12
    span: float = 75.0
    """Degrees of the arc: what the first and last camera of a smooth path differ by; sets the baselines."""
    overlap: float = 0.5
    """Each two consecutive views see at least this share of one another's pixels."""
    clearance: float = 0.35
    """Least distance in metres of a camera from any surface."""

    def __post_init__(self) -> None:
        if self.kind not in ("smooth", "random"):
            raise UserError(f"path {self.kind!r} is unknown; choose smooth or random")
        if self.views < 1:
            raise UserError(f"{self.views} views cannot be rendered; ask for at least 1")
        if not 0 < self.span <= 360:
            raise UserError(f"a span of {self.span:g} degrees is impossible; choose one in (0, 360]")
        if not 0 <= self.overlap < 1:
            raise UserError(f"an overlap of {self.overlap:g} is impossible; choose a share in [0, 1)")


def sample_path(
    scene: Scene, K: Float[Tensor, "3 3"], size: tuple[int, int], config: PathConfig, *, seed: int
) -> Float[Tensor, "v 4 4"]:
    """world_from_cam of ``config.views`` cameras of intrinsics ``K`` for images of ``size`` (height, width).

    Viewpoints are drawn, and drawn again, until every one keeps its distance from all surfaces and overlaps with the
    one before it; the same seed gives the same path.

    Raises:
        UserError: no such path was found.
    """
    generator = torch.Generator().manual_seed(seed ^ 0x5EED0FCA)  # another stream than the room of this seed has
    K = K.to(scene.half.device)
    for _ in range(_ARCS):
        poses = _along_arc(scene, K, size, config, _Arc(scene, config, generator))
        if poses is not None:
            return poses
    raise UserError(
        f"no camera path with {config.views} views, a span of {config.span:g} degrees and an overlap of "
        f"{config.overlap:g} was found in this room; lower the overlap or the span, or take more views"
    )


def clearance(scene: Scene, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Distance in metres from world points to the nearest surface; negative or 0 outside the room or in an object."""
    local = transform(invert(scene.world_from_object), points.expand(len(scene.half), -1, -1))
    beyond = local.abs() - scene.half[:, None]
    boxes = beyond[1 : 1 + scene.boxes].clamp_min(0).norm(dim=-1)
    balls = local[1 + scene.boxes :].norm(dim=-1) - scene.half[1 + scene.boxes :, :1]
    return torch.cat([-beyond[:1].amax(-1), boxes, balls]).amin(0)


def covisibility(
    scene: Scene,
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    world_from_a: Float[Tensor, "a 4 4"],
    world_from_b: Float[Tensor, "b 4 4"],
) -> Float[Tensor, "a b"]:
    """Share of the pixels of each view a whose surface point view b sees: in its image and hidden by nothing."""
    height, width = size
    cells = (torch.arange(_GRID, device=K.device) + 0.5) / _GRID
    uv = torch.stack(torch.meshgrid(cells * width, cells * height, indexing="xy"), dim=-1).reshape(-1, 2)
    a, b, n = len(world_from_a), len(world_from_b), len(uv)
    directions = rays_from_uv(uv, K) @ world_from_a[:, :3, :3].mT
    eyes = world_from_a[:, None, :3, 3].expand(-1, n, -1)
    hits = cast(scene, eyes.reshape(-1, 3).T, directions.reshape(-1, 3).T)
    points = eyes + hits.depth.view(a, n, 1) * directions

    points = points.reshape(1, -1, 3).expand(b, -1, -1)
    seen = transform(invert(world_from_b), points)
    in_image = (seen[..., 2] > 0) & inside(project(seen, K.expand(b, 3, 3)), height, width)
    eyes = world_from_b[:, None, :3, 3].expand_as(points)
    towards = cast(scene, eyes.reshape(-1, 3).T, (points - eyes).reshape(-1, 3).T)
    unhidden = towards.depth.view(b, a * n) > 0.999  # the ray to the point has parameter 1 there
    return (in_image & unhidden & hits.hit).view(b, a, n).float().mean(-1).T


def look_at(eye: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """world_from_cam of a level camera (world z up) at ``eye`` that has ``target`` in its centre."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], device=eye.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up, dim=-1), dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    return rigid_from(torch.stack([right, down, forward], dim=-1), eye)


class _Arc:
    """A random arc around a target in the middle of the room.

    A viewpoint on it is seven numbers: angle, radius, height, offset of the point looked at (three), roll.
    """

    def __init__(self, scene: Scene, config: PathConfig, generator: torch.Generator) -> None:
        self.config, self.generator, self.device = config, generator, scene.half.device
        room = scene.half[0].cpu()
        self.target = torch.cat([0.4 * self.draw(2), 0.2 * self.draw(1) - 0.4 * room[2]])
        self.heading = math.pi * self.draw(1)
        self.radius = float(room[:2].amin() * (0.7 + 0.12 * self.draw(1)))
        self.height = float(0.1 + 0.3 * self.draw(1))
        self.phase = math.pi * self.draw(2)

    def draw(self, *shape: int) -> Tensor:
        """Uniform in [-1, 1]."""
        return 2 * torch.rand(*shape, generator=self.generator) - 1

    def viewpoints(self, k: int, last: Tensor | None) -> Float[Tensor, "n 7"]:
        """Candidates for view k, after view k - 1 at viewpoint ``last``."""
        half_span = math.radians(self.config.span) / 2
        if self.config.kind == "smooth":
            share = k / max(1, self.config.views - 1)
            sway = 0.12 * torch.sin(2 * math.pi * share + self.phase)
            middle = [half_span * (2 * share - 1), self.radius + sway[0], self.height + sway[1], 0, 0, 0, 0]
            spread = [0.01, 0.02, 0.02, 0.08, 0.08, 0.08, 0.02]
        else:
            middle = [0, 0.9 * self.radius, self.height, 0, 0, 0, 0]
            spread = [half_span, 0.2 * self.radius, 0.4, 0.35, 0.35, 0.35, 0.08]
        drawn = torch.tensor(middle) + torch.tensor(spread) * self.draw(_CANDIDATES, 7)
        if self.config.kind == "smooth" or last is None:
            return drawn
        # The first is independent of the last view, the others come ever closer to it: one of them will overlap.
        return torch.lerp(last.expand_as(drawn), drawn, torch.linspace(1, 0.1, _CANDIDATES)[:, None])

    def poses(self, viewpoints: Float[Tensor, "n 7"]) -> Float[Tensor, "n 4 4"]:
        """world_from_cam of viewpoints."""
        angle, radius, height = (self.heading + viewpoints[:, 0]), viewpoints[:, 1:2], viewpoints[:, 2:3]
        xy = self.target[:2] + radius * torch.stack([angle.cos(), angle.sin()], dim=-1)
        level = look_at(torch.cat([xy, height], dim=-1), self.target + viewpoints[:, 3:6])
        roll = so3_exp(torch.tensor([0.0, 0.0, 1.0]) * viewpoints[:, 6:])
        return rigid_from(level[:, :3, :3] @ roll, level[:, :3, 3]).to(self.device)


def _along_arc(
    scene: Scene, K: Tensor, size: tuple[int, int], config: PathConfig, arc: _Arc
) -> Float[Tensor, "v 4 4"] | None:
    """The first fitting candidate for every view, or None where one has none."""
    chosen: list[Tensor] = []
    viewpoint = None
    for k in range(config.views):
        candidates = arc.viewpoints(k, viewpoint)
        poses = arc.poses(candidates)
        fits = (clearance(scene, poses[:, :3, 3]) >= config.clearance).nonzero()[:, 0]
        if chosen and len(fits):
            last = chosen[-1][None]
            fits = fits[covisibility(scene, K, size, last, poses[fits])[0] >= config.overlap]
            fits = fits[covisibility(scene, K, size, poses[fits], last)[:, 0] >= config.overlap]
        if not len(fits):
            return None
        viewpoint = candidates[int(fits[0])]
        chosen.append(poses[fits[0]])
    return torch.stack(chosen)
