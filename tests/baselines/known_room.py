"""A synthetic room seen as an upstream network sees it: exact truth on the network's own pixels, for what it decodes.

The camera path turns and moves by different amounts from view to view, so that an inverted, transposed, unordered or
half-a-pixel-off reading does not score perfectly.
"""

import dataclasses
import functools

import numpy as np
import torch

from reliev3r.core.types import Prediction, Truth
from reliev3r.evaluation.protocols import score
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import invert
from reliev3r.synthetic.capture import SynthConfig
from reliev3r.synthetic.path import sample_path
from reliev3r.synthetic.render import render
from reliev3r.synthetic.scene import make_scene


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """What a test puts into an adapter's decoding, and what it must get back."""

    inputs: dict
    regions: np.ndarray
    truth: Truth

    @property
    def points_cam(self) -> np.ndarray:
        """Points [v, h, w, 3] in each camera's frame."""
        return self._prediction.points_cam.numpy()

    @property
    def points_first(self) -> np.ndarray:
        """Points [v, h, w, 3] in view 0's frame."""
        return self._prediction.points_world.numpy()

    @property
    def cameras(self) -> np.ndarray:
        """Cam-to-view-0 poses [v, 4, 4], float64."""
        return (invert(self.truth.world_from_cam[0].double()) @ self.truth.world_from_cam.double()).numpy()

    @property
    def _prediction(self) -> Prediction:
        truth = self.truth
        rays = ray_map(truth.K.double(), *truth.depth.shape[-2:])
        return Prediction(
            depth=truth.depth.double(),
            rays=rays,
            conf=torch.ones_like(truth.depth),
            world_from_cam=torch.from_numpy(self.cameras),
        )

    def scores(self, decoded: dict):
        """``strict`` figures of what an adapter decoded; without depth, of the cameras alone."""
        conf = torch.ones_like(self.truth.depth)
        maps = {name: torch.from_numpy(decoded[name]).float() for name in ("depth", "rays", "conf") if name in decoded}
        prediction = Prediction(
            depth=maps.get("depth", conf),
            rays=maps["rays"],
            conf=maps.get("conf", conf),
            world_from_cam=torch.from_numpy(decoded["world_from_cam"]).float(),
        )
        found = torch.from_numpy(decoded["found"])
        return score(prediction, self.truth, "strict", found=found, predicts_depth="depth" in decoded)


@functools.cache
def _scene(views: int, width: int, height: int):
    config = SynthConfig(views=views, width=width, height=height, span=50, path="random", seed=3)
    scene = make_scene(config.seed, config.texture)
    cameras = sample_path(scene, config.K, (height, width), config.camera_path, seed=config.seed)
    return scene, cameras, config.K.expand(views, 3, 3).double()


def room(adapter, *, views: int = 4, width: int = 160, height: int = 120, focal: bool = True, **prepare) -> Room:
    """Prepare images of a room with ``adapter``, then render the truth on the pixels that its regions name."""
    scene, cameras, K = _scene(views, width, height)
    images = [np.full((height, width, 3), 40 * view, np.uint8) for view in range(views)]
    inputs, regions = adapter.prepare(images, K.numpy() if focal else None, **prepare)
    maps = inputs.get("img", inputs.get("image"))
    size = maps.shape[-2:]
    K_maps = K.clone()
    K_maps[:, :2, 2] -= torch.from_numpy(regions[:, :2])
    K_maps[:, 0] *= size[1] / torch.from_numpy(regions[:, 2:3])
    K_maps[:, 1] *= size[0] / torch.from_numpy(regions[:, 3:4])
    _, truth = render(scene, K_maps, cameras, (size[0], size[1]), supersample=1)
    return Room(inputs=inputs, regions=regions, truth=truth)


def assert_perfect(scores) -> None:
    """AUC 100 and, where depth is predicted, relative errors below 1e-3."""
    assert scores.auc30 > 99.9
    assert scores.rotation_median_deg < 0.05
    assert scores.translation_median_deg < 0.2
    assert scores.views_without_camera == 0
    if scores.point_rel is not None:
        assert scores.point_rel < 1e-3
        assert scores.depth_rel < 1e-3
