"""A scene that needs no renderer: a slanted wall seen from an arc, with exact depth, tracks and a crop."""

import math

import torch

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction, Tracks
from reliev3r.geometry.camera import project, ray_map, transform
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp

SIZE = (640, 480)
REGION = (40.0, 0.0, 560.0, 480.0)  # the maps cover a crop of the images
MAP = (24, 28)  # height, width: 20 original pixels a map pixel
K = torch.tensor([[600.0, 0.0, 322.5], [0.0, 610.0, 238.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
WALL = torch.tensor([0.3, -0.2, 1.0, 4.0], dtype=torch.float64)  # 0.3 x - 0.2 y + z = 4


def arc(views: int) -> torch.Tensor:
    """world_from_cam of cameras that look at the wall from an arc of 50 degrees, a little rolled."""
    cameras = []
    for angle in torch.linspace(-1, 1, views, dtype=torch.float64).tolist():
        turn = so3_exp(torch.tensor([0.0, -0.43 * angle, 0.05 * angle], dtype=torch.float64))
        centre = [4 * math.sin(0.43 * angle), 0.2 * math.cos(5 * angle), 4 - 4 * math.cos(0.43 * angle)]
        cameras.append(rigid_from(turn, torch.tensor(centre, dtype=torch.float64)))
    return torch.stack(cameras)


def colour(points: torch.Tensor) -> torch.Tensor:
    """uint8 colours that are a smooth function of the place."""
    return (127 + 120 * torch.sin(2 * points)).round().to(torch.uint8)


def reconstruction(views: int = 4) -> Reconstruction:
    """The truth as if a model had predicted it (confidence falls from left to right)."""
    cameras = arc(views)
    height, width = MAP
    K_map = K.clone()
    K_map[0, 2] -= REGION[0]
    K_map[:2] /= REGION[2] / width
    rays = ray_map(K_map, height, width).expand(views, height, width, 3)
    normal = cameras[:, :3, :3].mT @ WALL[:3]
    offset = WALL[3] - cameras[:, :3, 3] @ WALL[:3]
    depth = offset[:, None, None] / (rays * normal[:, None, None]).sum(-1)
    prediction = Prediction(
        depth=depth.float(),
        rays=rays.float(),
        conf=torch.linspace(1.9, 0.1, width).expand(views, height, width).contiguous(),
        world_from_cam=cameras.float(),
    )
    return Reconstruction(
        prediction=prediction,
        names=tuple(f"frame{i}" for i in range(views)),
        image_files=tuple(f"images/frame{i}.jpg" for i in range(views)),
        image=colour(prediction.points_world),
        sizes=(SIZE,) * views,
        regions=torch.tensor([REGION] * views),
    )


def wall_points(count: int, *, relief: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Random points up to ``relief`` before the wall (a plane alone determines cameras badly)."""
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 3 - 1.5
    z = WALL[3] - xy @ WALL[:2]
    return torch.cat([xy, z[:, None] - relief * torch.rand(count, 1, generator=generator, dtype=torch.float64)], dim=1)


def observe(
    points: torch.Tensor,
    cameras: torch.Tensor,
    *,
    noise_px: float = 0.0,
    false_share: float = 0.0,
    longest: int = 100,
    seed: int = 0,
) -> Tracks:
    """Tracks of ``points`` in original pixels; a false track has one observation anywhere in its image."""
    generator = torch.Generator().manual_seed(seed)
    points_cam = transform(invert(cameras), points.expand(len(cameras), -1, -1))
    uv = project(points_cam, K.expand(len(cameras), 3, 3))
    visible = (points_cam[..., 2] > 0.1) & (uv >= 0).all(-1) & (uv <= torch.tensor(SIZE)).all(-1)
    views = torch.arange(len(cameras))[:, None]
    first = torch.randint(0, max(1, len(cameras) - 1), (len(points),), generator=generator)
    length = torch.randint(2, longest + 1, (len(points),), generator=generator)
    visible &= (longest >= len(cameras)) | ((views >= first) & (views < first + length))
    uv = uv + noise_px * torch.randn(uv.shape, generator=generator, dtype=torch.float64)
    false = torch.rand(len(points), generator=generator) < false_share
    anywhere = torch.rand(uv.shape, generator=generator, dtype=torch.float64) * torch.tensor(SIZE)
    chosen = views == (torch.rand(uv.shape[:2], generator=generator) * visible).argmax(0)
    uv = torch.where((chosen & false)[..., None], anywhere, uv)
    return Tracks(uv=uv.float(), weight=visible.float())
