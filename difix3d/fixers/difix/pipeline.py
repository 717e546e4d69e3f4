"""Difix in one piece: degraded images and references in, clean images out, in one denoising step.

Notation: B samples of V views each, view 0 the one to fix, views 1.. its references; rows of a flat batch are
sample-major, view-minor (row = b * V + v). x pixels in [-1, 1]; z latents, scaled; eps predicted noise; t timestep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from difix3d.errors import FixerError, ShapeError
from difix3d.fixers.difix import checkpoint as checkpoints
from difix3d.fixers.difix.attention import install_view_attention
from difix3d.fixers.difix.images import to_pil, to_pixels, to_unit, working_size

PROMPT = "remove degradation"
TIMESTEP = 199

Posterior = Literal["mean", "sample"]
References = Image.Image | Sequence[Image.Image | Sequence[Image.Image]] | None


@dataclass(frozen=True)
class Fixed:
    """images: one per input image and of its size: PIL pictures, or [3, H, W] float32 tensors in [0, 1]."""

    images: list[Any]


class DifixPipeline:
    """A loaded checkpoint. source and revision say which; unet and vae are the parts that training changes."""

    def __init__(self, checkpoint: checkpoints.Checkpoint, source: str = "", revision: str | None = None):
        self.checkpoint = checkpoint
        self.source, self.revision = source, revision
        self.unet, self.vae = checkpoint.unet, checkpoint.vae
        self.text_encoder, self.tokenizer = checkpoint.text_encoder, checkpoint.tokenizer
        self._alphas_cumprod: list[float] = checkpoint.scheduler.alphas_cumprod.tolist()
        self._embedded: dict[str, Tensor] = {}
        install_view_attention(self.unet)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        *,
        keep_lora: bool = False,
    ) -> DifixPipeline:
        """From a folder in the published layout, or a Hub id ("nvidia/difix", "nvidia/difix_ref").

        keep_lora: leave the decoder's LoRA apart for training (see difix3d.training.step). Raises CheckpointError.
        """
        folder, commit = checkpoints.locate(source, revision)
        return cls(checkpoints.load(folder, keep_lora=keep_lora), str(source), commit).to(device, dtype)

    def save_pretrained(self, folder: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write a folder that from_pretrained loads; about: what difix3d.json should say of it."""
        checkpoints.save(self.checkpoint, Path(folder), about)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> DifixPipeline:
        """Move all weights; returns self."""
        for module in (self.unet, self.vae, self.text_encoder):
            # Past diffusers' own `to`, which warns of float32 modules even where there are none.
            nn.Module.to(module, device=device, dtype=dtype)
        self._embedded.clear()
        return self

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def __call__(
        self,
        image: Image.Image | Sequence[Image.Image],
        ref_image: References = None,
        *,
        prompt: str = PROMPT,
        timestep: int = TIMESTEP,
        posterior: Posterior = "mean",
        generator: torch.Generator | None = None,
        output_type: Literal["pil", "pt"] = "pil",
    ) -> Fixed:
        """Fix one image or several, each with no, one or several references.

        Pictures of any mode and size; a reference is brought to its image's size. The default posterior repeats
        exactly; "sample" draws from it, as the published pipeline does. A list whose images (and numbers of
        references) agree in size runs as one batch, and needs memory for all of it.
        """
        images = [image] if isinstance(image, Image.Image) else list(image)
        groups = _references_per_image(ref_image, len(images))
        if output_type not in ("pil", "pt"):
            raise FixerError(f"output_type: expected 'pil' or 'pt', got {output_type!r}")
        embeds = self.embed_prompt(prompt)
        fixed: list[Tensor] = []
        with torch.no_grad():
            for batch in _same_shape_runs([self._views(*pair) for pair in zip(images, groups)]):
                y = self.forward(
                    batch, prompt_embeds=embeds, timestep=timestep, posterior=posterior, generator=generator
                )
                fixed.extend(y.cpu())
        finish = to_pil if output_type == "pil" else to_unit
        return Fixed([finish(y, original.size) for y, original in zip(fixed, images)])

    def to_pixels(self, image: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
        """[3, H, W] float32 in [-1, 1]: RGB, Lanczos down to multiples of 8 (or to size: width, height)."""
        return to_pixels(image, size)

    def forward(
        self,
        pixels: Tensor,
        *,
        prompt_embeds: Tensor | None = None,
        timestep: int = TIMESTEP,
        posterior: Posterior = "mean",
        generator: torch.Generator | None = None,
        all_views: bool = False,
    ) -> Tensor:
        """pixels [B, V, 3, H, W] in [-1, 1] -> [B, 3, H, W] of view 0, or [B, V, 3, H, W]. Differentiable, unclamped.

        Without all_views the references' activations are let go before decoding.
        """
        if pixels.ndim != 5 or pixels.shape[2] != 3 or pixels.shape[3] % 8 or pixels.shape[4] % 8:
            raise ShapeError(f"pixels: expected [B, V, 3, H, W] with H and W multiples of 8, got {list(pixels.shape)}")
        samples, views = pixels.shape[:2]
        if prompt_embeds is None:
            prompt_embeds = self.embed_prompt(PROMPT)
        z, skips = self.encode(pixels.flatten(0, 1), posterior=posterior, generator=generator)
        eps = self.predict_noise(z, prompt_embeds, views=views, timestep=timestep)
        z0 = self.predict_clean(z, eps, timestep)
        if all_views:
            return self.decode(z0, skips).unflatten(0, (samples, views))
        if views > 1:  # indexing copies, so that nothing holds on to the references' activations
            first = torch.arange(0, samples * views, views, device=z0.device)
            z0, skips = z0[first], [skip[first] for skip in skips]
        return self.decode(z0, skips)

    def encode(
        self, pixels: Tensor, posterior: Posterior = "mean", generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """pixels [B * V, 3, H, W] -> scaled latents [B * V, 4, H/8, W/8] and the four skip activations.

        posterior="sample" makes one normal draw of the latents' whole shape from `generator`.
        """
        mean, logvar, skips = self.vae.encode(pixels.to(self.device, self.dtype))
        if posterior == "sample":
            noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            mean = mean + torch.exp(0.5 * logvar) * noise
        elif posterior != "mean":
            raise FixerError(f"posterior: expected 'mean' or 'sample', got {posterior!r}")
        return mean * self.vae.scaling_factor, skips

    def predict_noise(self, latents: Tensor, prompt_embeds: Tensor, views: int, timestep: int = TIMESTEP) -> Tensor:
        """eps [B * V, 4, h, w] of view-minor rows; prompt_embeds: [1, 77, C] for all rows, [B, ...] or [B * V, ...]."""
        rows = latents.shape[0]
        if views < 1 or rows % views:
            raise ShapeError(f"latents: expected rows in groups of {views} views, got {rows} rows")
        if rows % prompt_embeds.shape[0]:
            raise ShapeError(f"prompt_embeds: expected 1, {rows // views} or {rows} rows, got {prompt_embeds.shape[0]}")
        embeds = prompt_embeds.to(latents).repeat_interleave(rows // prompt_embeds.shape[0], dim=0)
        return self.unet(latents, timestep, embeds, cross_attention_kwargs={"views": views}, return_dict=False)[0]

    def predict_clean(self, latents: Tensor, eps: Tensor, timestep: int = TIMESTEP) -> Tensor:
        """z0 = (z - sqrt(1 - abar_t) eps) / sqrt(abar_t) (DDPM, Eq. 15): one step to the end, and no noise added."""
        if not 0 <= timestep < len(self._alphas_cumprod):
            raise FixerError(f"timestep: expected 0 to {len(self._alphas_cumprod) - 1}, got {timestep}")
        abar = self._alphas_cumprod[timestep]
        return (latents - (1.0 - abar) ** 0.5 * eps) / abar**0.5

    def decode(self, latents: Tensor, skips: list[Tensor]) -> Tensor:
        """Scaled latents and the skips of the same rows -> pixels [rows, 3, H, W], unclamped."""
        return self.vae.decode(latents / self.vae.scaling_factor, skips)

    def embed_prompt(self, prompt: str) -> Tensor:
        """[1, 77, C]: last hidden state of the text encoder, kept for the next call. Never differentiated."""
        if prompt not in self._embedded:
            ids = self.tokenizer(
                prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
            ).input_ids
            with torch.no_grad():  # padding takes part: the published pipeline passes no attention mask
                self._embedded[prompt] = self.text_encoder(ids.to(self.device)).last_hidden_state
        return self._embedded[prompt]

    def _views(self, image: Image.Image, references: Sequence[Image.Image]) -> Tensor:
        size = working_size(image)
        return torch.stack([to_pixels(picture, size) for picture in (image, *references)])


def _references_per_image(references: References, count: int) -> list[list[Image.Image]]:
    if references is None:
        return [[] for _ in range(count)]
    listed = [references] if isinstance(references, Image.Image) else list(references)
    if len(listed) != count:
        raise FixerError(f"ref_image: expected one entry for each of {count} images, got {len(listed)}")
    return [[entry] if isinstance(entry, Image.Image) else list(entry) for entry in listed]


def _same_shape_runs(views: list[Tensor]) -> list[Tensor]:
    """Consecutive [V, 3, H, W] of one shape, stacked to [B, V, 3, H, W]."""
    runs: list[list[Tensor]] = []
    for item in views:
        if runs and runs[-1][0].shape == item.shape:
            runs[-1].append(item)
        else:
            runs.append([item])
    return [torch.stack(run) for run in runs]
