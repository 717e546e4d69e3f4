"""Losses of Difix's training (L2, LPIPS, Gram) and the frozen networks they look through. Torch only.

Notation: prediction, target: [N, 3, H, W] in [-1, 1]. The networks are ImageNet convolutions whose weights are not
part of this project: difix3d.perceptual_weights says where they are, and how to get them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from difix3d.errors import CheckpointError, ShapeError
from difix3d.perceptual_weights import find_weights, how_to_get

# torchvision's `features` as (index, kind, *arguments): conv stride padding, or pool kernel.
_VGG16 = tuple(
    [(index, "conv", 1, 1) for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    + [(index, "pool", 2, 2) for index in (4, 9, 16, 23)]
)
_ALEXNET = (
    (0, "conv", 4, 2),
    (2, "pool", 3, 2),
    (3, "conv", 1, 2),
    (5, "pool", 3, 2),
    *((index, "conv", 1, 1) for index in (6, 8, 10)),
)
_LAYERS = {"vgg": _VGG16, "alex": _ALEXNET}
_TAPS = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
_MIN_SIDE_PX = {"vgg": 16, "alex": 31}

GRAM_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
GRAM_CROP_PX = 400
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# LPIPS v0.1's own scaling layer: the ImageNet statistics carried over to inputs in [-1, 1].
_LPIPS_SHIFT = (-0.030, -0.088, -0.188)
_LPIPS_SCALE = (0.458, 0.448, 0.450)


class ConvFeatures(nn.Module):
    """VGG-16's or AlexNet's convolutions up to the last tapped ReLU; channel counts are those of the weights.

    weights: {"N.weight", "N.bias"} by torchvision's index N. Frozen. Called with [N, 3, H, W], gives five
    activations, shallow to deep. Raises CheckpointError for missing layers, ShapeError for images too small.
    """

    def __init__(self, net: str, weights: dict[str, Tensor]):
        super().__init__()
        self.net = net
        self.taps = _TAPS[net]
        self.layers = sorted(_LAYERS[net])
        for index, kind, *_ in self.layers:
            if kind != "conv":
                continue
            for part in ("weight", "bias"):
                if f"{index}.{part}" not in weights:
                    raise CheckpointError(f"{net} weights: expected {index}.{part}, found {sorted(weights)[:6]}...")
                self.register_buffer(f"{part}_{index}", weights[f"{index}.{part}"].float(), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        if min(x.shape[-2:]) < _MIN_SIDE_PX[self.net]:
            raise ShapeError(
                f"{self.net}: expected sides of at least {_MIN_SIDE_PX[self.net]} pixels, got {list(x.shape[-2:])}"
            )
        found = []
        for index, kind, first, second in self.layers:
            if kind == "pool":
                x = F.max_pool2d(x, first, second)
                continue
            weight, bias = getattr(self, f"weight_{index}"), getattr(self, f"bias_{index}")
            x = F.relu(F.conv2d(x, weight, bias, stride=first, padding=second))
            if index + 1 in self.taps:  # torchvision counts each ReLU as a layer of its own
                found.append(x)
        return found


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 (Zhang et al. 2018). `LPIPS.load()` finds the weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, features: ConvFeatures, heads: list[Tensor]):
        super().__init__()
        self.features = features
        for level, head in enumerate(heads):
            self.register_buffer(f"head_{level}", head.float().flatten(), persistent=False)
        self.register_buffer("shift", torch.tensor(_LPIPS_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_LPIPS_SCALE).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, net: str = "vgg", path: Path | None = None) -> LPIPS:
        """From `path`, or from where find_weights finds it. CheckpointError where there is none."""
        path = path or find_weights(net)
        if path is None:
            raise CheckpointError(f"LPIPS weights ({net}) are not here. {how_to_get(net)}")
        weights = load_file(path)
        convolutions = {name.removeprefix("features."): value for name, value in weights.items() if "features" in name}
        heads = [f"lin{level}.model.1.weight" for level in range(len(_TAPS[net]))]
        if missing := [name for name in heads if name not in weights]:
            raise CheckpointError(f"{path.name}: expected the LPIPS heads {missing}, they are not there")
        return cls(ConvFeatures(net, convolutions), [weights[name] for name in heads]).eval()

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N]: one distance per image; 0 for equal images."""
        return self.between(self.look(prediction), self.look(target))

    def look(self, pixels: Tensor) -> list[Tensor]:
        """What is compared of one picture, at each level: nearly all of the arithmetic, for those compared with several
        others."""
        return [_unit_channels(level) for level in self.features((pixels - self.shift) / self.scale)]

    def between(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """[N] of what `look` gives."""
        total = ours[0].new_zeros(ours[0].shape[0])
        for level, pair in enumerate(zip(ours, theirs)):
            difference = (pair[0] - pair[1]).square()
            weighted = torch.einsum("nchw,c->nhw", difference, getattr(self, f"head_{level}"))
            total = total + weighted.mean(dim=(1, 2))
        return total


def _unit_channels(x: Tensor) -> Tensor:
    # 1e-20 below the root: the same as lpips' 1e-10 beside it, but with a finite slope where all channels are zero.
    return x / (x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt()


def l2(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements, both in [-1, 1]."""
    return F.mse_loss(prediction, target)


def gram_loss(features: ConvFeatures, prediction: Tensor, target: Tensor, *, across_items: bool = False) -> Tensor:
    """Distance of Gram matrices of five VGG activations (Difix, style term of the training loss).

    Per level, with F the activations as [d, h w] and G = F F^T: weight * mean((G_target - G_prediction)^2) / (d h w).
    Returns [N], one value per image. across_items: one matrix over all images and channels, as the published
    training computed it (its blocks between different images mean nothing); returns [1].
    """
    mean = prediction.new_tensor(_IMAGENET_MEAN).view(1, 3, 1, 1)
    std = prediction.new_tensor(_IMAGENET_STD).view(1, 3, 1, 1)

    def grams(pixels: Tensor) -> list[tuple[Tensor, int]]:
        found = []
        for activation in features(((pixels + 1) / 2 - mean) / std):
            n, d, h, w = activation.shape
            flat = activation.reshape(1, n * d, h * w) if across_items else activation.reshape(n, d, h * w)
            found.append((flat @ flat.transpose(1, 2), d * h * w))
        return found

    with torch.no_grad():
        wanted = grams(target)
    terms = [
        weight * (theirs - ours).square().mean(dim=(1, 2)) / size
        for weight, (ours, size), (theirs, _) in zip(GRAM_WEIGHTS, grams(prediction), wanted)
    ]
    return torch.stack(terms).sum(dim=0)


def random_crop(
    prediction: Tensor, target: Tensor, *, size_px: int = GRAM_CROP_PX, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """The same random square of both, for the whole batch; the whole side where the image is smaller."""
    height, width = prediction.shape[-2:]
    crop_h, crop_w = min(size_px, height), min(size_px, width)
    top = int(torch.randint(0, height - crop_h + 1, (), generator=generator))
    left = int(torch.randint(0, width - crop_w + 1, (), generator=generator))
    window = (..., slice(top, top + crop_h), slice(left, left + crop_w))
    return prediction[window], target[window]
