"""The layers of FlexGEMM that MoGe-3's refiner is made of, in plain torch: its own kernels need a GPU.

Written after its interface at b2fadb2: rows of voxels at (batch, i, j, k); weights (out, 3, 3, 3, in), the last axis of
the offsets fastest; a pooled voxel is the mean of those that exist in it. What a layer found out about the places of
its voxels it hands back, for the next layer on the same ones.
"""

import sys
import types
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NeighborCache:
    """Which pooled voxel each voxel is in."""

    parent: torch.Tensor

    @property
    def T(self):
        return self


class SubmanifoldConv3d(torch.nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, algorithm):
        super().__init__()
        assert kernel_size == 3
        self.weight = torch.nn.Parameter(torch.randn(out_channels, 3, 3, 3, in_channels) / (27 * in_channels) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(out_channels))

    def forward(self, feats, coords, shape, neighbor_cache=None):
        found = neighbours(coords) if neighbor_cache is None else neighbor_cache
        around = torch.cat([feats, torch.zeros_like(feats[:1])])[found]  # the last row: nobody is there
        return torch.einsum("mvi,ovi->mo", around, self.weight.flatten(1, 3)) + self.bias, found


class SparsePool3d(torch.nn.Module):
    def __init__(self, kernel_size, stride, reduce):
        super().__init__()
        assert (kernel_size, reduce) == (stride, "mean")
        self.stride = torch.tensor([1, stride, stride, stride])

    def forward(self, feats, coords, shape, output_shape):
        pooled, parent, count = torch.unique(coords // self.stride, dim=0, return_inverse=True, return_counts=True)
        mean = feats.new_zeros(len(pooled), feats.shape[1]).index_add_(0, parent, feats) / count[:, None]
        return mean, pooled, output_shape, NeighborCache(parent)


class SparseUpsample3d(torch.nn.Module):
    def __init__(self, scale_factor, mode):
        super().__init__()
        assert mode == "nearest"

    def forward(self, feats, coords, shape, output_coords, output_shape, neighbor_cache):
        return feats[neighbor_cache.parent], output_coords, output_shape, neighbor_cache


def neighbours(coords):
    """Row of the voxel at each of the 27 offsets, (M, 27); M where there is none."""
    step = torch.arange(-1, 2)
    offsets = torch.nn.functional.pad(torch.cartesian_prod(step, step, step), (1, 0))
    extent = coords.amax(dim=0).long() + 3  # room for one voxel beyond either border
    stride = torch.tensor([extent[1:].prod(), extent[2:].prod(), extent[3], 1])
    keys = ((coords + 1) * stride).sum(dim=1)
    ordered, rows = keys.sort()
    wanted = keys[:, None] + (offsets * stride).sum(dim=1)
    at = torch.searchsorted(ordered, wanted).clamp(max=len(keys) - 1)
    return torch.where(ordered[at] == wanted, rows[at], len(keys))


def install(monkeypatch):
    """As the package flex_gemm."""
    modules = {name: types.ModuleType(name) for name in ("flex_gemm", "flex_gemm.nn", "flex_gemm.ops")}
    for layer in (SubmanifoldConv3d, SparsePool3d, SparseUpsample3d):
        setattr(modules["flex_gemm.nn"], layer.__name__, layer)
    modules["flex_gemm.ops"].NeighborCache = NeighborCache
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
