"""The training loop: AdamW as published, on one device or several (accelerate), one step at a time for the caller.

Nothing here draws from a random state that goes on: what a step sees follows from its number (order.py, draws.py).
So weights, AdamW's moments and the step are all of a run's state, and P processes with batches of B that are
accumulated A times compute the step that one process computes with a batch of P * B * A, but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from difix3d.errors import CheckpointError, FixerError
from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.losses import LPIPS
from difix3d.training.dataset import Batch, PairsDataset, collate
from difix3d.training.order import Share, step_draws
from difix3d.training.preference import PreferenceWeights, preference_loss
from difix3d.training.step import LossWeights, predict, supervised_loss
from difix3d.training.trainable import checkpoint_activations, make_trainable

if TYPE_CHECKING:
    from accelerate import Accelerator

_LOADER_WORKERS = 2
"""Processes that decode pictures while a GPU computes. A CPU that trains has no core to spare for them."""


@dataclass(frozen=True)
class LoopSettings:
    """Optimiser values as published (README of nv-tlabs/Difix3D): AdamW, constant rate, gradients cut to norm 1.

    batch_size: pairs of one process at once; accumulation: batches of one step; warmup_steps: over which the rate
    rises linearly; unet_rank: see make_trainable; ema_decay: of a moving average of the weights, 0 for none.
    """

    steps: int
    batch_size: int = 1
    accumulation: int = 1
    learning_rate: float = 2e-5
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    gradient_norm: float = 1.0
    weights: LossWeights = field(default_factory=LossWeights)
    preference: PreferenceWeights = field(default_factory=PreferenceWeights)
    unet_rank: int = 0
    ema_decay: float = 0.0
    gradient_checkpointing: bool = False
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of this step, counted from 1."""
        return self.learning_rate * min(1.0, step / max(1, self.warmup_steps))


@dataclass(frozen=True)
class StepResult:
    """step counts from 1; terms: the parts of loss, each times its weight; gradient_norm: before it is cut. Means
    over all samples of the step, on all processes. A step learns from targets or from comparisons, never both."""

    step: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    gradient_norm: float


