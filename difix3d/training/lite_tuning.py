"""Fine-tune lite on true photos, on fixes that raters approved, and on what they preferred to what.

    loss = supervised on targets (lite_terms.py, but for errors, which nobody made), each times its row's weight
         + preference and proximity on comparisons (preference.py), where there are any

Each step takes a batch of targets, and a batch of comparisons besides: the truth is never left out. What a step sees
follows from its number, so weights, moments and their average are the whole state, as in loop.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difix3d.errors import CheckpointError, FixerError
from difix3d.fixers.difix.precision import fast_dtype
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.losses import LPIPS
from difix3d.training.dataset import Batch
from difix3d.training.lite_data import LiteBatch, LiteCrops
from difix3d.training.lite_terms import LiteWeights, fix_terms, perceptual_term
from difix3d.training.loop import StepResult
from difix3d.training.order import Share, step_draws
from difix3d.training.preference import PreferenceWeights, preference_loss


@dataclass(frozen=True)
class TuningSettings:
    """batch: rows with a target in a step; comparisons are half as many, and cost twice as much. learning_rate: after
    the warm-up, from where it fades to 0 at the last of `steps`. ema_decay: of the average that is kept, 0 for none;
    loss: weights of the supervised part."""

    steps: int
    batch: int = 4
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    gradient_norm: float = 1.0
    ema_decay: float = 0.98
    loss: LiteWeights = field(default_factory=LiteWeights)
    preference: PreferenceWeights = field(default_factory=PreferenceWeights)
    seed: int = 0


class LiteTuner:
    """Trains `network`, the parent, in place, on the CPU or a GPU. step: how many are done.

    targets: rows with a photo or an approved fix; compared: comparisons, None for none. lpips: None leaves it out of
    both losses.
    """

    def __init__(
        self,
        network: LiteNetwork,
        targets: LiteCrops,
        compared: LiteCrops | None,
        settings: TuningSettings,
        lpips: LPIPS | None,
    ):
        self.settings, self.step = settings, 0
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self._device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._parent = copy.deepcopy(self.network).eval().requires_grad_(False) if compared else None
        self._targets, self._compared = targets, compared
        self._lpips = None if lpips is None else lpips.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        named = dict(self.network.named_parameters())
        self._names, self._parameters = tuple(named), list(named.values())
        self._adam = torch.optim.AdamW(self._parameters, settings.learning_rate, weight_decay=1e-3)
        self._average = [each.detach().clone() for each in self._parameters] if settings.ema_decay else []

    def run(self) -> Iterator[StepResult]:
        """From the step after `step` to the last; may be closed between two. FixerError where it diverges."""
        batch, seed = self.settings.batch, self.settings.seed
        streams = [
            (crops, Share(size).batches(step_draws([0] * len(crops), size, seed), self.step))
            for crops, size in ((self._targets, batch), (self._compared, max(1, batch // 2)))
            if crops
        ]
        while self.step < self.settings.steps:
            batches = [crops.batch(next(draws)) for crops, draws in streams]
            yield self._advance(batches[0], batches[1] if len(batches) > 1 else None)

    def _advance(self, batch: LiteBatch, compared: LiteBatch | None) -> StepResult:
        step, settings = self.step + 1, self.settings
        terms = self._supervised(batch)
        if compared is not None:
            terms |= self._preferred(compared)
        loss = torch.stack(list(terms.values())).sum()
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, settings.gradient_norm))
        for name, value in (("loss", float(loss.detach())), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise FixerError(f"The {name} is {value} at step {step}: try a smaller learning rate")
        # Faded to nothing: the last batches would otherwise leave more of themselves than of what all of them say.
        fade = 0.5 + 0.5 * math.cos(math.pi * self.step / settings.steps)
        rate = settings.learning_rate * fade * min(1.0, step / max(1, settings.warmup_steps))
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        if self._average:
            keep = min(settings.ema_decay, (1 + self.step) / (10 + self.step))
            for mean, value in zip(self._average, self._parameters):
                mean.lerp_(value.detach(), 1 - keep)
        self.step = step
        figures = {name: float(value.detach()) for name, value in terms.items()}
        return StepResult(step, float(loss.detach()), figures, rate, norm)

    def _supervised(self, batch: LiteBatch) -> dict[str, Tensor]:
        frame, photos, present, target, weights = self._on_device(
            batch.frame, batch.photos, batch.present, batch.target, batch.weights
        )
        with self._halves():
            fixed, trust = self.network(frame, photos, present)
        each = fix_terms(fixed, trust, frame[:, :3], target, self.settings.loss)
        if self._lpips is not None:
            each |= perceptual_term(fixed, target, self.settings.loss, self._lpips, self._halves)
        return {name: (weights * term).mean() for name, term in each.items()}

    def _preferred(self, batch: LiteBatch) -> dict[str, Tensor]:
        assert self._parent is not None and batch.worse is not None and batch.mask is not None
        frame, photos, present, better, worse, mask, weights = self._on_device(
            batch.frame, batch.photos, batch.present, batch.target, batch.worse, batch.mask, batch.weights
        )
        with self._halves():
            fixed, _ = self.network(frame, photos, present)
            with torch.no_grad():
                start, _ = self._parent(frame, photos, present)
        # In [-1, 1], as that loss has it; a comparison's first view is the preferred picture.
        rows = Batch(frame[:, None, :3], 2 * better[:, None] - 1, (), weights, (), 2 * worse - 1, mask)
        with self._halves():
            _, terms = preference_loss(2 * fixed - 1, 2 * start - 1, rows, self.settings.preference, self._lpips)
        return {name: value.float() for name, value in terms.items()}

    def _on_device(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.to(self._device) for tensor in tensors]

    def _halves(self) -> torch.autocast:
        """bfloat16 where the machine multiplies it faster, as in lite_loop."""
        fast = self._device.type == "cuda" or fast_dtype(self._device) == torch.bfloat16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=fast)

    @contextmanager
    def averaged(self) -> Iterator[LiteNetwork]:
        """The network for inference on the CPU, with the average of its weights where one is kept."""
        network = copy.deepcopy(self.network).cpu().eval()
        if self._average:
            with torch.no_grad():
                for parameter, mean in zip(network.parameters(), self._average):
                    parameter.copy_(mean)
        yield network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """On the CPU, by kind: "weights", "adam", and "average" where one is kept."""
        adam = self._adam.state_dict()["state"]
        found: dict[str, dict[str, Tensor]] = {
            "weights": dict(zip(self._names, self._parameters)),
            "adam": {f"{self._names[place]}/{key}": value for place in adam for key, value in adam[place].items()},
        }
        if self._average:
            found["average"] = dict(zip(self._names, self._average))
        return {
            kind: {name: value.detach().cpu().contiguous() for name, value in values.items()}
            for kind, values in found.items()
        }

    @property
    def state_bytes(self) -> int:
        """About what `tensors` hold once training has begun."""
        return 4 * 4 * sum(parameter.numel() for parameter in self._parameters)

    def load(self, tensors: dict[str, dict[str, Tensor]], step: int) -> None:
        """The inverse of `tensors`, after `step` steps. CheckpointError where they are of another network."""
        weights = tensors["weights"]
        if {name: value.shape for name, value in weights.items()} != {
            name: value.shape for name, value in zip(self._names, self._parameters)
        }:
            raise CheckpointError("The saved training state is of another network than lite's now")
        with torch.no_grad():
            for name, parameter in zip(self._names, self._parameters):
                parameter.copy_(weights[name])
            for name, mean in zip(self._names, self._average):
                mean.copy_(tensors["average"][name])
        places = {name: place for place, name in enumerate(self._names)}
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors["adam"].items():
            name, _, moment = key.rpartition("/")
            moments.setdefault(places[name], {})[moment] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        self.step = step
