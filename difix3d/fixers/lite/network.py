"""The network of the fixer `lite`: how much of each photo to show at each pixel.

It starts from the blend that confidence alone would make (that of the fixer `reproject`, over what was carried in large
patches, over the render) and learns what to change:

    half size:  patches = the photos as carried in patches, at each pixel next to the most believed alone
                frame, the render's prior -> f
                each photo -> the same encoder -> e_i -> their mean by prior, and most, over the photos
                patches -> e_p
                all of these -> U-Net -> D
                logit_i = log(prior_i) + head(D, e_i)             one for each photo, for the patches and for the render
    full size:  w       = softmax(logit)
                blend   = sum of w_i photo_i                      photo_0: the render; the last one: the patches
                fixed   = render + supported cbrt(trust(D)) (blend - render)

Every pixel is a mix of what the render and the photos show there: nothing is added to it. What was added once had been
learned from ten captures, and near the photos of others fixes are better without it (benchmarks/RESULTS.md).
What the fixer shows has been through guards.py besides, which the network does not know.

supported is 0 where no photo is believed to show anything, and the render stays there. trust is trained to be the
chance that the fix is nearer to the truth. An even mix of both would show both, blurred: its cube root keeps what is
doubtful and drops what is wrong.

Photos have no order and no number: the same weights serve one of them as four. There is no normalisation layer, so a
tile of a picture is fixed as the whole is, but for what lies beyond the network's view.

On two cores the picture's full size is where time goes, and not in convolutions: all but the last blend is therefore
done at half size, the prior too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difix3d.fixers.lite.layers import conv_of_fours, conv_of_parts, doubled, gaussian, most_within
from difix3d.fixers.lite.planes import CARRIED_CHANNELS, FRAME_CHANNELS

MULTIPLE = 16
"""Sides must be multiples of this: the U-Net halves the picture four times."""

_WIDTHS = (32, 64, 96, 128)
_PHOTO_WIDTH = 24
_SLOPE = 0.1  # of the leaky ReLU
_TRUSTING = 3.0
"""An untrained network trusts itself at 0.95: it begins as the blend."""
_SUREST = 7.0
"""Bounds the logit of trust, at 0.001 and 0.999: the root's slope has no bound at 0, and training ran away there."""

# The prior: see the fixer `reproject`, which says why.
_PREFERENCE, _BELIEVED, _RENDER_SHARE = 4, 1.5, 1e-4
_FEATHER = 1.5  # pixels of half size; shares are feathered by being halved and doubled
_NARROW_PX = 4  # of half size: gaps up to twice as wide
_ALONE = 12
"""Power of the confidences of patches. They lie pixels apart: a mean of two would be neither."""
_SUPPORTED, _REACH_PX = 8.0, 2  # of half size
"""A photo supports a change where it is believed at 1 / _SUPPORTED or more, and as far beside."""
_FLOOR = 2e-3
"""The least prior: a photo that nobody believes can still be brought in, by a logit of 6."""


@dataclass(frozen=True)
class Weighed:
    """What the network says at half size, of the render, N photos and the patches: prior and change [B, 1 + N + 1, h,
    w], logits that add up; trust [B, 1, h, w], a logit; supported [B, 1, h, w]. patches [B, 3, H, W]: made of the
    photos by patch_shares [B, N, h, w], which add up to 1."""

    prior: Tensor
    change: Tensor
    trust: Tensor
    supported: Tensor
    patches: Tensor
    patch_shares: Tensor

    @property
    def shares(self) -> Tensor:
        """[B, 1 + N + 1, h, w]: how much of each is shown, which adds up to 1."""
        replaced = self.supported * _trusted(self.trust).pow(1 / 3)
        shares = replaced * torch.softmax(self.prior + self.change, dim=1)
        return torch.cat([shares[:, :1] + 1 - replaced, shares[:, 1:]], dim=1)


