import dataclasses

import pytest
import torch

from reliev3r.synthetic import texture
from reliev3r.synthetic.path import clearance
from reliev3r.synthetic.scene import make_scene


def tensors(scene):
    own = {name: getattr(scene, name) for name in ("world_from_object", "half", "light")}
    return own | {k: v for k, v in vars(scene.materials).items() if isinstance(v, torch.Tensor)}


@pytest.mark.parametrize("family", ["masonry", "terrazzo"])
def test_a_seed_is_a_room(family):
    one, same, other = tensors(make_scene(5, family)), tensors(make_scene(5, family)), tensors(make_scene(6, family))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one["half"], other["half"])
    assert not torch.equal(one["seed"], other["seed"])


@pytest.mark.parametrize("family", ["masonry", "terrazzo"])
@pytest.mark.parametrize("seed", range(8))
def test_objects_are_in_the_room_which_is_metric(family, seed):
    scene = make_scene(seed, family)
    room = scene.half[0]
    assert (2 * room[:2] >= 5).all()
    assert (2 * room[:2] <= 7.6).all()
    assert 2.6 <= 2 * room[2] <= 3.4
    centres = scene.world_from_object[1:, :3, 3]
    assert (centres.abs() < room).all()
    assert scene.materials.seed.shape == (6 * len(scene.half),)
    light = clearance(
        dataclasses.replace(scene, half=scene.half[:1], world_from_object=torch.eye(4)[None], boxes=0),
        scene.light[None],
    )
    assert light > 0.1


def test_families_differ_in_texture_and_layout():
    masonry, terrazzo = make_scene(0, "masonry"), make_scene(0, "terrazzo")
    assert masonry.boxes > terrazzo.boxes
    assert len(terrazzo.half) - terrazzo.boxes > len(masonry.half) - masonry.boxes
    assert masonry.materials.irregular != terrazzo.materials.irregular
    n = 4000
    uv = 3 * torch.rand(2, n, generator=torch.Generator().manual_seed(0))
    face, footprint = torch.arange(n) % 6, torch.full((n,), 0.005)
    colours = [texture.albedo(s.materials, face, uv, footprint).mean(1) for s in (masonry, terrazzo)]
    assert (colours[0] - colours[1]).abs().max() > 0.05


@pytest.mark.parametrize("family", ["masonry", "terrazzo"])
def test_texture_has_fine_contrast_that_a_large_footprint_removes(family):
    scene = make_scene(1, family)
    n = 20_000
    uv = 4 * torch.rand(2, n, generator=torch.Generator().manual_seed(0))
    face = torch.zeros(n, dtype=torch.long)
    fine = texture.albedo(scene.materials, face, uv, torch.full((n,), 0.003))
    coarse = texture.albedo(scene.materials, face, uv, torch.full((n,), 1.0))
    assert fine.min() >= 0
    assert fine.max() <= 1
    assert fine.std(1).mean() > 0.1
    assert coarse.std(1).mean() < 0.3 * fine.std(1).mean()
    moved = texture.albedo(scene.materials, face, uv + 0.02, torch.full((n,), 0.003))
    assert (fine - moved).abs().mean() > 0.03


def test_texture_does_not_repeat():
    scene = make_scene(1)
    line = torch.linspace(0, 1.5, 400)
    strip = torch.stack([line, torch.full_like(line, 0.7)])
    face, footprint = torch.zeros(400, dtype=torch.long), torch.full((400,), 0.004)
    first = texture.albedo(scene.materials, face, strip, footprint).mean(0)
    correlations = []
    for k in range(1, 40):
        shift = torch.tensor([[1.5 * k], [scene.materials.cell[1, 0] * k]])  # whole rows: the layout of bricks repeats
        other = texture.albedo(scene.materials, face, strip + shift, footprint).mean(0)
        correlations.append(torch.corrcoef(torch.stack([first, other]))[0, 1])
    assert torch.stack(correlations).max() < 0.8


def test_hash_is_uniform_and_its_channels_are_independent():
    x, y = torch.meshgrid(*[torch.arange(-150, 150, dtype=torch.int32)] * 2, indexing="ij")
    h = texture._hash(x, y, torch.tensor(12345, dtype=torch.int32))
    assert h.unique().numel() > 0.999 * h.numel()
    numbers = torch.stack([texture._random(h, channel).flatten() for channel in range(8)])
    assert numbers.min() >= 0
    assert numbers.max() <= 1
    counts = torch.stack([torch.histc(channel, 10, 0, 1) for channel in numbers])
    assert (counts / h.numel() - 0.1).abs().max() < 0.005
    correlation = torch.corrcoef(numbers) - torch.eye(8)
    assert correlation.abs().max() < 0.02
    neighbours = torch.corrcoef(torch.stack([numbers[0][:-1], numbers[0][1:]]))[0, 1]
    assert neighbours.abs() < 0.02


def test_argmin_and_select():
    values = torch.tensor([[3.0, 0.0, 1e10], [1.0, 2.0, 1e10], [2.0, 5.0, 7.0]])
    index = texture.argmin(values)
    assert index.tolist() == [1, 0, 2]
    assert texture.select(values, index).tolist() == [1.0, 0.0, 7.0]
    stacked = torch.stack([values, -values])
    assert texture.select(stacked, index).tolist() == [[1.0, 0.0, 7.0], [-1.0, -0.0, -7.0]]


def test_line_coverage_is_the_overlap_of_two_intervals():
    distance = torch.tensor([0.0, 0.0, 1.0, 0.55, 0.0])
    half_width = torch.tensor([0.5, 0.1, 0.2, 0.5, 0.0])
    coverage = texture._line_coverage(distance, half_width, torch.ones(5))
    torch.testing.assert_close(coverage, torch.tensor([1.0, 0.2, 0.0, 0.45, 0.0]))
