"""The network of the fixer lite: what its shape promises, whatever its weights are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from difix3d.fixers.lite.layers import conv_of_fours, conv_of_parts, most_within
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
    return frame, photos, torch.ones(batch, count)


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@torch.no_grad()
def test_any_number_of_photos(network: LiteNetwork, count: int) -> None:
    fixed, trust = network(*planes(count, batch=2))
    assert fixed.shape == (2, 3, SIDE, SIDE) and trust.shape == (2, 1, SIDE, SIDE)
    assert torch.isfinite(fixed).all()
    assert trust.max() < 1 and (trust.min() > 0 if count else not trust.any())


@torch.no_grad()
def test_where_no_photo_is_believed_the_render_stays(network: LiteNetwork) -> None:
    """The weights here change everything; what nothing supports stays to the bit, and is not trusted."""
    frame, photos, present = planes(2, side=96)
    photos[:, :, [4, 9]] = 0.0
    photos[:, 0, 9, :, :32] = 0.3  # carried in patches, on the left
    photos[:, 1, 4, 40:56] = 0.3  # and to the pixel, in a band
    fixed, trust = network(frame, photos, present)
    changed = (fixed - frame[:, :3]).abs().amax(1)[0]
    unknown = torch.ones(96, 96, dtype=torch.bool)
    unknown[:, :48] = False
    unknown[24:72] = False
    assert not changed[unknown].any() and not trust[0, 0][unknown].any()
    known = torch.zeros(96, 96, dtype=torch.bool)
    known[:, :32] = known[40:56] = True
    assert (changed[known] > 0).all() and (trust[0, 0][known] > 0).all()
    alone = network(frame, photos[:, :1], torch.zeros(1, 1))
    assert torch.equal(alone[0], frame[:, :3]), "filler supports nothing"


@torch.no_grad()
def test_the_order_of_the_photos_does_not_matter(network: LiteNetwork) -> None:
    frame, photos, present = planes(3)
    one, other = network(frame, photos, present), network(frame, photos[:, [2, 0, 1]], present)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_filler_is_no_photo(network: LiteNetwork) -> None:
    frame, photos, present = planes(3)
    alone = network(frame, photos[:, :1], present[:, :1])
    filled = network(frame, photos, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(alone, filled, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_untrained_it_shows_the_photo_that_is_believed_and_else_the_render() -> None:
    frame, photos, present = planes(2, side=64)
    photos[:, :, [4, 9]] = 0.0
    photos[:, 1, 4, :, :32] = 1.0  # the second photo is believed on the left
    fixed, _ = LiteNetwork()(frame, photos, present)
    left, right = slice(4, 16), slice(48, 60)
    assert (fixed - photos[:, 1, :3])[..., left].abs().max() < 0.1
    assert (fixed - frame[:, :3])[..., right].abs().max() < 0.02


@torch.no_grad()
def test_untrained_it_shows_patches_only_where_no_photo_is_believed() -> None:
    frame, photos, present = planes(2, side=96)
    photos[:, :, [4, 9]] = 0.0
    photos[:, 0, 4, :, :32] = 1.0  # the first photo on the left
    photos[:, :, 9, :, :64] = torch.tensor([0.5, 0.9])[:, None, None]  # patches of both on the left and in the middle
    fixed, _ = LiteNetwork()(frame, photos, present)
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
def test_nothing_is_added(network: LiteNetwork) -> None:
    """Each pixel lies between the darkest and the brightest of what the render and the photos show there."""
    frame, photos, present = planes(3, side=96)
    fixed, _ = network(frame, photos, present)
    shown = torch.cat([frame[:, None, :3], photos[:, :, :3], photos[:, :, 5:8]], dim=1)
    assert (fixed >= shown.amin(1) - 1e-6).all() and (fixed <= shown.amax(1) + 1e-6).all()
    assert (fixed - frame[:, :3]).abs().max() > 0.1


@torch.no_grad()
def test_quick_layers_give_what_plain_ones_give() -> None:
    torch.manual_seed(0)
    x, beside = torch.rand(2, 5, 32, 48), torch.rand(2, 3, 16, 24)
    fours = torch.nn.Conv2d(4 * 5 + 3, 8, 3, padding=1)
    plain = fours(torch.cat([F.pixel_unshuffle(x, 2), beside], dim=1))
    assert (conv_of_fours(fours, x, beside) - plain).abs().max() < 1e-5
    pixel = torch.nn.Conv2d(5 + 3, 8, 1)
    half = F.avg_pool2d(x, 2)
    assert (conv_of_parts(pixel, [half, beside]) - pixel(torch.cat([half, beside], dim=1))).abs().max() < 1e-5
    for radius in (0, 1, 2, 4):
        pooled = F.max_pool2d(x, 2 * radius + 1, stride=1, padding=radius)
        assert torch.equal(most_within(x, radius), pooled)
