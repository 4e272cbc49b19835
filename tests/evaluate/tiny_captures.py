"""Capture folders of noise before flat walls, and systems whose predictions are the truth, or worse by a known step."""

import dataclasses
import json

import cv2
import numpy as np
import torch

from reliev3r.core.reconstruction import Reconstruction
from reliev3r.core.types import Prediction
from reliev3r.data.truth import CameraFile, load_truth
from reliev3r.evaluation.systems import System
from reliev3r.geometry.camera import ray_map
from reliev3r.geometry.rigid import rigid_from, so3_exp

SIZE = (24, 32)


def write_tiny(root, views=4, seed=0):
    """A capture folder with poses and a flat depth map for each view."""
    generator = torch.Generator().manual_seed(seed)
    omega = 0.2 * torch.randn(views, 3, generator=generator).double()
    poses = rigid_from(so3_exp(omega), torch.randn(views, 3, generator=generator).double())
    for folder in ("images", "depth"):
        (root / folder).mkdir(parents=True)
    frames = []
    for index, pose in enumerate(poses):
        name = f"{index:03d}"
        image = np.random.default_rng([seed, index]).integers(0, 255, (*SIZE, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "depth" / f"{name}.png"), np.full(SIZE, 2000 + 100 * index, np.uint16))
        paths = {"image": f"images/{name}.png", "depth": f"depth/{name}.png"}
        K = [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]
        frames.append({"name": name, "width": 32, "height": 24, **paths, "K": K, "cam_to_world": pose.tolist()})
    (root / "cameras.json").write_text(json.dumps({"frames": frames}))
    return root


def true_reconstruction(capture, **meta):
    """The truth as a prediction."""
    regions = torch.tensor([[0.0, 0.0, 32.0, 24.0]]).expand(len(capture.frames), 4)
    truth = load_truth(CameraFile(capture.root), capture.names, regions=regions, size=SIZE)
    return Reconstruction(
        prediction=Prediction(
            depth=truth.depth,
            rays=ray_map(truth.K, *SIZE),
            conf=torch.ones_like(truth.depth),
            world_from_cam=truth.world_from_cam,
        ),
        names=capture.names,
        image_files=tuple(frame.file for frame in capture.frames),
        image=torch.from_numpy(np.stack([capture.image(index) for index in range(len(capture.frames))])),
        sizes=((32, 24),) * len(capture.frames),
        regions=regions,
        meta=meta,
    )


class Fake:
    """A system that counts its runs; ``change`` spoils the truth that it predicts, or raises."""

    def __init__(self, name, change=lambda reconstruction: reconstruction, version=1):
        self.runs, self.version, self.change = [], version, change
        self.system = System(name=name, run=self._run, fingerprint=lambda: {"version": self.version})

    def _run(self, capture, folder):
        self.runs.append(capture.root.name)
        result = true_reconstruction(capture, seconds=2.0 * len(self.runs), peak_rss_bytes=int(1e9) * len(self.runs))
        return self.change(result)


def with_prediction(reconstruction, **changes):
    """The reconstruction with other maps or cameras."""
    return dataclasses.replace(reconstruction, prediction=dataclasses.replace(reconstruction.prediction, **changes))
