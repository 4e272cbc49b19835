"""Another world of colours: the same for all views of a sample, and a function of the generator."""

import dataclasses

import pytest
import torch

from reliev3r.core.errors import UserError
from reliev3r.data.augment_colour import WorldConfig, change_world

QUIET = dataclasses.replace(WorldConfig.none(), saturation=1.0)


def images(*batch: int) -> torch.Tensor:
    return torch.rand(*batch, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def changed(image: torch.Tensor, config: WorldConfig, seed: int = 0) -> torch.Tensor:
    return change_world(image, config, torch.Generator().manual_seed(seed))


def test_it_repeats_and_stays_in_range() -> None:
    image = images(2, 4)
    one = changed(image, WorldConfig())
    assert one.shape == image.shape
    assert torch.equal(one, changed(image, WorldConfig()))
    assert not torch.equal(one, changed(image, WorldConfig(), seed=1))
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1


def test_none_is_none() -> None:
    image = images(3)
    assert torch.equal(changed(image, WorldConfig.none()), image)


@pytest.mark.parametrize("changes", [{"mix": 1.0}, {"invert": 1.0}, {"gamma": 0.3}])
def test_all_views_of_a_sample_see_one_world(changes) -> None:
    """The same picture in all views stays the same in all views, and another sample's world is another."""
    image = images(1).expand(2, 3, 3, 8, 10)
    found = changed(image, dataclasses.replace(QUIET, **changes))
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 0], found[:, 2])
    if "invert" not in changes:
        assert float((found[0] - found[1]).abs().mean()) > 0.005


def test_cameras_differ() -> None:
    image = images(1).expand(1, 4, 3, 8, 10)
    found = changed(image, dataclasses.replace(QUIET, gain=0.25))
    means = found.mean((-3, -2, -1))[0]
    assert float(means.std()) > 0.01


def test_grey_stays_grey_and_dark_becomes_light() -> None:
    grey = torch.linspace(0.1, 0.8, 80).view(1, 1, 8, 10).expand(1, 3, 8, 10)
    mixed = changed(grey, dataclasses.replace(QUIET, mix=1.0, saturation=1.6))
    torch.testing.assert_close(mixed, grey, atol=1e-5, rtol=0)
    turned = changed(grey, dataclasses.replace(QUIET, invert=1.0))
    torch.testing.assert_close(turned, 1 - grey, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{"mix": 1.5}, {"noise": -1.0}, {"contrast": 0.9}])
def test_nonsense_is_told(changes) -> None:
    with pytest.raises(UserError, match=r"augment\.world"):
        WorldConfig(**changes)
