"""The upright y-up frame in which a reconstruction is shown: its own world frame is an arbitrary gauge."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import rigid_from


def upright_from_world(world_from_cam: Float[Tensor, "v 4 4"]) -> Float[Tensor, "4 4"]:
    """Rigid motion into glTF's axes: x right, y up, z towards the viewer who stands behind the first camera.

    Up is the mean "up" of all cameras (people hold cameras level far more often than not), -z the first camera's
    viewing direction without its vertical part, the origin the mean camera centre. Lengths are unchanged. Float64.
    """
    cameras = world_from_cam.double()
    up = -cameras[:, :3, 1].mean(0)
    if up.norm() < 0.1:  # cameras rolled every way: no common up
        up = -cameras[0, :3, 1]
    up = up / up.norm()
    forward = cameras[0, :3, 2]
    if torch.linalg.cross(forward, up).norm() < 0.1:  # looks straight up or down: its own up side is "ahead" then
        forward = -cameras[0, :3, 1]
    back = -(forward - (forward @ up) * up)
    back = back / back.norm()
    rotation = torch.stack([torch.linalg.cross(up, back), up, back])
    return rigid_from(rotation, -(rotation @ cameras[:, :3, 3].mean(0)))