class _Core(nn.Module):
    """What accelerate wraps: its forward is a whole loss, so that the gradients of several devices are averaged."""

    def __init__(self, pipeline: DifixPipeline, settings: LoopSettings, lpips: LPIPS | None):
        super().__init__()
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self._frozen = (pipeline, lpips)  # in a tuple, so that they are none of its modules
        self.settings = settings

    def forward(self, batch: Batch, step: int, start: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        pipeline, lpips = self._frozen
        if start is not None:
            prediction = predict(pipeline, batch, self.settings.seed)[:, 0]
            with torch.autocast(prediction.device.type, enabled=False):
                return preference_loss(prediction, start, batch, self.settings.preference, lpips)
        return supervised_loss(pipeline, batch, step, self.settings.weights, lpips, seed=self.settings.seed)


class Trainer:
    """Trains `pipeline` in place. Weights stay float32; accelerator's mixed precision is that of the arithmetic.

    step: how many are done. `tensors` and `load` are the whole state beside it.
    """

    def __init__(
        self,
        pipeline: DifixPipeline,
        dataset: PairsDataset,
        settings: LoopSettings,
        accelerator: Accelerator,
        lpips: LPIPS | None = None,
    ):
        self.pipeline, self.settings, self.accelerator, self.step = pipeline, settings, accelerator, 0
        self._dataset = dataset
        make_trainable(pipeline.to(accelerator.device, torch.float32), unet_rank=settings.unet_rank, seed=settings.seed)
        if settings.gradient_checkpointing:
            checkpoint_activations(pipeline)
        if lpips is not None:
            lpips.to(accelerator.device)
        core = _Core(pipeline, settings, lpips)
        named = {name: parameter for name, parameter in core.named_parameters() if parameter.requires_grad}
        self._names, self._parameters = tuple(named), list(named.values())
        self._adam = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )
        self._average = None
        if settings.ema_decay:
            from diffusers.training_utils import EMAModel

            self._average = EMAModel(self._parameters, decay=settings.ema_decay)
        # Comparisons are learned beside what the model made of the frame before training.
        compares = any(pair.worse_image is not None for pair in dataset.pairs)
        self._start = [parameter.detach().clone() for parameter in self._parameters] if compares else []
        self._core, self._optimizer = accelerator.prepare(core, self._adam)

    @property
    def share(self) -> Share:
        """What this process does of each step."""
        run = self.accelerator
        return Share(self.settings.batch_size, self.settings.accumulation, run.process_index, run.num_processes)

    def run(self) -> Iterator[StepResult]:
        """From the step after `step` to the last; may be closed between two.

        Raises FixerError, in all processes, when loss or gradient is no number any more; the weights are then those
        of the step before.
        """
        steps = step_draws(
            [self._dataset.bucket(row) for row in range(len(self._dataset))], self.share.step_size, self.settings.seed
        )
        on_gpu = self.accelerator.device.type == "cuda"
        batches = iter(
            DataLoader(
                self._dataset,
                batch_sampler=self.share.batches(steps, self.step),  # type: ignore[arg-type]
                collate_fn=collate,
                num_workers=_LOADER_WORKERS if on_gpu else 0,
                generator=torch.Generator(),  # unused, but without one it draws from the global one
            )
        )
        while self.step < self.settings.steps:
            yield self._advance(batches)

    def _advance(self, batches: Iterator[Batch]) -> StepResult:
        step, accumulation = self.step + 1, self.settings.accumulation
        totals: dict[str, Tensor] = {}
        for left in reversed(range(accumulation)):
            batch = next(batches).to(self.accelerator.device)
            with self.accelerator.no_sync(self._core) if left else nullcontext():
                start = None if batch.worse is None else self._at_start(batch)
                loss, terms = self._core(batch, step, start)
                self.accelerator.backward(loss / accumulation)
            for name, value in {"loss": loss, **terms}.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / accumulation
        means = self.accelerator.reduce(torch.stack(list(totals.values())), "mean").tolist()
        figures = dict(zip(totals, means))
        gradient_norm = float(self.accelerator.clip_grad_norm_(self._parameters, self.settings.gradient_norm))
        for name, value in (("loss", figures["loss"]), ("gradient's norm", gradient_norm)):
            if not math.isfinite(value):
                raise FixerError(f"The {name} is {value} at step {step}: try a smaller learning rate")
        rate = self.settings.rate(step)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.step(self._parameters)
        self.step = step
        return StepResult(step, figures.pop("loss"), figures, rate, gradient_norm)

    @torch.no_grad()
    def _at_start(self, batch: Batch) -> Tensor:
        """[B, 3, H, W]: the first views as the model before training makes them, by the same draws."""
        now = [parameter.clone() for parameter in self._parameters]
        for parameter, before in zip(self._parameters, self._start):
            parameter.copy_(before)
        try:
            with self.accelerator.autocast():
                return predict(self.pipeline, batch, self.settings.seed)[:, 0]
        finally:
            for parameter, current in zip(self._parameters, now):
                parameter.copy_(current)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are their moving average, where one is kept."""
        if self._average is None:
            yield
            return
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        try:
            yield
        finally:
            self._average.restore(self._parameters)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """On the CPU, by kind: "weights", "adam" (NAME/exp_avg and so on), and "average" where one is kept."""
        adam = self._adam.state_dict()["state"]  # by place among the parameters
        found: dict[str, dict[str, Tensor]] = {
            "weights": dict(zip(self._names, self._parameters)),
            "adam": {f"{self._names[place]}/{key}": value for place in adam for key, value in adam[place].items()},
        }
        if self._average is not None:
            found["average"] = dict(zip(self._names, self._average.shadow_params))
        return {
            kind: {name: value.detach().cpu().contiguous() for name, value in values.items()}
            for kind, values in found.items()
        }

    @property
    def state_bytes(self) -> int:
        """About what `tensors` hold once training has begun."""
        copies = 3 if self._average is None else 4  # weights, two moments, average
        return 4 * copies * sum(parameter.numel() for parameter in self._parameters)

    def load(self, tensors: dict[str, dict[str, Tensor]], step: int) -> None:
        """The inverse of `tensors`, after `step` steps. CheckpointError where they are of other weights."""
        ours = dict(zip(self._names, self._parameters))
        weights = tensors["weights"]
        if {name: value.shape for name, value in weights.items()} != {name: ours[name].shape for name in ours}:
            raise CheckpointError("The saved training state is of other weights than those that are trained now")
        with torch.no_grad():
            for name, parameter in ours.items():
                parameter.copy_(weights[name])
        places = {name: place for place, name in enumerate(self._names)}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["adam"].items():
            name, _, moment = key.rpartition("/")
            moments.setdefault(places[name], {})[moment] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        if self._average is not None:
            shadows = [tensors["average"][name] for name in self._names]
            self._average.load_state_dict({"shadow_params": shadows, "optimization_step": step})
            self._average.to(self.accelerator.device)
        self.step = step
