"""Seeded random rooms with objects: what :mod:`reliev3r.synthetic.render` casts rays into.

World frame: metres, z up, origin in the middle of the room. Every primitive is a unit cube or a unit ball in its own
scaled frame: the room (a box seen from inside), boxes (upright ones and tilted panels) and balls.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from reliev3r.geometry.rigid import rigid_from, so3_exp
from reliev3r.synthetic.texture import Materials

TextureFamily = Literal["masonry", "terrazzo"]
"""Two domains with textures and layouts of their own: rectangles and furniture, or irregular cells and round things."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A textured room. Objects are ordered: the room, then boxes, then balls; object k has the faces 6k to 6k + 5."""

    world_from_object: Float[Tensor, "o 4 4"]
    """Rigid."""
    half: Float[Tensor, "o 3"]
    """Half extents in metres along the object's axes (a ball's radius, three times)."""
    boxes: int
    """How many of the objects after the room are boxes; the rest are balls."""
    materials: Materials
    light: Float[Tensor, "3"]
    """Position of the point light."""
    ambient: float
    """Share of light that comes from everywhere."""

    def to(self, device: torch.device | str) -> Scene:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("world_from_object", "half", "light")}
        return dataclasses.replace(self, materials=self.materials.map(lambda x: x.to(device)), **moved)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Counts and ranges of a family; pairs are (low, high) of a uniform draw."""

    boxes: int
    panels: int
    balls: int
    irregular: bool
    cell: tuple[float, float]
    aspect: tuple[float, float]
    joint: tuple[float, float]
    warp: tuple[float, float]
    spots: tuple[float, float]
    hue: tuple[float, float]
    saturation: tuple[float, float]
    ambient: float


_LAYOUTS: dict[TextureFamily, _Layout] = {
    "masonry": _Layout(
        boxes=7,
        panels=2,
        balls=2,
        irregular=False,
        cell=(0.09, 0.22),
        aspect=(1.0, 3.5),
        joint=(0.004, 0.016),
        warp=(0.0, 0.01),
        spots=(0.05, 0.25),
        hue=(-0.06, 0.14),
        saturation=(0.1, 0.6),
        ambient=0.5,
    ),
    "terrazzo": _Layout(
        boxes=2,
        panels=3,
        balls=7,
        irregular=True,
        cell=(0.08, 0.3),
        aspect=(0.7, 1.4),
        joint=(0.0, 0.012),
        warp=(0.01, 0.05),
        spots=(0.0, 0.2),
        hue=(0.3, 0.95),
        saturation=(0.0, 0.45),
        ambient=0.35,
    ),
}


def make_scene(seed: int, texture: TextureFamily = "masonry") -> Scene:
    """The random room of ``seed``, on the CPU: 5 to 7.6 m wide and 2.6 to 3.4 m high, filled as the family has it."""
    layout = _LAYOUTS[texture]
    draw = _Draw(seed)
    room = torch.cat([draw(2, between=(2.5, 3.8)), draw(1, between=(1.3, 1.7))])
    half, rotation, above_floor = _objects(layout, draw)
    place = _places(half[:, :2].norm(dim=-1), room, draw)
    centre = torch.cat([place, above_floor[:, None] - room[2]], dim=-1)
    return Scene(
        world_from_object=rigid_from(torch.cat([torch.eye(3)[None], rotation]), torch.cat([torch.zeros(1, 3), centre])),
        half=torch.cat([room[None], half]),
        boxes=layout.boxes + layout.panels,
        materials=_materials(layout, 1 + len(half), draw),
        light=room * torch.cat([draw(2, between=(-0.5, 0.5)), torch.tensor([0.8])]),
        ambient=layout.ambient,
    )


class _Draw:
    """Uniform random numbers from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, between: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        low, high = between
        return low + (high - low) * torch.rand(*shape, generator=self.generator)


