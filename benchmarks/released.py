"""What the released code computes for one frame, and how, in our own words: the baseline that Difix is timed against.

Eager float32 in torch's default layout; the decoder's LoRA as second layers beside the first; the prompt encoded at
every call; image and reference encoded at every call; the posterior sampled; with a reference, one latent meets the
skips of two views in the decoder, whose upper part so runs twice, and the second picture is thrown away.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difix3d.fixers.difix import checkpoint as checkpoints
from difix3d.fixers.difix.attention import install_view_attention
from difix3d.fixers.difix.pipeline import PROMPT, TIMESTEP
from difix3d.fixers.difix.vae import LORA_ALPHA, LoraWeights


class ReleasedDifix(nn.Module):
    """The networks of a checkpoint folder, called as the released pipeline calls them."""

    def __init__(self, loaded: checkpoints.Checkpoint):
        super().__init__()
        self.unet, self.vae, self.text_encoder = loaded.unet, loaded.vae, loaded.text_encoder
        self.tokenizer = loaded.tokenizer
        self.abar = float(loaded.scheduler.alphas_cumprod[TIMESTEP])
        install_view_attention(self.unet)
        put_lora_beside(self.vae, loaded.lora)

    @classmethod
    def from_pretrained(cls, folder: Path, device: str = "cpu") -> ReleasedDifix:
        return cls(checkpoints.load(folder, keep_lora=True)).to(device)

    @torch.no_grad()
    def forward(self, pixels: Tensor, posterior: str = "sample") -> Tensor:
        """pixels [V, 3, H, W] in [-1, 1], the image and at most one reference -> the fixed image [3, H, W], clamped."""
        views = pixels.shape[0]
        tokens = self.tokenizer(PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        embeds = self.text_encoder(tokens.input_ids.to(pixels.device)).last_hidden_state.expand(views, -1, -1)
        z, logvar, skips = self.vae.encode(pixels)
        if posterior == "sample":
            z = z + torch.exp(0.5 * logvar) * torch.randn_like(z)
        z = z * self.vae.scaling_factor
        eps = self.unet(z, TIMESTEP, embeds, cross_attention_kwargs={"views": views}, return_dict=False)[0]
        z0 = (z - (1 - self.abar) ** 0.5 * eps) / self.abar**0.5
        return self.vae.decode(z0[:1] / self.vae.scaling_factor, skips)[0].clamp(-1, 1)


class LayerWithLora(nn.Module):
    """base(x) + (alpha / rank) B(A(x)): A has the base's kernel and padding, B is 1 x 1. All strides are 1."""

    def __init__(self, base: nn.Conv2d | nn.Linear, a: Tensor, b: Tensor):
        super().__init__()
        self.base, self.a, self.b = base, nn.Parameter(a, requires_grad=False), nn.Parameter(b, requires_grad=False)
        self.scale = LORA_ALPHA / a.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.base, nn.Conv2d):
            low = F.conv2d(F.conv2d(x, self.a, padding=self.base.padding), self.b)
        else:
            low = F.linear(F.linear(x, self.a), self.b)
        return self.base(x) + low * self.scale


def put_lora_beside(vae: nn.Module, lora: LoraWeights) -> None:
    """Replace each adapted layer by itself and its LoRA."""
    for name, (a, b) in lora.items():
        parent, _, child = name.rpartition(".")
        layer = vae.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        vae.get_submodule(parent)._modules[child] = LayerWithLora(layer, a, b)
