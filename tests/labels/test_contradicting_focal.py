"""Known intrinsics against the tracks, however far apart: K of another size of the images is off by a factor."""

import pytest
import torch

import small_scene
from reliev3r.core.types import Tracks
from reliev3r.geometry.camera import project, transform
from reliev3r.geometry.rigid import invert
from reliev3r.sfm.camera_solve import SolveConfig
from reliev3r.sfm.focal import contradicting_focal

VIEWS = 3
K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64).expand(VIEWS, 3, 3)


def tracks(noise: float = 0.3, *, flat: bool = False) -> Tracks:
    """Points in a box in front of three cameras (or on a plane that faces them), half a pixel off at most."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(120, 3, generator=generator, dtype=torch.float64) * torch.tensor(
        [2.0, 2.0, 0.0 if flat else 2.5]
    )
    points = points + torch.tensor([-1.0, -1.0, 3.0], dtype=torch.float64)
    cameras = invert(small_scene.arc(VIEWS))
    uv = torch.stack([project(transform(camera, points), K[0]) for camera in cameras])
    uv = uv + noise * torch.randn(uv.shape, generator=generator, dtype=torch.float64)
    return Tracks(uv=uv.float(), weight=torch.ones(uv.shape[:2]))


def asked(scale: float, centre: float = 1.0) -> float | None:
    known = torch.diag(torch.tensor([scale, scale, 1.0], dtype=torch.float64)) @ K
    known[:, :2, 2] = K[:, :2, 2] * centre
    focal = 600 * scale
    config = SolveConfig(inlier_angle=1.6 * 1.5 / focal, seeds=1, max_tracks=300)
    return contradicting_focal(tracks(), known, [(480, 640)] * VIEWS, config)


def test_right_ones_are_left_alone() -> None:
    assert asked(1.0) is None
    assert asked(1.02) is None


@pytest.mark.parametrize(("scale", "centre"), [(0.5, 0.5), (0.5, 1.0), (0.25, 0.25), (1.9, 1.9), (2.0, 1.0)])
def test_those_of_another_size_of_the_images_are_found_out(scale, centre) -> None:
    found = asked(scale, centre)
    assert found is not None
    assert found * 640 == pytest.approx(600, rel=0.1)
