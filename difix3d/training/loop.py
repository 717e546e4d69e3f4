"""The training loop: AdamW as published, on one device or several (accelerate), one step at a time for the caller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from difix3d.errors import FixerError
from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.losses import LPIPS
from difix3d.training.pairs import Batch, PairsDataset, forever
from difix3d.training.step import LossWeights, make_trainable, supervised_loss


@dataclass(frozen=True)
class LoopSettings:
    """Optimiser values as published (README of nv-tlabs/Difix3D): AdamW, constant rate, gradients cut to norm 1."""

    steps: int
    batch_size: int = 1
    learning_rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    gradient_norm: float = 1.0
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0


@dataclass(frozen=True)
class StepResult:
    """step counts from 1; terms: the parts of loss, each times its weight."""

    step: int
    loss: float
    terms: dict[str, float]


class _Core(nn.Module):
    """What accelerate wraps: its forward is a whole loss, so that the gradients of several devices are averaged."""

    def __init__(self, pipeline: DifixPipeline, settings: LoopSettings, lpips: LPIPS | None):
        super().__init__()
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self._pipeline = [pipeline]  # in a list: it is no module, and must not be copied as a parameter would
        self._lpips = [lpips]
        self.settings = settings

    def forward(self, batch: Batch, step: int, generator: torch.Generator):
        return supervised_loss(
            self._pipeline[0], batch, step, self.settings.weights, self._lpips[0], generator=generator
        )


def train(
    pipeline: DifixPipeline, dataset: PairsDataset, settings: LoopSettings, lpips: LPIPS | None = None
) -> Iterator[StepResult]:
    """Train `pipeline` in place; yields after every step, and may be closed between two.

    Weights stay float32; on CUDA the arithmetic is bfloat16. The same seed repeats on the same machine. Raises
    FixerError when the loss is no number any more.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    set_seed(settings.seed)
    parameters = make_trainable(pipeline.to(accelerator.device, torch.float32))
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )
    core, optimizer = accelerator.prepare(_Core(pipeline, settings, lpips), optimizer)
    if lpips is not None:
        lpips.to(accelerator.device)
    own_seed = settings.seed + accelerator.process_index
    generator = torch.Generator().manual_seed(own_seed)
    batches = forever(dataset, settings.batch_size, own_seed)

    for step in range(1, settings.steps + 1):
        loss, terms = core(next(batches).to(accelerator.device), step, generator)
        if not torch.isfinite(loss):
            raise FixerError(f"The loss is {float(loss)} at step {step}: try a smaller learning rate")
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, settings.gradient_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield StepResult(step, float(loss.detach()), terms)
