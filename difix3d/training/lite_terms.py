"""The parts of the loss that the fixer `lite` is trained by.

    loss = |fixed - target| + its means over blocks + LPIPS (VGG-16) + how well trust tells where the fix is nearer
           + the error of what is shown, each picture's by its share, + how far logits leave the prior

The means hold colours in place, which LPIPS alone lets drift. LPIPS says of a blend which small step would better it;
errors (lite_errors.py) say of each picture what it would be to show it, however far that is, but nothing of a mix.

fixed, render, target: [B, 3, H, W] in [0, 1]; trust: [B, 1, H, W]. Every part is [B].
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from difix3d.fixers.lite.layers import gaussian
from difix3d.fixers.lite.network import Weighed
from difix3d.losses import LPIPS
from difix3d.training.lite_errors import unit_levels

_BLOCKS_PX = (4, 16)
_TRUST_BLUR_PX = 9
_BORDER_SHARE = 0.1
"""Of a crop's side, left out by LPIPS at each border: the network has seen less around of what is there."""
_ERROR_SIGMA_PX = 2.0  # of half size
_FILLER = -1e3
"""The prior of filler lies below, that of all that may be shown above."""


@dataclass(frozen=True)
class LiteWeights:
    """Of the parts; that of |fixed - target| is 1.

    margin: so much further off than the render, by LPIPS, a photo may be and still be shown. Without it the network
    keeps to the render where it cannot tell, and on captures it does not know that is often; photos are better there.
    """

    perceptual: float = 1.0
    choice: float = 1.0
    blocks: float = 1.0
    trust: float = 0.02
    change: float = 5e-4
    margin: float = 0.08


def fix_terms(fixed: Tensor, trust: Tensor, render: Tensor, target: Tensor, weights: LiteWeights) -> dict[str, Tensor]:
    """What pixels say of a fix, each part times its weight."""
    return {
        "l1": _difference(fixed, target),
        "blocks": weights.blocks * _blocks(fixed, target),
        "trust": weights.trust * _trust_loss(trust, fixed, render, target),
    }


def perceptual_term(
    fixed: Tensor, target: Tensor, weights: LiteWeights, lpips: LPIPS, halves: Callable[[], AbstractContextManager]
) -> dict[str, Tensor]:
    """LPIPS of the middle of crops; VGG-16, nine tenths of a step's arithmetic, looks within `halves`."""

    def levels(picture: Tensor) -> list[Tensor]:
        border = round(_BORDER_SHARE * picture.shape[-1])
        middle = picture[..., border : picture.shape[-2] - border, border : picture.shape[-1] - border]
        return unit_levels(middle, lpips)

    with halves():
        with torch.no_grad():
            wanted = levels(target)
        found = levels(fixed)
    return {"lpips": weights.perceptual * lpips.between(found, wanted)}


def choice_terms(weighed: Weighed, error: Tensor, photo_errors: Tensor, weights: LiteWeights) -> dict[str, Tensor]:
    """How much further from the photo than the render what is shown is, and how far logits were moved for it.

    error: [B, 1, H, W] of the render; photo_errors: [B, N, 2, H, W], as carried exactly and in patches.
    """
    return {
        "choice": weights.choice * _choice(weighed, error + weights.margin, photo_errors),
        "change": weights.change * _each((weighed.change * (weighed.prior > _FILLER)).square()),
    }


def _choice(weighed: Weighed, error: Tensor, photo_errors: Tensor) -> Tensor:
    found = torch.cat([error, *photo_errors.unbind(2)], dim=1)
    found = gaussian(F.avg_pool2d(found, 2), _ERROR_SIGMA_PX)
    count = photo_errors.shape[1]
    render, exact, loose = found.split([1, count, count], dim=1)
    patches = (weighed.patch_shares * loose).sum(1, keepdim=True)
    return _each((weighed.shares[:, 1:] * (torch.cat([exact, patches], dim=1) - render)).sum(1))


def _each(values: Tensor) -> Tensor:
    """[B, ...] -> [B] means."""
    return values.flatten(1).mean(1)


def _difference(fixed: Tensor, target: Tensor) -> Tensor:
    """Charbonnier's L1, smooth at 0."""
    return _each(torch.sqrt((fixed - target).square() + 1e-6))


def _blocks(fixed: Tensor, target: Tensor) -> Tensor:
    """L1 of the means over blocks, of each size."""
    differences = [F.avg_pool2d(fixed, size) - F.avg_pool2d(target, size) for size in _BLOCKS_PX]
    return torch.stack([_each(difference.abs()) for difference in differences]).mean(0)


def _trust_loss(trust: Tensor, fixed: Tensor, render: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of trust against whether, over some pixels, the fix is nearer to the photo than the render."""

    def error(picture: Tensor) -> Tensor:
        square = (picture - target).square().mean(1, keepdim=True)
        return F.avg_pool2d(square, _TRUST_BLUR_PX, stride=1, padding=_TRUST_BLUR_PX // 2)

    with torch.no_grad():
        nearer = (error(fixed) <= error(render)).to(trust.dtype)
    return _each(F.binary_cross_entropy(trust.clamp(1e-4, 1 - 1e-4), nearer, reduction="none"))
