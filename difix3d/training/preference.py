"""Learning from comparisons: of two fixes of a frame, which one raters preferred, and where the other was bad.

    f, f_0   what the model makes of the frame now, and what it made of it before training
    w, l     the preferred picture and the other one
    m        the region that raters marked in l; everything where they marked nothing
    d(a, b)  squared error plus LPIPS weight times LPIPS, over m; outside of m both pictures are f_0

    margin = [d(f, l) - d(f, w)] - [d(f_0, l) - d(f_0, w)]
    loss   = -log sigmoid(beta margin) / beta + proximity |f - f_0|^2

It is DPO (Rafailov et al. 2023) under a model that is assumed, not known: that a fixer "makes" y with a probability
falling as exp(-beta d(f, y)). A one-step fixer has no likelihood of its own. By d alone the margin is linear in f and
would grow without end along w - l; the proximity term ends that. Divided by beta, its slope at the start is at most
that of d itself, so it goes with the supervised losses. Whole pictures hide local damage, hence m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from difix3d.losses import LPIPS
from difix3d.training.dataset import Batch

_LEAST_REGION = 0.02
"""A smaller region counts as if it were this share of the picture, so that a few pixels do not shout."""


@dataclass(frozen=True)
class PreferenceWeights:
    """weight: of the whole term, 0 leaves comparisons out; lpips: of LPIPS in d. See above for the others."""

    weight: float = 1.0
    beta: float = 50.0
    proximity: float = 0.5
    lpips: float = 1.0


def preference_loss(
    prediction: Tensor, start: Tensor, batch: Batch, weights: PreferenceWeights, lpips: LPIPS | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch of comparisons, mean over its samples times their weights, and its two terms.

    prediction, start: f and f_0, [B, 3, H, W] in [-1, 1]; batch.target's first view is w, batch.worse is l.
    """
    better, worse = batch.target[:, 0], batch.worse
    assert worse is not None, "a batch of comparisons"
    start = start.detach()
    region = torch.ones_like(prediction[:, :1]) if batch.mask is None else batch.mask
    share = region.mean((1, 2, 3)).clamp(min=_LEAST_REGION)

    looks = lpips if weights.lpips else None

    def seen(picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        """A picture inside the region, and what LPIPS compares of it: each is compared twice."""
        picture = region * picture + (1 - region) * start
        return picture, [] if looks is None else looks.look(picture)

    def distance(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> Tensor:
        total = (ours[0] - theirs[0]).square().mean((1, 2, 3))
        if looks is not None:
            total = total + weights.lpips * looks.between(ours[1], theirs[1])
        return total / share

    with torch.no_grad():
        liked, other, first = seen(better), seen(worse), seen(start)
        before = distance(first, other) - distance(first, liked)
    ours = seen(prediction)
    margin = distance(ours, other) - distance(ours, liked) - before
    preferred = -F.logsigmoid(weights.beta * margin) / weights.beta
    near = weights.proximity * (prediction - start).square().mean((1, 2, 3))
    terms = {"preference": preferred, "proximity": near}
    means = {name: weights.weight * (batch.weights * term).mean() for name, term in terms.items()}
    return torch.stack(list(means.values())).sum(), means
