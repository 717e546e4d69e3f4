"""What keeps lite's fixes from doing harm: guards.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difix3d.fixers.lite.fixer import WEIGHTS, load_network
from difix3d.fixers.lite.guards import guarded, how_much, inwards
from difix3d.fixers.lite.network import LiteNetwork

SIDE, END = 128, 64


def grey_and_photo(grey: float, photo: float) -> tuple[Tensor, Tensor, Tensor]:
    """A smooth render and one photo, alike in nothing but that both are smooth; the photo ends in the middle, beyond
    which its planes hold the render, believed nowhere."""
    frame = torch.full((1, 5, SIDE, SIDE), grey)
    frame[:, 3:] = 1.0
    photos = torch.full((1, 1, 10, SIDE, SIDE), grey)
    photos[:, :, [3, 4, 8, 9]] = 0.0
    photos[..., :3, :, :END] = photo
    photos[..., 3:5, :, :END] = 1.0
    return frame, photos, torch.ones(1, 1)


def noise(seed: int) -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def steepest(picture: Tensor) -> float:
    """Of steps between neighbouring columns, in [0, 1]."""
    return float(picture.diff(dim=-1).abs().max())


@torch.no_grad()
def test_where_a_photo_of_another_colour_ends_there_is_no_line() -> None:
    """An untrained network shows all of a believed photo, up to where it ends."""
    torch.manual_seed(0)
    planes, network = grey_and_photo(0.5, 0.8), LiteNetwork()
    plain, soft = network(*planes)[0], guarded(network, *planes)[0]
    assert steepest(plain) > 0.08
    assert steepest(soft) < 0.25 * steepest(plain)
    assert soft[..., : END // 2].mean() > 0.7, "it is shown away from its end"


@torch.no_grad()
def test_with_the_weights_that_ship_too() -> None:
    planes = grey_and_photo(0.5, 0.8)
    network = load_network(WEIGHTS)
    plain, soft = network(*planes)[0], guarded(network, *planes)[0]
    assert steepest(soft) < 0.5 * steepest(plain)


@torch.no_grad()
def test_photos_fade_where_they_end_among_other_colours_and_only_there() -> None:
    frame, photos, _ = grey_and_photo(0.5, 0.8)
    found = inwards(frame, photos)[0, 0]
    assert found.shape == (SIDE // 2, SIDE // 2)
    assert (found[:, : END // 4] == 1).all(), "neither far from its end nor at the picture's border"
    assert found[:, END // 2 - 1].max() < 0.15
    frame, photos, _ = grey_and_photo(0.5, 0.52)
    assert (inwards(frame, photos) == 1).all(), "nobody sees where it ends"


@torch.no_grad()
def test_a_photo_beside_its_place_is_mixed_into_a_soft_render() -> None:
    """Nearer to the truth than the photo, and still sharp."""
    texture = noise(0)
    frame = torch.full((1, 5, SIDE, SIDE), 0.5)
    frame[:, 3:] = 1.0
    photos = torch.zeros(1, 1, 10, SIDE, SIDE)
    photos[0, 0, :3] = texture.roll(3, dims=-1)
    photos[0, 0, 3:5] = 1.0
    torch.manual_seed(0)
    network = LiteNetwork()
    plain, mixed = network(frame, photos, torch.ones(1, 1))[0], guarded(network, frame, photos, torch.ones(1, 1))[0]

    def error(picture: Tensor) -> float:
        return float((picture[0] - texture).square().mean())

    assert error(mixed) < 0.7 * error(plain)  # (1 + 0.55^2) / 2 of it, where all of the photo was shown
    assert 0.5 < mixed.std() / plain.std() < 0.6


def test_how_much_is_shown_goes_by_what_detail_the_render_has() -> None:
    sharp, soft = noise(0)[None], torch.full((1, 3, SIDE, SIDE), 0.5)
    half = torch.cat([soft[..., :END], sharp[..., END:]], dim=-1)
    shown = how_much(half, noise(1)[None])
    assert shown.shape == (1, 1, SIDE, SIDE)
    assert torch.allclose(shown[..., : END // 2], torch.tensor(0.55), atol=1e-3)
    assert torch.allclose(shown[..., -END // 2 :], torch.tensor(0.9), atol=1e-3)
    assert steepest(shown) < 0.06
    assert torch.allclose(how_much(soft, soft), torch.tensor(0.9)), "a wall has as much as its fix"


@pytest.mark.parametrize("side", [16, 32, 48])
@torch.no_grad()
def test_small_pictures(side: int) -> None:
    frame, photos, present = (each[..., :side, :side] if each.ndim > 2 else each for each in grey_and_photo(0.2, 0.9))
    fixed, _ = guarded(load_network(WEIGHTS), frame, photos, present)
    assert fixed.shape == (1, 3, side, side) and torch.isfinite(fixed).all()


@torch.no_grad()
def test_without_photos_the_render_stays_to_the_bit() -> None:
    frame, photos, _ = grey_and_photo(0.3, 0.8)
    fixed, trust = guarded(load_network(WEIGHTS), frame, photos[:, :0], torch.ones(1, 0))
    assert torch.equal(fixed, frame[:, :3]) and not trust.any()
