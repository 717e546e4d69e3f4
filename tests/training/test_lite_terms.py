"""What the network is taught to show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difix3d.fixers.lite.network import Weighed
from difix3d.training.lite_terms import LiteWeights, choice_terms

SIDE = 32
RENDER, FIRST, SECOND, PATCHES = range(4)


def weighed(change: Tensor, filler: bool = False) -> Weighed:
    """Two photos, believed alike; patches are of the first alone."""
    half = SIDE // 2
    prior = torch.zeros(1, 4, half, half)
    if filler:
        prior[:, SECOND] = -1e4
    one = torch.ones(1, 1, half, half)
    return Weighed(prior, change, 0 * one, one, torch.zeros(1, 3, SIDE, SIDE), torch.cat([one, 0 * one], dim=1))


def slopes(errors: list[float], margin: float = 0.0, filler: bool = False) -> tuple[float, Tensor]:
    """(the choice's part of the loss, [4] how it changes as the logit of each rises) for errors of the render, of both
    photos as carried exactly, and of both in patches."""
    change = torch.zeros(1, 4, SIDE // 2, SIDE // 2, requires_grad=True)
    error = torch.full((1, 1, SIDE, SIDE), errors[0])
    photo_errors = torch.tensor(errors[1:]).reshape(2, 2).T.reshape(1, 2, 2, 1, 1).expand(1, 2, 2, SIDE, SIDE)
    weights = LiteWeights(change=0.0, margin=margin)
    choice = choice_terms(weighed(change, filler), error, photo_errors, weights)["choice"]
    choice.sum().backward()
    assert change.grad is not None
    return float(choice.detach()), change.grad.sum((0, 2, 3))


def test_what_is_less_off_is_shown_more() -> None:
    choice, slope = slopes([0.3, 0.1, 0.5, 0.3, 0.3])
    assert slope[FIRST] < 0 < slope[SECOND], "training goes against the slope"
    assert choice == pytest.approx(0.0, abs=1e-6), "one is as much better than the render as the other is worse"
    better, _ = slopes([0.3, 0.1, 0.1, 0.1, 0.1])
    assert -0.2 < better < -0.1


def test_patches_count_by_whose_they_are() -> None:
    _, slope = slopes([0.3, 0.3, 0.3, 0.1, 0.9])  # the second's would be worse, but none of them is shown
    assert slope[PATCHES] < 0 < slope[RENDER]


def test_of_equals_the_photo_is_shown() -> None:
    equals = [0.3] * 5
    choice, slope = slopes(equals)
    assert choice == 0 and not slope.any()
    choice, slope = slopes(equals, margin=0.04)
    assert choice < 0 and slope[RENDER] > 0 and (slope[FIRST:] < 0).all()


def test_filler_teaches_nothing() -> None:
    _, slope = slopes([0.3, 0.1, 0.0, 0.3, 0.0], filler=True)
    assert slope[SECOND] == 0 and slope[FIRST] < 0
    change = torch.zeros(1, 4, SIDE // 2, SIDE // 2)
    change[:, SECOND] = 5.0
    nothing = torch.zeros(1, 2, 2, SIDE, SIDE)
    weights = LiteWeights(change=1.0)
    moved = choice_terms(weighed(change, filler=True), nothing[:, :1, 0], nothing, weights)["change"]
    assert float(moved) == 0
    assert float(choice_terms(weighed(change), nothing[:, :1, 0], nothing, weights)["change"]) == pytest.approx(25 / 4)
