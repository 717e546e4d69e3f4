"""The network of the fixer `lite`: how much of each photo to show at each pixel, and what to add.

It starts from the blend that confidence alone would make (that of the fixer `reproject`) and learns what to change:

    half size:  frame, the blend by prior ----------+
                each photo -> the same encoder -> e_i -> mean and most over the photos -> U-Net -> D
                logit_i = log(prior_i) + head(D, e_i)             one for each photo, and one for the render
    full size:  blend   = sum of softmax(logit)_i photo_i         photo_0: the render
                fixed   = render + sqrt(trust(D)) (blend + residual(D, blend, render) - render)

trust is trained to be the chance that the fix is nearer to the truth. An even mix of both would show both, blurred: its
square root keeps what is doubtful and drops what is wrong.

Photos have no order and no number: the same weights serve one of them as four. There is no normalisation layer, so a
tile of a picture is fixed as the whole is, but for what lies beyond the network's view.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difix3d.fixers.lite.planes import FRAME_CHANNELS, PHOTO_CHANNELS

MULTIPLE = 16
"""Sides must be multiples of this: the U-Net halves the picture four times."""

_WIDTHS = (32, 64, 112, 160)
_PHOTO_WIDTH, _FULL_WIDTH = 24, 12
_SLOPE = 0.1  # of the leaky ReLU
_TRUSTING = 3.0
"""An untrained network trusts itself at 0.95: it begins as the blend."""

# The prior: see the fixer `reproject`, which says why.
_PREFERENCE, _BELIEVED, _RENDER_SHARE = 4, 1.5, 1e-4
_SEAM_PX, _FEATHER_PX = 1.0, 3.0
_FLOOR = 2e-3
"""The least prior: a photo that nobody believes can still be brought in, by a logit of 6."""


class LiteNetwork(nn.Module):
    """frame [B, 5, H, W], photos [B, N, 5, H, W] and present [B, N] (1: a photo, 0: filler), all in [0, 1], N from 0.

    Gives (fixed [B, 3, H, W], not clamped; trust [B, 1, H, W] in (0, 1)). H and W are multiples of MULTIPLE.
    """

    def __init__(self) -> None:
        super().__init__()
        frame, photo = 4 * (len(FRAME_CHANNELS) + 4), 4 * (len(PHOTO_CHANNELS) + 3)
        first = _WIDTHS[0]
        self.frame_in = _conv(frame, first)
        self.photo_in = nn.Sequential(_conv(photo, _PHOTO_WIDTH), _Activation(), _conv(_PHOTO_WIDTH, _PHOTO_WIDTH))
        self.join = _conv(first + 2 * _PHOTO_WIDTH, first)
        self.down = nn.ModuleList(_Level(width) for width in _WIDTHS)
        self.narrow = nn.ModuleList(_conv(a, b, stride=2) for a, b in itertools.pairwise(_WIDTHS))
        self.middle = nn.Sequential(_Level(_WIDTHS[-1]), _Level(_WIDTHS[-1]))
        self.widen = nn.ModuleList(_conv(b, a) for a, b in itertools.pairwise(_WIDTHS))
        self.up = nn.ModuleList(_Level(width) for width in _WIDTHS[:-1])
        self.photo_head = nn.Sequential(
            nn.Conv2d(first + _PHOTO_WIDTH, _PHOTO_WIDTH, 1), _Activation(), _zero(_conv(_PHOTO_WIDTH, 1))
        )
        self.frame_head = nn.Sequential(_conv(first, first), _Activation(), _zero(_conv(first, 2)))  # logit, trust
        self.detail = nn.Conv2d(first, _FULL_WIDTH, 1)
        self.residual = nn.Sequential(_conv(_FULL_WIDTH + 6, _FULL_WIDTH), _Activation(), _zero(_conv(_FULL_WIDTH, 3)))

    def forward(self, frame: Tensor, photos: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = photos.shape[:2]
        render = frame[:, :3]
        there = present[:, :, None, None, None]
        with torch.autocast(frame.device.type, enabled=False):  # shares are compared over four decades
            prior = prior_logits(photos[:, :, -1], present)
        begun = _blend(prior, render, photos)
        x = self.frame_in(F.pixel_unshuffle(torch.cat([frame, begun, prior[:, :1].exp()], dim=1), 2))
        if count:
            each = torch.cat([photos, photos[:, :, :3] - render[:, None]], dim=2).flatten(0, 1)
            # Never negative, so that filler, which is 0, changes neither the mean nor the most.
            encoded = F.relu_(self.photo_in(F.pixel_unshuffle(each, 2)))
            together = encoded.unflatten(0, (batch, count)) * there.to(encoded.dtype)
            mean = together.sum(1) / there.sum(1).clamp(min=1.0).to(encoded.dtype)
            pooled = torch.cat([mean, together.amax(1)], dim=1)
        else:
            pooled = x.new_zeros((batch, 2 * _PHOTO_WIDTH, *x.shape[2:]))
        x = _active(self._unet(self.join(torch.cat([_active(x), pooled], dim=1))))

        own, trust = _doubled(self.frame_head(x).float()).chunk(2, dim=1)
        change = [own]
        if count:
            beside = x[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
            head = self.photo_head(torch.cat([beside, encoded], dim=1))[:, 0].unflatten(0, (batch, count))
            change.append(_doubled(head.float()))
        blend = _blend(prior + torch.cat(change, dim=1), render, photos)
        residual = self.residual(torch.cat([_doubled(self.detail(x)), blend, render], dim=1)).float()
        trust = torch.sigmoid(trust + _TRUSTING)
        return render + trust.sqrt() * (blend + residual - render), trust

    def _unet(self, x: Tensor) -> Tensor:
        kept = []
        for level, narrow in zip(self.down, self.narrow):
            x = level(x)
            kept.append(x)
            x = narrow(x)
        x = self.middle(self.down[-1](x))
        for level, widen, skip in reversed(list(zip(self.up, self.widen, kept))):
            x = level(_doubled(widen(x)) + skip)
        return x


def prior_logits(confidence: Tensor, present: Tensor) -> Tensor:
    """[B, 1 + N, H, W], of the render and each photo, from confidence [B, N, H, W] and present [B, N]: log of the
    weights that `reproject` blends with; for filler, next to minus infinity."""
    batch, count, height, width = confidence.shape
    if not count:
        return confidence.new_zeros((batch, 1, height, width))
    there = present[:, :, None, None]
    confidence = confidence * there
    shares = _gaussian(confidence**_PREFERENCE, _SEAM_PX)
    cover = (confidence.amax(1, keepdim=True) * _BELIEVED).clamp(max=1.0)
    cover = _gaussian(-F.max_pool2d(-cover, 3, stride=1, padding=1), _FEATHER_PX)
    weights = cover * shares / (shares.sum(1, keepdim=True) + _RENDER_SHARE)
    weights = torch.cat([1 - weights.sum(1, keepdim=True), weights], dim=1)
    logits = torch.log(weights.clamp(min=0.0) + _FLOOR)
    return torch.cat([logits[:, :1], logits[:, 1:] - 1e4 * (1 - there)], dim=1)


def _blend(logits: Tensor, render: Tensor, photos: Tensor) -> Tensor:
    weights = torch.softmax(logits, dim=1)
    return weights[:, :1] * render + (weights[:, 1:, None] * photos[:, :, :3]).sum(1)


def _gaussian(x: Tensor, sigma_px: float) -> Tensor:
    """Blurs [B, C, H, W], borders mirrored."""
    radius = round(3 * sigma_px)
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (at / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    planes = F.pad(x.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes[:, 0].unflatten(0, x.shape[:2])


def _doubled(x: Tensor) -> Tensor:
    """Bilinear, not transposed convolution: that leaves grids."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


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
        return x + self.second(_active(self.first(x)))


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=_SLOPE)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    return conv
