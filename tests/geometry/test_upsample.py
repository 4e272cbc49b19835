"""A depth map at the pixels of its photograph: planes stay planes, jumps stay jumps, the unknown stays unknown."""

import torch

from reliev3r.geometry.sampling import resize_linear
from reliev3r.geometry.upsample import upsample_depth

COARSE, FINE = (12, 16), (48, 64)


def halves(size: tuple[int, int], border: float, left, right) -> torch.Tensor:
    """``left`` up to ``border`` (a share of the width), ``right`` beyond it."""
    x = (torch.arange(size[1]) + 0.5) / size[1]
    return torch.where((x < border)[None], left, right).expand(size)


def coloured(map_: torch.Tensor) -> torch.Tensor:
    return torch.stack([map_, 1 - map_, 0.5 + 0 * map_], dim=-1)


def slanted(size: tuple[int, int], start: float, slope: float) -> torch.Tensor:
    """Depth of a plane: 1 / (start + slope x), the same at any resolution."""
    x = (torch.arange(size[1]) + 0.5) / size[1]
    return (1 / (start + slope * x))[None].expand(size)


def test_a_plane_stays_a_plane_whatever_is_painted_on_it() -> None:
    depth, conf = slanted(COARSE, 0.2, 0.2), torch.ones(COARSE)
    paint = torch.rand(*FINE, 3, generator=torch.Generator().manual_seed(0))
    found, sure = upsample_depth(depth, conf, resize_linear(paint, *COARSE), paint)
    inner = slice(2, -2)  # beyond the outermost centres nothing is known
    torch.testing.assert_close(found[:, inner], slanted(FINE, 0.2, 0.2)[:, inner], rtol=1e-4, atol=0)
    torch.testing.assert_close(sure, torch.ones(FINE))


def test_a_jump_follows_the_photograph_and_nothing_floats_between_its_surfaces() -> None:
    """The border lies inside a coarse pixel, which colour alone can tell."""
    for border in (0.5, 0.515, 0.53, 0.546):
        near, far = (
            (slanted(size, 0.5, 0.05) for size in (COARSE, FINE)),
            (slanted(size, 0.2, 0.0) for size in (COARSE, FINE)),
        )
        (near_coarse, near_fine), (far_coarse, far_fine) = near, far
        depth = halves(COARSE, border, near_coarse, far_coarse)
        conf = halves(COARSE, border, torch.tensor(1.8), torch.tensor(0.3))
        truth = halves(FINE, border, near_fine, far_fine)
        paint = halves(FINE, border, torch.tensor(0.8), torch.tensor(0.2))
        coarse = coloured(torch.nn.functional.avg_pool2d(paint[None].contiguous(), 4)[0])
        found, sure = upsample_depth(depth, conf, coarse, coloured(paint))
        torch.testing.assert_close(found[:, 2:-2], truth[:, 2:-2], rtol=0.01, atol=0)
        torch.testing.assert_close(sure, halves(FINE, border, torch.tensor(1.8), torch.tensor(0.3)))
        linear = resize_linear(depth[..., None], *FINE)[..., 0]
        assert ((linear / truth - 1).abs() > 0.1).any()  # which is what it is for


def test_without_colour_a_jump_stays_sharp_where_the_coarse_map_has_it() -> None:
    depth = halves(COARSE, 0.5, torch.tensor(2.0), torch.tensor(5.0))
    grey = torch.full((*FINE, 3), 0.5)
    found, _ = upsample_depth(depth, torch.ones(COARSE), grey[: COARSE[0], : COARSE[1]], grey)
    torch.testing.assert_close(found, halves(FINE, 0.5, torch.tensor(2.0), torch.tensor(5.0)))


def test_the_unknown_stays_unknown_and_says_nothing() -> None:
    for nothing in (0.0, -1.0, float("nan"), float("inf")):
        depth = torch.full(COARSE, 3.0)
        depth[4:6, 8:11] = nothing
        found, sure = upsample_depth(depth, torch.ones(COARSE), torch.rand(*COARSE, 3), torch.rand(*FINE, 3))
        hole = torch.zeros(FINE, dtype=torch.bool)
        hole[16:24, 32:44] = True
        assert (found[hole] == 0).all()
        assert (sure[hole] == 0).all()
        torch.testing.assert_close(found[~hole], torch.full_like(found[~hole], 3.0))
        torch.testing.assert_close(sure[~hole], torch.ones_like(found[~hole]))
    nowhere = upsample_depth(torch.zeros(COARSE), torch.ones(COARSE), torch.rand(*COARSE, 3), torch.rand(*FINE, 3))
    assert not nowhere[0].any()