class LiteNetwork(nn.Module):
    """frame [B, 5, H, W], photos [B, N, 10, H, W] and present [B, N] (1: a photo, 0: filler), all in [0, 1], N from 0.

    Gives (fixed [B, 3, H, W]; trust [B, 1, H, W] in [0, 1): 0 where no photo supports a change and the
    render stays to the bit). H and W are multiples of MULTIPLE.
    """

    def __init__(self) -> None:
        super().__init__()
        first = _WIDTHS[0]
        self.frame_in = _conv(4 * len(FRAME_CHANNELS) + 1, first)
        self.render_in, self.photo_in = _conv(4 * 3, _PHOTO_WIDTH), _conv(4 * len(CARRIED_CHANNELS), _PHOTO_WIDTH)
        self.photo_mix = _conv(_PHOTO_WIDTH, _PHOTO_WIDTH, 1)
        self.patches_in, self.patches_mix = _conv(4 * 3 + 2, _PHOTO_WIDTH), _conv(_PHOTO_WIDTH, _PHOTO_WIDTH, 1)
        self.join = _conv(first + 3 * _PHOTO_WIDTH, first, 1)
        self.down = nn.ModuleList(_Level(width) for width in _WIDTHS)
        self.narrow = nn.ModuleList(_conv(a, b, stride=2) for a, b in itertools.pairwise(_WIDTHS))
        self.middle = nn.Sequential(_Level(_WIDTHS[-1]), _Level(_WIDTHS[-1]))
        self.widen = nn.ModuleList(_conv(b, a) for a, b in itertools.pairwise(_WIDTHS))
        self.up = nn.ModuleList(_Level(width) for width in _WIDTHS[:-1])
        self.beside, self.compared = _conv(first, _PHOTO_WIDTH, 1), _conv(_PHOTO_WIDTH, _PHOTO_WIDTH, 1)
        self.patches_compared = _conv(_PHOTO_WIDTH, _PHOTO_WIDTH, 1)
        self.photo_head, self.patches_head = (_zero(_conv(_PHOTO_WIDTH, 1)) for _ in range(2))
        self.frame_head = nn.Sequential(_conv(first, first, 1), _Activation(), _zero(_conv(first, 2)))  # logit, trust

    def forward(self, frame: Tensor, photos: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return self.mix(self.weigh(frame, photos, present), frame, photos)

    def weigh(self, frame: Tensor, photos: Tensor, present: Tensor) -> Weighed:
        """What the blend is made with; see forward for the arguments."""
        render = frame[:, :3]
        exact, loose = photos.chunk(2, dim=2)
        with torch.autocast(frame.device.type, enabled=False):  # shares are compared over four decades
            patches, believed, patch_shares = _patches(loose, present, render)
            prior = prior_logits(exact[:, :, -1], believed[:, 1:], present)
            shares = torch.softmax(prior, dim=1)
            supported = _supported(torch.stack([exact[:, :, -1], loose[:, :, -1]], dim=2), present)
        x = conv_of_fours(self.frame_in, frame, shares[:, :1])
        rendered = conv_of_fours(self.render_in, render)
        # Never negative, so that filler, which is 0, changes neither the mean nor the most.
        encoded = [
            F.relu_(self.photo_mix(_active(conv_of_fours(self.photo_in, photo).add_(rendered))))
            for photo in exact.unbind(1)
        ]
        mean = most = torch.zeros_like(rendered)
        for index, one in enumerate(encoded):
            mean = torch.addcmul(mean, one, shares[:, 1 + index, None].to(one.dtype))
            most = torch.maximum(most, one * present[:, index, None, None, None].to(one.dtype))
        patched = _active(conv_of_fours(self.patches_in, patches, believed).add_(rendered))
        patched = F.relu_(self.patches_mix(patched))
        x = _active(self._unet(conv_of_parts(self.join, [_active(x), mean, most, patched])))

        own_logit, trust = self.frame_head(x).float().chunk(2, dim=1)
        beside = self.beside(x)
        change = [own_logit, *(self.photo_head(_active(self.compared(one).add_(beside))).float() for one in encoded)]
        change.append(self.patches_head(_active(self.patches_compared(patched).add_(beside))).float())
        return Weighed(prior, torch.cat(change, dim=1), trust, supported, patches, patch_shares)

    def mix(self, weighed: Weighed, frame: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        """(fixed, trust), as forward gives them."""
        render, count = frame[:, :3], weighed.prior.shape[1]
        found = doubled(torch.cat([weighed.prior + weighed.change, weighed.trust, weighed.supported], dim=1))
        logits, trust, supported = found.split([count, 1, 1], dim=1)
        weights = torch.softmax(logits, dim=1)
        blend = _mean(weights, [render, *(photo[:, :3] for photo in photos.unbind(1)), weighed.patches])
        trust = _trusted(trust)
        return render + supported * trust.pow(1 / 3) * (blend - render), supported * trust

    def _unet(self, x: Tensor) -> Tensor:
        kept = []
        for level, narrow in zip(self.down, self.narrow):
            x = level(x)
            kept.append(x)
            x = narrow(x)
        x = self.middle(self.down[-1](x))
        for level, widen, skip in reversed(list(zip(self.up, self.widen, kept))):
            x = level(doubled(widen(x)).add_(skip))
        return x


def _trusted(logit: Tensor) -> Tensor:
    return torch.sigmoid(_SUREST * torch.tanh((logit + _TRUSTING) / _SUREST))


def _patches(loose: Tensor, present: Tensor, render: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(colours [B, 3, H, W]; geometry and confidence [B, 2, H / 2, W / 2]; whose they are [B, N, H / 2, W / 2]) of
    photos as carried in patches [B, N, 5, H, W], next to the most believed alone; without photos the render, believed
    nowhere."""
    batch, count, _, height, width = loose.shape
    if not count:
        nothing = render.new_zeros((batch, 2, height // 2, width // 2))
        return render, nothing, nothing[:, :0]
    known = F.avg_pool2d(loose[:, :, 3:].flatten(1, 2), 2).unflatten(1, (count, 2)) * present[:, :, None, None, None]
    smooth = gaussian(known[:, :, 1], _FEATHER)
    powers = (smooth + 1e-2 * present[:, :, None, None]) ** _ALONE  # 1e-24 at least: the sum is above 0
    shares = powers / powers.sum(1, keepdim=True).clamp(min=1e-30)
    return _mean(doubled(shares), list(loose[:, :, :3].unbind(1))), (shares[:, :, None] * known).sum(1), shares


def _supported(confidence: Tensor, present: Tensor) -> Tensor:
    """[B, 1, H / 2, W / 2] in [0, 1], whether any photo can say something, from confidences [B, N, M, H, W]."""
    batch, count, _, height, width = confidence.shape
    if not count:
        return confidence.new_zeros((batch, 1, height // 2, width // 2))
    most = F.max_pool2d((confidence * present[:, :, None, None, None]).flatten(1, 2).amax(1, keepdim=True), 2)
    return gaussian(most_within((most * _SUPPORTED).clamp(max=1.0), _REACH_PX), _FEATHER)


def prior_logits(confidence: Tensor, patches: Tensor, present: Tensor) -> Tensor:
    """[B, 1 + N + 1, H / 2, W / 2], of the render, each photo and the patches, from confidence [B, N, H, W], that of
    the patches [B, 1, H / 2, W / 2] and present [B, N]: log of the weights that `reproject` blends with, the patches
    over what it leaves to the render; for filler, next to minus infinity."""
    batch, count, height, width = confidence.shape
    left = patches.new_ones((batch, 1, height // 2, width // 2))
    weights = left[:, :0]
    there = present[:, :, None, None]
    if count:
        confidence = F.avg_pool2d(confidence, 2) * there
        shares = confidence**_PREFERENCE
        most = confidence.amax(1, keepdim=True)
        weights = _feathered(most) * shares / (shares.sum(1, keepdim=True) + _RENDER_SHARE)
        left = 1 - weights.sum(1, keepdim=True)
        patches = patches * (1 - _closed(most))
    over = left * _feathered(patches)
    logits = torch.log(torch.cat([left - over, weights, over], dim=1).clamp(min=0.0) + _FLOOR)
    missing = torch.cat([1 - there, 1 - present.amax(1)[:, None, None, None] if count else left[:, :, :1, :1]], dim=1)
    return torch.cat([logits[:, :1], logits[:, 1:] - 1e4 * missing], dim=1)


def _closed(confidence: Tensor) -> Tensor:
    """[B, 1, H, W]: confidence with its narrow gaps bridged. They are edges in depth, beside which photos confirm the
    render; where geometry is broken it is so over more than that."""
    return -most_within(-most_within(confidence, _NARROW_PX), _NARROW_PX)


def _feathered(confidence: Tensor) -> Tensor:
    """[B, 1, H, W]: how far what is believed so covers what is below it, borders feathered inwards."""
    cover = (confidence * _BELIEVED).clamp(max=1.0)
    return gaussian(-most_within(-cover, 1), _FEATHER)


def _mean(shares: Tensor, colours: list[Tensor]) -> Tensor:
    """[B, 3, H, W] from shares [B, N, H, W] and N colours."""
    first, *others = shares.split(1, dim=1)
    mean = first * colours[0]
    for weight, colour in zip(others, colours[1:]):
        mean = torch.addcmul(mean, weight, colour)
    return mean


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU, in place: what a convolution gives is needed by nobody else."""
    return F.leaky_relu_(x, _SLOPE)


class _Activation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _active(x)


class _Level(nn.Module):
    """Two convolutions beside the identity; at first the identity alone."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        nn.init.normal_(self.second.weight, std=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(_active(self.first(x))).add_(x)


def _conv(channels_in: int, channels_out: int, size_px: int = 3, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, size_px, stride=stride, padding=size_px // 2)
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    return conv
