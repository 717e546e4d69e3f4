"""One supervised step of Difix's training: what the trained weights are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difix3d.fixers.difix.pipeline import TIMESTEP, DifixPipeline
from difix3d.losses import LPIPS, gram_loss, l2, random_crop
from difix3d.training.dataset import Batch
from difix3d.training.draws import Purpose, generator_of


@dataclass(frozen=True)
class LossWeights:
    """L2 + LPIPS + Gram, the last after step `gram_warmup_steps` (published: 1, 1, 1 and 2000). 0 leaves one out."""

    l2: float = 1.0
    lpips: float = 1.0
    gram: float = 1.0
    gram_warmup_steps: int = 2000


def supervised_loss(
    pipeline: DifixPipeline, batch: Batch, step: int, weights: LossWeights, lpips: LPIPS | None, *, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, mean over its samples times their weights, and the terms it is the sum of.

    Losses look at all views. The posterior is sampled, as published; that noise and the place of the Gram crop are
    drawn for each sample by (seed, number), so that a sample costs the same in whichever batch. The output is clamped
    before the losses, so saturated pixels have no slope. lpips: None leaves LPIPS and Gram out (both look through
    its VGG).
    """
    prediction = predict(pipeline, batch, seed)
    with torch.autocast(prediction.device.type, enabled=False):  # Gram sums leave half precision's range
        terms = {"l2": weights.l2 * torch.stack([l2(*pair) for pair in zip(prediction, batch.target)])}
        if lpips is not None and weights.lpips:
            distances = lpips(prediction.flatten(0, 1), batch.target.flatten(0, 1))
            terms["lpips"] = weights.lpips * distances.unflatten(0, (-1, prediction.shape[1])).mean(1)
        if lpips is not None and weights.gram and step > weights.gram_warmup_steps:
            terms["gram"] = weights.gram * _gram(lpips, prediction, batch, seed)
        means = {name: (batch.weights * term).mean() for name, term in terms.items()}
    return torch.stack(list(means.values())).sum(), means


def predict(pipeline: DifixPipeline, batch: Batch, seed: int) -> Tensor:
    """[B, V, 3, H, W] in [-1, 1], float32: all views, the posterior sampled by each sample's number."""
    views = batch.pixels.shape[1]
    with torch.autocast(batch.pixels.device.type, enabled=False):  # the text encoder is frozen, and stays exact
        embeds = torch.cat([pipeline.embed_prompt(prompt) for prompt in batch.prompts])
    # One for each row, of which those of a sample are the same one, drawing on: diffusers' randn_tensor takes a list.
    noise: Any = [
        generator for number in batch.numbers for generator in [generator_of(seed, Purpose.POSTERIOR, number)] * views
    ]
    predicted = pipeline.forward(
        batch.pixels, prompt_embeds=embeds, timestep=TIMESTEP, posterior="sample", generator=noise, all_views=True
    )
    return predicted.float().clamp(-1.0, 1.0)


def _gram(lpips: LPIPS, prediction: Tensor, batch: Batch, seed: int) -> Tensor:
    """[B]; each sample at a place of its own, its views at the same one."""
    pairs = [
        random_crop(ours, theirs, generator=generator_of(seed, Purpose.GRAM_CROP, number))
        for ours, theirs, number in zip(prediction, batch.target, batch.numbers)
    ]
    ours, theirs = (torch.cat(crops) for crops in zip(*pairs))
    return gram_loss(lpips.features, ours, theirs).unflatten(0, (prediction.shape[0], -1)).mean(1)
