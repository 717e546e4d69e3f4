"""Difix in one piece: degraded images and references in, clean images out, in one denoising step.

Notation: B samples of V views each, view 0 the one to fix, views 1.. its references; rows of a flat batch are
sample-major, view-minor (row = b * V + v). x pixels in [-1, 1]; z latents, scaled; eps predicted noise; t timestep.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from difix3d.errors import CheckpointError, FixerError, ShapeError
from difix3d.fixers.difix import checkpoint as checkpoints
from difix3d.fixers.difix import memory
from difix3d.fixers.difix.attention import install_view_attention
from difix3d.fixers.difix.images import checked_size, to_pil, to_pixels, to_unit, working_size
from difix3d.fixers.difix.precision import exact_float32
from difix3d.kept import Kept

log = logging.getLogger(__name__)

PROMPT = "remove degradation"
TIMESTEP = 199
_PROMPT_TOKENS = 77
_KEPT_PROMPTS = 16
_KEPT_REFERENCES = 64
"""Encodings of 0.3 MB each at 1024 x 576 in half precision."""

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
        self._prompts: Kept[Tensor] = Kept(_KEPT_PROMPTS)
        self._references: Kept[Tensor] = Kept(_KEPT_REFERENCES)
        install_view_attention(self.unet)
        self._run_unet: Callable[..., Any] = self.unet
        self._run_encoder: Callable[..., Any] = self.vae.encode
        self._run_decoder: Callable[..., Any] = self.vae.decode
        self._compiled: set[tuple] | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        *,
        keep_lora: bool = False,
        base: str | Path = "stabilityai/sd-turbo",
        references: int | None = None,
    ) -> DifixPipeline:
        """From a folder in the published layout, or a Hub id ("nvidia/difix", "nvidia/difix_ref").

        keep_lora: leave the decoder's LoRA apart for training (see difix3d.training.step); plain Stable Diffusion is
        taken then too. source may be the published training's model_N.pkl: base names what it was trained from,
        which has the parts that it lacks, and references with how many photos beside the render: neither is in it.
        Raises CheckpointError.
        """
        trained = Path(source) if str(source).endswith(".pkl") and Path(source).is_file() else None
        if trained is not None and references is None:
            raise CheckpointError(
                f"{trained.name} does not say with how many reference photos it was trained. Make a checkpoint of it "
                f'that does: DifixPipeline.from_pretrained("{trained}", references=1).save_pretrained(FOLDER), or '
                "references=0 where it was trained without (the published training without --mv_unet)."
            )
        folder, commit = checkpoints.locate(source if trained is None else base, revision)
        loaded = checkpoints.load(folder, keep_lora=keep_lora, trained=trained, references=references)
        return cls(loaded, str(source), commit).to(device, dtype)

    def save_pretrained(self, folder: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write a folder that from_pretrained loads; about: what difix3d.json should say of it."""
        checkpoints.save(self.checkpoint, Path(folder), about)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> DifixPipeline:
        """Move all weights; returns self. In half precision convolutions keep channels last, their faster layout."""
        layout = torch.contiguous_format if (dtype or self.dtype) == torch.float32 else torch.channels_last
        # Past diffusers' own `to`, which warns of float32 modules even where there are none.
        nn.Module.to(self.text_encoder, device=device, dtype=dtype)
        for module in (self.unet, self.vae):
            nn.Module.to(module, device=device, dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
        self._prompts.clear()
        self._references.clear()
        return self

    def compile(self) -> DifixPipeline:
        """Let torch.compile fuse U-Net and autoencoder; returns self. Pays for many frames of one size only.

        The first call at each size, number of views and of frames then compiles for minutes, which the log says.
        """
        self._run_unet = torch.compile(self.unet, dynamic=False)
        self._run_encoder = torch.compile(self.vae.encode, dynamic=False)
        self._run_decoder = torch.compile(self.vae.decode, dynamic=False)
        self._compiled = set()
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
        size: tuple[int, int] | None = None,
        output_type: Literal["pil", "pt"] = "pil",
    ) -> Fixed:
        """Fix one image or several, each with no, one or several references.

        Pictures of any mode and size: a reference is brought to its image's size, and a result comes back at its
        image's own size, so that its camera's intrinsics still hold. The published weights were trained with one
        reference; more are looked at in the same way. The default posterior repeats exactly; "sample" draws from it,
        as the published pipeline does. size: (width, height), multiples of 8, to work at instead of the image's own
        (the published training used 1024 x 576).

        Images of one size and number of references share a batch as far as memory allows. FixerError says what
        cannot be fixed, and for a frame that does not fit into memory which size would.
        """
        images: list[Image.Image] = list(image) if isinstance(image, list | tuple) else [image]  # type: ignore[list-item]
        groups = _references_per_image(ref_image, len(images))
        if output_type not in ("pil", "pt"):
            raise FixerError(f"output_type: expected 'pil' or 'pt', got {output_type!r}")
        if posterior not in ("mean", "sample"):
            raise FixerError(f"posterior: expected 'mean' or 'sample', got {posterior!r}")
        sizes = [working_size(picture) if size is None else checked_size(size) for picture in images]
        embeds = self.embed_prompt(prompt)
        fixed: list[Tensor] = []
        with torch.no_grad(), exact_float32(self.device, self.dtype):
            for (size, views), run in _runs([(size, 1 + len(refs)) for size, refs in zip(sizes, groups)]):
                at_once = self._frames_at_once(size, views)
                noise = self._draw(len(run) * views, size, generator) if posterior == "sample" else None
                for first in range(0, len(run), at_once):
                    chosen = run[first : first + at_once]
                    drawn = None if noise is None else noise[first * views :][: len(chosen) * views]
                    y = self._fix([(images[i], groups[i]) for i in chosen], size, embeds, timestep, drawn)
                    fixed.extend(y.float().cpu())
        if not all(bool(torch.isfinite(y).all()) for y in fixed):
            raise FixerError(
                f"The model's result is no picture: it holds numbers that are none. In {self.dtype} numbers may have "
                f"grown too large: load it in float32. If it happens there too, the checkpoint's weights are damaged."
            )
        finish = to_pil if output_type == "pil" else to_unit
        return Fixed([finish(y, original.size) for y, original in zip(fixed, images)])

    def _fix(
        self,
        samples: Sequence[tuple[Image.Image, Sequence[Image.Image]]],
        size: tuple[int, int],
        prompt_embeds: Tensor,
        timestep: int,
        noise: Tensor | None,
    ) -> Tensor:
        """[B, 3, H, W] of B images of one size and number of references, whose encodings are kept for later calls."""
        pixels = torch.stack([to_pixels(image, size) for image, _ in samples])
        self._announce_compiling(len(samples), 1 + len(samples[0][1]), size)
        mean, logvar, skips = self._run_encoder(pixels.to(self.device, self.dtype))
        moments = torch.stack([mean, logvar], dim=1)[:, None]  # [B, 1, 2, 4, h, w]
        if samples[0][1]:
            of_references = [[self._reference(reference, size) for reference in refs] for _, refs in samples]
            moments = torch.cat([moments, torch.stack([torch.stack(row) for row in of_references])], dim=1)
        views = moments.shape[1]
        mean, logvar = moments.flatten(0, 1).unbind(1)
        z = self._latents(mean, logvar, noise)
        eps = self.predict_noise(z, prompt_embeds, views=views, timestep=timestep)
        return self.decode(self.predict_clean(z[::views], eps[::views], timestep), skips)

    def _reference(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """[2, 4, h, w]: posterior mean and log-variance. A capture's photo is the reference of many frames."""
        pixels = to_pixels(image, size)
        key = f"{size} {hashlib.blake2b(pixels.numpy().tobytes()).hexdigest()}"
        return self._references.get(key, lambda: self._encode_one(pixels))

    def _encode_one(self, pixels: Tensor) -> Tensor:
        mean, logvar, _ = self._run_encoder(pixels[None].to(self.device, self.dtype))
        return torch.cat([mean, logvar])

    def _announce_compiling(self, frames: int, views: int, size: tuple[int, int]) -> None:
        shape = (frames, views, size)
        if self._compiled is not None and shape not in self._compiled:
            log.warning("compiling for %d frame(s) of %dx%d with %d view(s): some minutes", frames, *size, views)
            self._compiled.add(shape)

    def _frames_at_once(self, size: tuple[int, int], views: int) -> int:
        width, height = size
        channels = self.vae.config["block_out_channels"][0]
        found = memory.plan(
            width, height, views=views, channels=channels, itemsize=self.dtype.itemsize, device=self.device
        )
        return memory.require_fit(found, width, height, self.device)

    def _draw(self, rows: int, size: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        """The posterior's normal draw of a whole batch, as one: it must not depend on how many fit into memory."""
        shape = (rows, self.vae.latent_channels, size[1] // 8, size[0] // 8)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)

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

        V is any number; the published weights were trained with 1 (difix) and 2 (difix_ref). Without all_views the
        references' activations are let go before decoding.
        """
        if pixels.ndim != 5 or pixels.shape[2] != 3 or pixels.shape[3] % 8 or pixels.shape[4] % 8:
            raise ShapeError(f"pixels: expected [B, V, 3, H, W] with H and W multiples of 8, got {list(pixels.shape)}")
        if not torch.isfinite(pixels).all():
            raise FixerError("pixels: expected numbers in [-1, 1], found some that are no number or infinite")
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
        if posterior not in ("mean", "sample"):
            raise FixerError(f"posterior: expected 'mean' or 'sample', got {posterior!r}")
        mean, logvar, skips = self._run_encoder(pixels.to(self.device, self.dtype))
        noise = None
        if posterior == "sample":
            noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self._latents(mean, logvar, noise), skips

    def _latents(self, mean: Tensor, logvar: Tensor, noise: Tensor | None) -> Tensor:
        """Scaled latents: the posterior's mean, or a draw from it."""
        if noise is not None:
            mean = mean + torch.exp(0.5 * logvar) * noise
        return mean * self.vae.scaling_factor

    def predict_noise(self, latents: Tensor, prompt_embeds: Tensor, views: int, timestep: int = TIMESTEP) -> Tensor:
        """eps [B * V, 4, h, w] of view-minor rows; prompt_embeds: [1, 77, C] for all rows, [B, ...] or [B * V, ...]."""
        rows = latents.shape[0]
        if views < 1 or rows % views:
            raise ShapeError(f"latents: expected rows in groups of {views} views, got {rows} rows")
        if rows % prompt_embeds.shape[0]:
            raise ShapeError(f"prompt_embeds: expected 1, {rows // views} or {rows} rows, got {prompt_embeds.shape[0]}")
        embeds = prompt_embeds.to(latents).repeat_interleave(rows // prompt_embeds.shape[0], dim=0)
        return self._run_unet(latents, timestep, embeds, cross_attention_kwargs={"views": views}, return_dict=False)[0]

    def predict_clean(self, latents: Tensor, eps: Tensor, timestep: int = TIMESTEP) -> Tensor:
        """z0 = (z - sqrt(1 - abar_t) eps) / sqrt(abar_t) (DDPM, Eq. 15): one step to the end, and no noise added."""
        if not 0 <= timestep < len(self._alphas_cumprod):
            raise FixerError(f"timestep: expected 0 to {len(self._alphas_cumprod) - 1}, got {timestep}")
        abar = self._alphas_cumprod[timestep]
        return (latents - (1.0 - abar) ** 0.5 * eps) / abar**0.5

    def decode(self, latents: Tensor, skips: list[Tensor]) -> Tensor:
        """Scaled latents and the skips of the same rows -> pixels [rows, 3, H, W], unclamped."""
        return self._run_decoder(latents / self.vae.scaling_factor, skips)

    def embed_prompt(self, prompt: str) -> Tensor:
        """[1, 77, C]: last hidden state of the text encoder, kept for the next call. Never differentiated.

        A prompt longer than the encoder's 77 tokens is cut there, with a warning in the log.
        """
        return self._prompts.get(prompt, lambda: self._encode_prompt(prompt))

    def _encode_prompt(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(prompt, truncation=False).input_ids
        if len(tokens) > _PROMPT_TOKENS:
            log.warning("prompt: %d tokens, of which only the first %d count", len(tokens), _PROMPT_TOKENS)
        ids = self.tokenizer(
            prompt, padding="max_length", max_length=_PROMPT_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():  # padding takes part: the published pipeline passes no attention mask
            return self.text_encoder(ids.to(self.device)).last_hidden_state


def _references_per_image(references: References, count: int) -> list[list[Image.Image]]:
    if references is None:
        return [[] for _ in range(count)]
    listed = [references] if isinstance(references, Image.Image) else list(references)
    if len(listed) != count:
        raise FixerError(f"ref_image: expected one entry for each of {count} images, got {len(listed)}")
    return [[entry] if isinstance(entry, Image.Image) else list(entry) for entry in listed]


def _runs(keys: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """(key, indices) of consecutive entries with equal keys."""
    return [(key, [i for i, _ in run]) for key, run in groupby(enumerate(keys), key=lambda entry: entry[1])]
