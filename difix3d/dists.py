"""DISTS: a distance of structure and texture through VGG-16 (Ding et al. 2020, eqs. 1-7). Torch only.

Notation: x, y pictures; x_j, y_j the maps of one channel j of the picture itself (stage 0) or of VGG's five stages;
l: how alike two maps' means are, s: how alike their variations are, both over the whole map, so that grass elsewhere
is grass.  D = 1 - sum_j (alpha_j l_j + beta_j s_j), alpha and beta learned, together 1.

VGG's weights are those of LPIPS, alpha and beta the authors' (MIT; their package dists-pytorch holds them; its code
needs torchvision, so only the numbers are taken). Neither is part of this project: difix3d.perceptual_weights says
where they are looked for.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from difix3d.errors import CheckpointError
from difix3d.losses import ConvFeatures
from difix3d.perceptual_weights import find_weights, how_to_get

_CHANNELS = (3, 64, 128, 256, 512, 512)
_C1, _C2 = 1e-6, 1e-6
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class DISTS(nn.Module):
    """Called with two pictures [N, 3, H, W] in [-1, 1], sides of 16 and more, gives [N]: 0 for equal pictures."""

    alpha: Tensor
    beta: Tensor

    def __init__(self, features: DISTSFeatures, alpha: Tensor, beta: Tensor):
        super().__init__()
        if alpha.numel() != sum(_CHANNELS) or beta.numel() != sum(_CHANNELS):
            raise CheckpointError(
                f"DISTS: expected {sum(_CHANNELS)} values each of alpha and beta, got {alpha.numel()}, {beta.numel()}"
            )
        self.features = features
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", (alpha / total).float().flatten(), persistent=False)
        self.register_buffer("beta", (beta / total).float().flatten(), persistent=False)

    @classmethod
    def load(cls, vgg: Path | None = None, alpha_beta: Path | None = None) -> DISTS:
        """From these files, or from where find_weights finds them. CheckpointError where one is missing or no such."""
        paths = {"vgg": vgg or find_weights("vgg"), "dists": alpha_beta or find_weights("dists")}
        for net, path in paths.items():
            if path is None:
                raise CheckpointError(f"DISTS needs weights that are not here ({net}). {how_to_get(net)}")
        assert paths["vgg"] and paths["dists"]
        weights = {
            name.removeprefix("features."): value
            for name, value in load_file(paths["vgg"]).items()
            if name.startswith("features.")
        }
        learned = torch.load(paths["dists"], map_location="cpu", weights_only=True)
        if not isinstance(learned, dict) or not {"alpha", "beta"} <= set(learned):
            raise CheckpointError(f"{paths['dists'].name}: expected the tensors alpha and beta of DISTS")
        return cls(DISTSFeatures("vgg", weights), learned["alpha"], learned["beta"]).eval()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        similarity = x.new_zeros(x.shape[0])
        start = 0
        for x_stage, y_stage in zip(self.features.stages(x), self.features.stages(y)):
            end = start + x_stage.shape[1]
            l_j, s_j = _alike(x_stage, y_stage)
            similarity = similarity + l_j @ self.alpha[start:end] + s_j @ self.beta[start:end]
            start = end
        return 1 - similarity


class DISTSFeatures(ConvFeatures):
    """VGG-16 whose pooling does not alias: root of the Hann-weighted mean of squares (Ding et al. 2020, eq. 2)."""

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """The picture in [0, 1] itself, and the five stages' activations."""
        unit = (pixels + 1) / 2
        mean = unit.new_tensor(_IMAGENET_MEAN).view(1, 3, 1, 1)
        std = unit.new_tensor(_IMAGENET_STD).view(1, 3, 1, 1)
        return [unit, *self((unit - mean) / std)]

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, kind, stride, padding in self.layers:
            if kind == "pool":
                x = _l2_pool(x)
                continue
            weight, bias = getattr(self, f"weight_{index}"), getattr(self, f"bias_{index}")
            x = F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))
            if index + 1 in self.taps:
                found.append(x)
        return found


def _l2_pool(x: Tensor) -> Tensor:
    channels = x.shape[1]
    hann = x.new_tensor([0.5, 1.0, 0.5])
    window = torch.outer(hann, hann)
    window = (window / window.sum()).expand(channels, 1, 3, 3)
    return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(l, s), each [N, C]."""
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    variance_x = (x - mean_x[..., None, None]).square().mean((2, 3))
    variance_y = (y - mean_y[..., None, None]).square().mean((2, 3))
    covariance = (x * y).mean((2, 3)) - mean_x * mean_y
    l_j = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    s_j = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return l_j, s_j
