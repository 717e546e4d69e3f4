"""The network of the fixer lite: what its shape promises, whatever its weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difix3d.fixers.lite.grain import OCTAVES, grain, some_grain
from difix3d.fixers.lite.network import LiteNetwork, prior_logits

SIDE = 32


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    """Weights that do something everywhere: the untrained heads are zero."""
    torch.manual_seed(0)
    network = LiteNetwork().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return network


def planes(count: int, batch: int = 1, side: int = SIDE) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(count)
    frame = torch.rand(batch, 5, side, side, generator=generator)
    photos = torch.rand(batch, count, 10, side, side, generator=generator)
    return frame, photos, torch.ones(batch, count), grain(0, 0, side, side)


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@torch.no_grad()
def test_any_number_of_photos(network: LiteNetwork, count: int) -> None:
    fixed, trust = network(*planes(count, batch=2))
    assert fixed.shape == (2, 3, SIDE, SIDE) and trust.shape == (2, 1, SIDE, SIDE)
    assert torch.isfinite(fixed).all()
    assert trust.min() > 0 and trust.max() < 1


@torch.no_grad()
def test_the_order_of_the_photos_does_not_matter(network: LiteNetwork) -> None:
    frame, photos, present, noise = planes(3)
    one, other = network(frame, photos, present, noise), network(frame, photos[:, [2, 0, 1]], present, noise)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_filler_is_no_photo(network: LiteNetwork) -> None:
    frame, photos, present, noise = planes(3)
    alone = network(frame, photos[:, :1], present[:, :1], noise)
    filled = network(frame, photos, torch.tensor([[1.0, 0.0, 0.0]]), noise)
    torch.testing.assert_close(alone, filled, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_untrained_it_shows_the_photo_that_is_believed_and_else_the_render() -> None:
    frame, photos, present, noise = planes(2, side=64)
    photos[:, :, [4, 9]] = 0.0
    photos[:, 1, 4, :, :32] = 1.0  # the second photo is believed on the left
    fixed, _ = LiteNetwork()(frame, photos, present, noise)
    left, right = slice(4, 16), slice(48, 60)
    assert (fixed - photos[:, 1, :3])[..., left].abs().max() < 0.1
    assert (fixed - frame[:, :3])[..., right].abs().max() < 0.02


@torch.no_grad()
def test_untrained_it_shows_patches_only_where_no_photo_is_believed() -> None:
    frame, photos, present, noise = planes(2, side=96)
    photos[:, :, [4, 9]] = 0.0
    photos[:, 0, 4, :, :32] = 1.0  # the first photo on the left
    photos[:, :, 9, :, :64] = torch.tensor([0.5, 0.9])[:, None, None]  # patches of both on the left and in the middle
    fixed, _ = LiteNetwork()(frame, photos, present, noise)
    left, middle, right = slice(4, 20), slice(44, 52), slice(76, 92)
    assert (fixed - photos[:, 0, :3])[..., left].abs().max() < 0.1
    assert (fixed - photos[:, 1, 5:8])[..., middle].abs().max() < 0.1  # the more believed one alone
    assert (fixed - frame[:, :3])[..., right].abs().max() < 0.02


def test_the_prior_is_a_share_for_each() -> None:
    rng = np.random.default_rng(0)
    confidence, patches = (torch.from_numpy(rng.random(size, np.float32)) for size in ((2, 3, 40, 48), (2, 1, 20, 24)))
    weights = prior_logits(confidence, patches, torch.ones(2, 3)).exp()
    assert weights.shape == (2, 5, 20, 24)
    torch.testing.assert_close(weights.sum(1), torch.full((2, 20, 24), 1.0), atol=0.02, rtol=0)


@torch.no_grad()
def test_what_is_added_has_no_grid(network: LiteNetwork) -> None:
    """Where nothing varies, neighbours are alike: nothing of the network's own has the period of two pixels."""
    side = 96
    frame, photos = torch.full((1, 5, side, side), 0.5), torch.full((1, 1, 10, side, side), 0.5)
    fixed, _ = network(frame, photos, torch.ones(1, 1), torch.zeros(1, OCTAVES, side, side))
    middle = fixed[..., 32:64, 32:64]
    assert (middle - frame[:, :3, 32:64, 32:64]).abs().max() > 0.01  # it does change something
    bend = middle[..., 2:] - 2 * middle[..., 1:-1] + middle[..., :-2]
    alternating = bend * torch.tensor([1.0, -1.0]).repeat(15)  # a grid bends up and down by turns, nothing smooth does
    assert alternating.mean(dim=-1).abs().max() < 0.02 * (middle.max() - middle.min())


def test_grain_is_a_pattern_bound_to_pixels() -> None:
    whole = grain(0, 0, 1100, 40)
    torch.testing.assert_close(whole[..., 1000:1100, 8:], grain(1000, 8, 100, 32))
    torch.testing.assert_close(whole[..., 1024:, :], grain(0, 0, 76, 40))
    large = grain(0, 0, 1024, 1024)
    torch.testing.assert_close(large.std(dim=(2, 3)), torch.ones(1, OCTAVES), atol=1e-3, rtol=0)
    torch.testing.assert_close(large.mean(dim=(2, 3)), torch.zeros(1, OCTAVES), atol=2e-3, rtol=0)


def test_octaves_grow_coarser() -> None:
    (large,) = grain(0, 0, 512, 512)
    beside = [float((octave[:, 1:] * octave[:, :-1]).mean()) for octave in large]
    assert beside == sorted(beside) and beside[-1] - beside[0] > 0.9


def test_grain_to_train_on_differs_and_repeats() -> None:
    frames = torch.zeros(3, 5, 48, 64)
    some, again, other = (some_grain(frames, draws) for draws in ((0, 1), (0, 1), (0, 2)))
    assert some.shape == (3, OCTAVES, 48, 64)
    torch.testing.assert_close(some, again)
    assert all(float((some[0] - one).abs().mean()) > 0.1 for one in (some[1], some[2], other[0]))
