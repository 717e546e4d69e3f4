"""What keeps a fix from doing harm that the network was not taught to see.

Both guards only ever show more of the render. The network learns without them, so that they can be judged and changed
without training it again.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from difix3d.fixers.lite.layers import most_within
from difix3d.fixers.lite.network import LiteNetwork, Weighed

_SHOWN, _LEAST = 0.9, 0.55
"""So much of what the network would change is changed, the first where the render has detail of its own, the second
where it has none. Where a fit is good its render is soft and in its place, photos are sharp and some pixels off: a mix
is nearer to the truth than either, and nearly as sharp to the eye. On captures that it was not trained on the network
is too sure of itself to say so. Foliage that a good fit has as a blur is where it costs most."""
_SOFT, _SHARP = 0.3, 0.6
"""The render's detail as a share of the fix's: up to the one it has none, from the other on enough."""
_FAINT = 1e-6  # a variance

_COARSE, _NEAR_PX = 4, 2
"""Detail and borders are looked for at a quarter of the size, over so many pixels of that."""
_ALIKE, _UNLIKE = 0.05, 0.12
"""Photo less render, over some pixels: up to the one a border cannot be seen, from the other on it is a line."""


def guarded(network: LiteNetwork, frame: Tensor, photos: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """(fixed, trust) as LiteNetwork gives them, of the same arguments, with both guards."""
    weighed = network.weigh(frame, photos, present)
    render = frame[:, :3]
    with torch.autocast(frame.device.type, enabled=False):  # shares and variances are small numbers
        if photos.shape[1]:
            weighed = _faded(weighed, frame, photos)
        fixed, trust = network.mix(weighed, frame, photos)
        return torch.lerp(render, fixed, how_much(render, fixed)), trust


def how_much(render: Tensor, fixed: Tensor) -> Tensor:
    """[B, 1, H, W]: the share of a change that is shown, from two pictures [B, 3, H, W]."""
    details = torch.cat([_detail(render), _detail(fixed)], dim=1)
    of_render, of_fixed = _mean_within(_mean_within(details)).split(1, dim=1)
    ratio = torch.sqrt((of_render + _FAINT) / (of_fixed + _FAINT))
    sharp = ((ratio - _SOFT) / (_SHARP - _SOFT)).clamp(0.0, 1.0)
    return F.interpolate(_LEAST + (_SHOWN - _LEAST) * sharp, scale_factor=_COARSE, mode="bilinear", align_corners=False)


def _detail(picture: Tensor) -> Tensor:
    """[B, 1, H / 4, W / 4]: variance of brightness within squares."""
    grey = picture.mean(1, keepdim=True)
    return (F.avg_pool2d(grey * grey, _COARSE) - F.avg_pool2d(grey, _COARSE).square()).clamp(min=0.0)


def _faded(weighed: Weighed, frame: Tensor, photos: Tensor) -> Weighed:
    """Photos of other colours than the render's fade out towards where they end. A sky has no depth that is right, so
    a photo's own ends in it anywhere; shown up to there, the end is a line across the sky."""
    shares = torch.softmax(weighed.prior + weighed.change, dim=1)
    others = torch.cat([shares[:, 1:-1] * inwards(frame, photos), shares[:, -1:]], dim=1)
    shares = torch.cat([1 - others.sum(1, keepdim=True), others], dim=1)
    return replace(weighed, change=torch.log(shares.clamp(min=1e-9)) - weighed.prior)


def inwards(frame: Tensor, photos: Tensor) -> Tensor:
    """[B, N, H / 2, W / 2] in [0, 1] of frame [B, 5, H, W] and photos [B, N, 10, H, W]: 0 where a photo ends among
    other colours, 1 away from there. The picture's border is no end."""
    count = photos.shape[1]
    # Every other pixel tells where a photo ends, every fourth what colours there are: reading all would take longer
    # than all that is done with them.
    reached = (photos[:, :, 3, ::2, ::2] > 0).to(frame.dtype)
    inner = _least_within(-F.max_pool2d(-reached, _COARSE // 2))
    difference = (photos[:, :, :3, ::_COARSE, ::_COARSE] - frame[:, None, :3, ::_COARSE, ::_COARSE]).flatten(1, 2)
    far_in, difference = _mean_within(torch.cat([inner, difference], dim=1)).split([count, 3 * count], dim=1)
    unlike = difference.unflatten(1, (count, 3)).abs().mean(2)
    unlike = ((unlike - _ALIKE) / (_UNLIKE - _ALIKE)).clamp(0.0, 1.0)
    faded = 1 - (1 - far_in) * -_least_within(-unlike)
    return F.interpolate(faded, scale_factor=_COARSE / 2, mode="bilinear", align_corners=False)


def _mean_within(x: Tensor) -> Tensor:
    """Means over squares; at the picture's border over what there is of them."""
    return F.avg_pool2d(x, 2 * _NEAR_PX + 1, stride=1, padding=_NEAR_PX, count_include_pad=False)


def _least_within(x: Tensor) -> Tensor:
    return -most_within(-x, _NEAR_PX)
