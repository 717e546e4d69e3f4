"""One supervised step of Difix's training: which weights move, and what they are asked for.

Trained, as published: the whole U-Net; low-rank updates (LoRA, rank 4) of the decoder; the base weights of its four
skip convolutions. Frozen: encoder, quant convolutions, the decoder's own weights, text encoder. The decoder's LoRA
goes on from the checkpoint's where it is kept apart, and starts anew on merged weights; saving merges it either way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from difix3d.fixers.difix.pipeline import TIMESTEP, DifixPipeline
from difix3d.fixers.difix.vae import attach_lora
from difix3d.losses import LPIPS, gram_loss, l2, random_crop
from difix3d.training.pairs import Batch


@dataclass(frozen=True)
class LossWeights:
    """L2 + LPIPS + Gram, the last after step `gram_warmup_steps` (published: 1, 1, 1 and 2000)."""

    l2: float = 1.0
    lpips: float = 1.0
    gram: float = 1.0
    gram_warmup_steps: int = 2000


def make_trainable(pipeline: DifixPipeline) -> list[nn.Parameter]:
    """Attach the decoder's LoRA and free what is trained; returns those parameters, each once.

    The pipeline must come from `from_pretrained(..., keep_lora=True)`, in float32: AdamW loses small updates in less.
    """
    lora = pipeline.checkpoint.lora
    parameters = attach_lora(pipeline.vae, lora or None)
    parameters += [_base_weight(conv) for conv in pipeline.vae.skip_convs]
    parameters += list(pipeline.unet.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _base_weight(layer: nn.Module) -> nn.Parameter:
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations.weight.original  # type: ignore[union-attr, return-value]
    return layer.weight  # type: ignore[return-value]


def supervised_loss(
    pipeline: DifixPipeline,
    batch: Batch,
    step: int,
    weights: LossWeights,
    lpips: LPIPS | None,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch over all its views, and its terms.

    The posterior is sampled, as published. The output is clamped before the losses, so saturated pixels have no
    slope. lpips: None leaves LPIPS and Gram out (both look through its VGG).
    """
    embeds = torch.cat([pipeline.embed_prompt(prompt) for prompt in batch.prompts])
    predicted = pipeline.forward(
        batch.pixels,
        prompt_embeds=embeds,
        timestep=TIMESTEP,
        posterior="sample",
        generator=generator,
        all_views=True,
    )
    prediction, target = predicted.float().clamp(-1.0, 1.0).flatten(0, 1), batch.target.flatten(0, 1)
    with torch.autocast(prediction.device.type, enabled=False):  # Gram sums leave half precision's range
        terms = {"l2": weights.l2 * l2(prediction, target)}
        if lpips is not None:
            terms["lpips"] = weights.lpips * lpips(prediction, target).mean()
            if step > weights.gram_warmup_steps and weights.gram:
                crops = random_crop(prediction, target, generator=generator)
                terms["gram"] = weights.gram * gram_loss(lpips.features, *crops).mean()
    total = torch.stack(list(terms.values())).sum()
    return total, {name: float(term.detach()) for name, term in terms.items()}