def _objects(layout: _Layout, draw: _Draw) -> tuple[Tensor, Tensor, Tensor]:
    """(half extents [o, 3], rotation [o, 3, 3], height of the centre above the floor [o]): boxes, panels, balls."""
    box = torch.cat([draw(layout.boxes, 2, between=(0.15, 0.45)), draw(layout.boxes, 1, between=(0.2, 0.8))], dim=-1)
    panel = torch.cat([draw(layout.panels, 2, between=(0.3, 0.6)), torch.full((layout.panels, 1), 0.02)], dim=-1)
    ball = draw(layout.balls, 1, between=(0.18, 0.42)).expand(-1, 3)
    half = torch.cat([box, panel, ball])
    upright = torch.tensor([0.0, 0.0, 1.0]) * draw(len(half), 1, between=(-math.pi, math.pi))
    tilt = draw(len(half), 3, between=(-1.0, 1.0))
    tilt[: layout.boxes] = 0  # furniture stands, panels hang at an angle, balls have rolled
    floating = (draw(len(half)) < 0.5).float() * draw(len(half), between=(0.2, 1.3))
    floating[: layout.boxes] = 0
    floating[layout.boxes : layout.boxes + layout.panels] += 0.7
    return half, so3_exp(upright) @ so3_exp(tilt), half[:, 2] + floating


def _places(radius: Tensor, room: Tensor, draw: _Draw, candidates: int = 24) -> Tensor:
    """Floor positions [o, 2], alternately in the middle and along the walls, each the freest of some candidates.

    That leaves a ring between the middle and the walls in which cameras can walk.
    """
    places = torch.zeros(len(radius), 2)
    for k, own in enumerate(radius):
        if k % 2 == 0:
            angle = draw(candidates, between=(-math.pi, math.pi))
            option = torch.stack([angle.cos(), angle.sin()], dim=-1) * 1.1 * draw(candidates, 1).sqrt()
        else:
            option = draw(candidates, 2, between=(-1.0, 1.0))
            option = option / option.abs().amax(-1, keepdim=True) * (room[:2] - own)
        gap = torch.cdist(option, places[:k]) - radius[:k] - own
        places[k] = option[gap.amin(-1).argmax()] if k else option[0]
    return places


def _materials(layout: _Layout, objects: int, draw: _Draw) -> Materials:
    """Materials of six faces an object: the room's all differ, another object's share all but the seed."""
    kinds = objects + 5
    width = draw(1, kinds, between=layout.cell)
    hue = draw(kinds, 1, between=layout.hue) + draw(kinds, 3, between=(-0.04, 0.04))
    saturation = draw(kinds, 3, between=layout.saturation)
    # One light colour, one of middling brightness, and joints that are darker or lighter than both.
    value = torch.cat(
        [
            draw(kinds, 1, between=(0.65, 0.95)),
            draw(kinds, 1, between=(0.3, 0.6)),
            torch.where(draw(kinds, 1) < 0.6, 0.15, 0.95),
        ],
        dim=-1,
    )
    materials = Materials(
        irregular=layout.irregular,
        palette=_rgb(hue, saturation, value).flatten(1).T,
        seed=torch.zeros(kinds, dtype=torch.int32),
        angle=draw(kinds, between=(-0.1, 0.1)),
        cell=torch.cat([width * draw(1, kinds, between=layout.aspect), width]),
        bond=_choice(draw(kinds), (0.0, 0.5, 0.37)) if not layout.irregular else draw(kinds, between=(0.5, 1.0)),
        checker=_choice(draw(kinds), (0.0, 0.0, 0.6)),
        joint=draw(kinds, between=layout.joint),
        warp=draw(kinds, between=layout.warp),
        grain=draw(kinds, between=(0.2, 0.45)),
        spacing=draw(kinds, between=(0.3, 0.7)),
        spots=draw(kinds, between=layout.spots),
        spot=draw(kinds, between=(0.25, 0.5)),
    )
    kind = torch.cat([torch.arange(6), torch.arange(6, kinds).repeat_interleave(6)])
    seed = torch.randint(1 << 30, (len(kind),), generator=draw.generator, dtype=torch.int32)
    return dataclasses.replace(materials.map(lambda x: x[..., kind]), seed=seed)


def _choice(uniform: Tensor, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[(uniform * len(values)).long()]


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """HSV, hue in turns, to RGB in a new last axis (Smith 1978)."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[..., None]).remainder(6)
    return value[..., None] * (1 - saturation[..., None] * torch.minimum(k, 4 - k).clamp(0, 1))
