"""Small scenes and captures shared by the tests of reliev3r.synthetic."""

import dataclasses
import math

import pytest
import torch

from reliev3r.geometry.rigid import rigid_from
from reliev3r.synthetic.capture import SynthConfig, render_capture
from reliev3r.synthetic.scene import Scene, make_scene

SMALL = SynthConfig(seed=3, views=4, width=160, height=120, span=40.0)


@pytest.fixture(scope="session")
def small_capture():
    """(Views, Truth) of four overlapping views."""
    return render_capture(SMALL)


@pytest.fixture
def make_room():
    """A function that builds a room of half extents (4, 3, 1.5) with given boxes and balls."""

    def build(*, boxes=(), balls=()) -> Scene:
        """``boxes``: (centre, half extents, angle about the vertical); ``balls``: (centre, radius)."""
        poses, halves = [torch.eye(4)], [torch.tensor([4.0, 3.0, 1.5])]
        for centre, half, angle in boxes:
            c, s = math.cos(angle), math.sin(angle)
            rotation = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            poses.append(rigid_from(rotation, torch.tensor(centre)))
            halves.append(torch.tensor(half))
        for centre, radius in balls:
            poses.append(rigid_from(torch.eye(3), torch.tensor(centre)))
            halves.append(torch.full((3,), radius))
        template = make_scene(0)
        return dataclasses.replace(
            template,
            world_from_object=torch.stack(poses),
            half=torch.stack(halves),
            boxes=len(boxes),
            materials=template.materials.map(lambda x: x[..., : 6 * len(poses)]),
        )

    return build
