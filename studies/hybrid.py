"""A network between both kinds of cameras: matches as where cameras are solved, and a head that regresses from them.

Its head sees what the solve sees and nothing else - mutual matches, predicted depth, intrinsics - so that the distance
to solved cameras is what the solve is worth, and the distance to regressed ones what the matches are worth.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.core.types import Prediction, Tracks, Views
from reliev3r.geometry.camera import rays_from_uv
from reliev3r.geometry.sampling import sample_bilinear
from reliev3r.model.heads import CameraHead
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.sfm.dense_matches import mutual_matches

_ROWS, _COLUMNS = 6, 8
_SAID = 5
"""Numbers that a cell says of a pair of views."""


class FlowHead(nn.Module):
    """Matches, with the depth at them, to one camera a view; a token for each ordered pair of views, their mean a
    view's feature, then the camera head of regressed cameras."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pair = nn.Sequential(
            nn.Linear(_SAID * _ROWS * _COLUMNS, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2 * dim), nn.GELU(),
            nn.Linear(2 * dim, dim),
        )  # fmt: skip
        self.camera = CameraHead(dim, fov=False, contrast=False)
        self.camera.res_conv = nn.ModuleList()  # for pooling patch tokens, of which there are none

    def forward(
        self, tracks: Tracks, depth: Float[Tensor, "b v m"], K: Float[Tensor, "b v 3 3"], size: tuple[int, int]
    ) -> Float[Tensor, "b v 4 4"]:
        """world_from_cam from matches as ``mutual_matches`` gives them, and the predicted depth at their places."""
        views = depth.shape[1]
        tokens = self.pair(pair_flow(tracks, depth, K, size))
        pairs = 1 - torch.eye(views, device=tokens.device)
        feature = (tokens * pairs[..., None]).sum(2) / max(1, views - 1)
        cameras, _ = self.camera(feature.flatten(0, 1), views)
        assert cameras is not None
        return cameras.unflatten(0, (-1, views))


def pair_flow(
    tracks: Tracks, depth: Float[Tensor, "b v m"], K: Float[Tensor, "b v 3 3"], size: tuple[int, int]
) -> Float[Tensor, "b v v n"]:
    """What view i's queries find in view j, in a coarse grid over view i: the share of them that are mutual; over
    these the mean displacement of the ray, the log depth in i (over the scene's) and its change to j."""
    views, height, width = depth.shape[1], *size
    rays = rays_from_uv(tracks.uv, K)[..., :2].unflatten(2, (views, -1))  # b, seen in, query of, k, 2
    log_depth = depth.log()
    log_depth = (log_depth - log_depth.mean((-2, -1), keepdim=True)).unflatten(2, (views, -1))
    mutual = tracks.weight.unflatten(2, (views, -1)).transpose(1, 2)  # b, query of, seen in, k
    own = torch.arange(views, device=rays.device)
    own_ray, own_depth = rays[:, own, own, None], log_depth[:, own, own, None]
    said = torch.cat([
        torch.ones_like(mutual)[..., None], 4 * (rays.transpose(1, 2) - own_ray),
        own_depth[..., None].expand(*mutual.shape, 1), (log_depth.transpose(1, 2) - own_depth)[..., None],
    ], dim=-1) * mutual[..., None]  # fmt: skip
    place = tracks.uv.unflatten(2, (views, -1))[:, own, own]  # b v k 2
    cell = (place[..., 1] * _ROWS / height).long() * _COLUMNS + (place[..., 0] * _COLUMNS / width).long()
    into = F.one_hot(cell, _ROWS * _COLUMNS).to(said.dtype)[:, :, None]  # b v 1 k n
    count = into.sum(-2)[..., None].clamp_min(1)
    total = into.mT @ said
    share, others = total[..., :1], total[..., 1:]
    return torch.cat([share / count, others / share.clamp_min(1)], dim=-1).flatten(-2)


class Hybrid(Reliev3R):
    """A network that solves its cameras, but for the solve: a :class:`FlowHead` regresses them.

    No gradient from the cameras to the matches, and none to depth but through the losses, as where cameras are solved.
    """

    def __init__(self, config: NetworkConfig | dict[str, object]) -> None:
        super().__init__(config)
        self.flow_head = FlowHead(self.config.camera_dim)

    def forward(self, views: Views) -> Prediction:
        """As :meth:`Reliev3R.forward`; in training, too, the cameras are its own."""
        prediction = self.without_cameras(views)
        assert self.match_branch is not None
        features = self.match_branch(self._normalised(views)).unflatten(0, prediction.depth.shape[:-2])
        with torch.autocast(views.image.device.type, enabled=False):
            world_from_cam = self.regressed(prediction.detach(), features.detach())
        return dataclasses.replace(
            prediction, world_from_cam=world_from_cam, has_cameras=True,
            features=features if self.training else None,
        )  # fmt: skip

    def regressed(self, prediction: Prediction, features: Float[Tensor, "*b v c fh fw"]) -> Float[Tensor, "*b v 4 4"]:
        """Cameras from matches of ``features`` and the predicted depth."""
        *batch, views, height, width = prediction.depth.shape
        tracks = mutual_matches(features.reshape(-1, *features.shape[-4:]), (height, width))
        depth = sample_bilinear(prediction.depth.reshape(-1, views, height, width), tracks.uv)
        K = prediction.K.reshape(-1, views, 3, 3)
        return self.flow_head(tracks, depth, K, (height, width)).reshape(*batch, views, 4, 4)
