"""A tilted plane seen by a ring of cameras: exact depth, exact tracks, any similarity on top."""

import dataclasses

import torch

from reliev3r.core.types import Prediction, Tracks, Truth
from reliev3r.geometry.camera import project, ray_map, transform
from reliev3r.geometry.rigid import invert, rigid_from, so3_exp

NORMAL, OFFSET = torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64), 5.0
"""World points with NORMAL . x = OFFSET."""


def make_truth(views=5, height=18, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    omega = 0.15 * torch.randn(views, 3, generator=generator).double()
    cameras = rigid_from(so3_exp(omega), 0.7 * torch.randn(views, 3, generator=generator).double())
    K = torch.tensor([[0.92 * width, 0, 0.49 * width], [0, 1.17 * height, 0.52 * height], [0, 0, 1]]).double()
    K = K.expand(views, 3, 3)
    directions = torch.einsum("vij,vhwj->vhwi", cameras[:, :3, :3], ray_map(K, height, width))
    depth = ((OFFSET - cameras[:, :3, 3] @ NORMAL)[:, None, None]) / (directions @ NORMAL)
    valid = torch.rand(views, height, width, generator=generator) > 0.3
    return Truth(depth=depth, valid=valid & (depth > 0), K=K, world_from_cam=cameras)


def perfect(truth):
    """The prediction that equals the truth."""
    return Prediction(
        depth=truth.depth,
        rays=ray_map(truth.K, *truth.depth.shape[-2:]),
        conf=torch.ones_like(truth.depth),
        world_from_cam=truth.world_from_cam,
    )


def disturbed(truth, seed=0):
    """The truth with noise on everything."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(truth.K), 6, generator=generator).double()
    bump = rigid_from(so3_exp(0.1 * noise[:, :3]), 0.2 * noise[:, 3:])
    factor = torch.exp(0.1 * torch.randn(truth.depth.shape, generator=generator)).double()
    prediction = perfect(truth)
    return dataclasses.replace(prediction, depth=truth.depth * factor, world_from_cam=truth.world_from_cam @ bump)


def moved(prediction, scale=3.7, seed=1):
    """The same prediction in another world frame and unit."""
    generator = torch.Generator().manual_seed(seed)
    turn = so3_exp(torch.randn(3, generator=generator).double())
    shift = 10 * torch.randn(3, generator=generator).double()
    cameras = prediction.world_from_cam
    return dataclasses.replace(
        prediction,
        depth=prediction.depth * scale,
        world_from_cam=rigid_from(turn @ cameras[:, :3, :3], scale * cameras[:, :3, 3] @ turn.mT + shift),
    )


def exact_tracks(truth, count=60, seed=0):
    """Tracks of random points of the plane, seen wherever they fall on the image."""
    generator = torch.Generator().manual_seed(seed)
    xy = 4 * torch.rand(count, 2, generator=generator).double() - 2
    z = (OFFSET - xy @ NORMAL[:2]) / NORMAL[2]
    points = torch.cat([xy, z[:, None]], dim=-1)
    local = torch.stack([transform(invert(pose), points) for pose in truth.world_from_cam])
    uv = project(local, truth.K)
    height, width = truth.depth.shape[-2:]
    seen = (uv > 0.5).all(-1) & (uv[..., 0] < width - 0.5) & (uv[..., 1] < height - 0.5) & (local[..., 2] > 0)
    return Tracks(uv=uv, weight=seen.double())
