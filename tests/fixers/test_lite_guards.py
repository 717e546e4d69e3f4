"""What keeps lite's fixes from doing harm: guards.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from difix3d.fixers.lite.fixer import WEIGHTS, load_network
from difix3d.fixers.lite.guards import guarded, inwards
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


def steepest(picture: Tensor) -> float:
    """Of steps between neighbouring columns, in [0, 1]."""
    return float(picture.diff(dim=-1).abs().max())


@torch.no_grad()
def test_where_a_photo_of_another_colour_ends_there_is_no_line() -> None:
    """An untrained network shows all of a believed photo, up to where it ends."""
    torch.manual_seed(0)
    planes = grey_and_photo(0.5, 0.8)
    plain, soft = LiteNetwork()(*planes)[0], guarded(LiteNetwork(), *planes)[0]
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
def test_some_of_the_render_stays_everywhere() -> None:
    """A soft render in its place and a sharp photo beside it: a mix is nearer to the truth than the photo."""
    rng = np.random.default_rng(0)
    texture = torch.from_numpy(rng.uniform(0, 1, (3, SIDE, SIDE)).astype(np.float32))
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

    assert error(mixed) < 0.9 * error(plain)  # (1 + 0.87^2) / 2 of it, where all of the photo was shown
    assert torch.allclose(mixed - 0.5, 0.87 * (plain - 0.5), atol=0.02), "and it is as sharp, but for a little contrast"


@torch.no_grad()
def test_without_photos_the_render_stays_to_the_bit() -> None:
    frame, photos, _ = grey_and_photo(0.3, 0.8)
    fixed, trust = guarded(load_network(WEIGHTS), frame, photos[:, :0], torch.ones(1, 0))
    assert torch.equal(fixed, frame[:, :3]) and not trust.any()
