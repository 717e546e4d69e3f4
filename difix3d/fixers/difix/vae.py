"""Difix's autoencoder: diffusers' AutoencoderKL blocks, with encoder activations carried over to the decoder.

Notation: pixels x [N, 3, H, W] in [-1, 1]; latents z [N, 4, H/8, W/8], not scaled; skips a_0..a_3, the encoder's
activations before its four down blocks (a_0 at full size). Nothing here mixes the N images, and skips are values that
go in and out: an activation of another image can never be left over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn.utils import parametrize

LORA_ALPHA = 8.0
"""What peft takes where a training names none, as Difix's did: W + (8 / rank) B A, so 2.0 for its rank of 4."""

SKIP_CONVS = ("skip_conv_1", "skip_conv_2", "skip_conv_3", "skip_conv_4")
"""Names inside the decoder, coarsest first."""

LoraWeights = dict[str, tuple[Tensor, Tensor]]
"""Module name -> (A [r, in, k, k] or [r, in], B [out, r, 1, 1] or [out, r])."""


class DifixVAE(nn.Module):
    """encode gives the posterior and the skips; decode takes latents and skips.

    config: vae/config.json. State-dict keys are those of a published checkpoint with its LoRA merged.
    """

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        known = {name: value for name, value in config.items() if name in AutoencoderKL._get_init_keys(AutoencoderKL)}
        stock: Any = AutoencoderKL(**known)
        self.encoder, self.quant_conv = stock.encoder, stock.quant_conv
        self.decoder, self.post_quant_conv = stock.decoder, stock.post_quant_conv
        self.config = dict(config)
        self.scaling_factor: float = stock.config.scaling_factor
        self.latent_channels: int = stock.config.latent_channels
        self.gamma: float = config.get("gamma", 1.0)
        self.ignore_skip: bool = config.get("ignore_skip", False)
        c0, c1, c2, c3 = config["block_out_channels"]
        for name, (inner, outer) in zip(SKIP_CONVS, ((c2, c3), (c1, c3), (c0, c2), (c0, c1))):
            # The first takes a_3, which is the input of the last down block and so has c2 channels.
            self.decoder.add_module(name, nn.Conv2d(inner, outer, 1, bias=False))

    @property
    def skip_convs(self) -> list[nn.Conv2d]:
        """skip_conv_1 (coarsest) to skip_conv_4."""
        return [self.decoder.get_submodule(name) for name in SKIP_CONVS]  # type: ignore[misc]

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Posterior mean and log-variance [N, 4, H/8, W/8] (unscaled), and skips a_0..a_3."""
        skips = []
        h = self.encoder.conv_in(pixels)
        for block in self.encoder.down_blocks:
            skips.append(h)
            h = block(h)
        h = self.encoder.mid_block(h)
        h = self.encoder.conv_out(self.encoder.conv_act(self.encoder.conv_norm_out(h)))
        mean, logvar = self.quant_conv(h).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0), skips

    def decode(self, latents: Tensor, skips: list[Tensor]) -> Tensor:
        """[N, 3, H, W], not clamped. skips: a_0..a_3 of the same N images; an empty list leaves them out."""
        decoder = self.decoder
        h = decoder.mid_block(decoder.conv_in(self.post_quant_conv(latents)))
        use_skips = bool(skips) and not self.ignore_skip
        for number, block in enumerate(decoder.up_blocks):
            if use_skips:
                h = h + self.skip_convs[number](self.gamma * skips[-1 - number])
            h = block(h)
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(h)))


class _LowRankUpdate(nn.Module):
    """weight -> weight + (alpha / rank) B A, of a convolution or a linear layer."""

    def __init__(self, a: Tensor, b: Tensor):
        super().__init__()
        self.a, self.b = nn.Parameter(a.clone()), nn.Parameter(b.clone())

    def forward(self, weight: Tensor) -> Tensor:
        return weight + low_rank_update(self.a, self.b).view_as(weight)


def low_rank_update(a: Tensor, b: Tensor) -> Tensor:
    """[out, in * k * k]: (alpha / rank) B A, in the factors' own precision."""
    return (LORA_ALPHA / a.shape[0]) * (b.flatten(1) @ a.flatten(1))


def lora_targets(vae: DifixVAE) -> list[str]:
    """Names of the modules that Difix adapts: every convolution and linear layer of the decoder."""
    return [
        f"decoder.{name}" for name, module in vae.decoder.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]


def new_lora(module: nn.Module, names: Iterable[str], rank: int, generator: torch.Generator) -> LoraWeights:
    """Factors for these layers of `module` that change nothing yet, as published training began: A normal with
    deviation 1 / rank, B zero."""
    factors = {}
    for name in names:
        weight = _weight(module.get_submodule(name))
        a = torch.randn(rank, *weight.shape[1:], generator=generator) / rank
        factors[name] = (a, torch.zeros(weight.shape[0], rank, *(1 for _ in weight.shape[2:])))
    return factors


def attach_lora(module: nn.Module, weights: LoraWeights) -> list[nn.Parameter]:
    """Put low-rank updates on layers of `module`, for training; returns their parameters.

    weights: factors on top of base weights that lack them. The update joins the weight before the layer runs, which
    costs one small product per layer where separate adapters would cost a second convolution.
    """
    parameters: list[nn.Parameter] = []
    for name, factors in weights.items():
        layer = module.get_submodule(name)
        update = _LowRankUpdate(*(factor.to(_weight(layer)) for factor in factors))
        parametrize.register_parametrization(layer, "weight", update)
        parameters.extend(update.parameters())
    return parameters


def merge_lora(module: nn.Module) -> None:
    """Fold attached updates into the weights; state-dict keys are then plain again."""
    for part in list(module.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
