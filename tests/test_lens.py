"""What refinement finds out about a lens: focal length with a prior, distortion where held-out tracks show it."""

import dataclasses
import math

import pytest
import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.radial import distort
from reliev3r.geometry.rigid import relative, rigid_from, rotation_angle, so3_exp
from reliev3r.sfm.lens import LensPrior

VIEWS = 8
FOCAL = 605.0
K = torch.tensor([[FOCAL, 0.0, 322.5], [0.0, FOCAL, 238.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def square_pixels(monkeypatch):
    monkeypatch.setattr(small_scene, "K", K)


def nadir(views: int = VIEWS) -> torch.Tensor:
    """Cameras in two rows over a floor 4 away, all looking straight at it, as a drone does; a little turned."""
    generator = torch.Generator().manual_seed(7)
    turn = so3_exp(0.01 * torch.randn(views, 3, generator=generator, dtype=torch.float64))
    column, row = torch.arange(views) % (views // 2), torch.arange(views) // (views // 2)
    centre = torch.stack([0.7 * column - 1.05, 0.9 * row - 0.45, 0.02 * torch.randn(views, generator=generator)], -1)
    return rigid_from(turn, centre.double())


def floor(count: int, seed: int) -> torch.Tensor:
    """Points of ground that is as good as flat: grass and stones of 1 % of the height."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return place * torch.tensor([5.0, 4.0, 0.04]) + torch.tensor([-2.5, -2.0, 3.96])


def photographed(points, cameras, *, k1, seed, noise_px=0.5, false_share=0.1) -> Tracks:
    """Tracks as a lens with k1 shows them; ``k1`` of each view or of all."""
    tracks = small_scene.observe(points, cameras, noise_px=noise_px, false_share=false_share, longest=6, seed=seed)
    k1 = torch.as_tensor(k1, dtype=torch.float64).expand(len(cameras))
    uv = distort(tracks.uv.double(), small_scene.K.expand(len(cameras), 3, 3), k1)
    return dataclasses.replace(tracks, uv=uv.float())


def start(cameras, *, focal, degrees=1.0, share=0.02):
    """What a network might say: cameras a little off, and the prior's focal length (of all views or of each)."""
    generator = torch.Generator().manual_seed(0)
    views = len(cameras)

    def directions():
        return torch.nn.functional.normalize(torch.randn(views, 3, generator=generator, dtype=torch.float64), dim=-1)

    moved = cameras.clone()
    moved[:, :3, :3] = so3_exp(math.radians(degrees) * directions()) @ moved[:, :3, :3]
    moved[:, :3, 3] += share * 4 * directions()
    reconstruction = small_scene.reconstruction(views)
    rays = reconstruction.prediction.rays.clone()
    rays[..., :2] *= (FOCAL / torch.as_tensor(focal, dtype=torch.float32)).expand(views)[:, None, None, None]
    prediction = dataclasses.replace(reconstruction.prediction, rays=rays)
    return dataclasses.replace(reconstruction, prediction=prediction).with_cameras(moved)


def errors(result, cameras) -> tuple[float, float]:
    """Largest rotation error (degrees) and translation direction error (degrees) over all pairs of views."""
    found, true = relative(result.prediction.world_from_cam.double()), relative(cameras)
    rotation = rotation_angle(found[..., :3, :3].mT @ true[..., :3, :3]).rad2deg().mean()
    off = ~torch.eye(len(cameras), dtype=torch.bool)
    a, b = (torch.nn.functional.normalize(pose[..., :3, 3][off], dim=-1) for pose in (found, true))
    return float(rotation), float(torch.linalg.cross(a, b).norm(dim=-1).asin().rad2deg().mean())


ONE_CAMERA = LensPrior(camera_of=(0,) * VIEWS, focal_sigma=0.05)
