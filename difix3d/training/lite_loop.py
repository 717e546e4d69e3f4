"""Train the network of the fixer `lite` on prepared pairs; made to be stopped and gone on with.

Crops are large: in small ones the network learns to live with borders, and fixes of whole frames are worse. The loss is
that of lite_terms.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from difix3d.atomic import replacing_file
from difix3d.errors import CheckpointError
from difix3d.fixers.difix.precision import fast_dtype
from difix3d.fixers.lite.fixer import digest_of, load_network
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.losses import LPIPS
from difix3d.training.lite_crops import Batch, Crops
from difix3d.training.lite_terms import LiteWeights, choice_terms, fix_terms, perceptual_term

_WARM_UP_STEPS = 100
_EMA_STEPS = 100
"""The kept weights are a running mean over about so many steps."""
_GRADIENT_NORM = 1.0
_BETAS = (0.9, 0.99)
"""Adam's own 0.999 remembers small gradients for too long: where they grow, a step is up to thirty times its usual
length. When LPIPS still joined after some steps, logits ran away so, to where softmax has no slope."""


@dataclass(frozen=True)
class LiteSettings:
    """steps: of the whole training, which the learning rate fades over; loss: weights of its parts; start: digest of
    the weights it begins from ("": none, the seed draws them); the seed decides every crop too."""

    steps: int = 1000
    batch: int = 2
    size_px: int = 256
    learning_rate: float = 3e-4
    loss: LiteWeights = field(default_factory=LiteWeights)
    start: str = ""
    seed: int = 0


@dataclass(frozen=True)
class LiteUpdate:
    """Where training is: means of the parts of the loss since the last update."""

    step: int
    seconds: float
    parts: dict[str, float]


class LiteTrainer:
    """Holds network, running mean and optimiser. `run` trains, `save` and `load` stop and go on, `export` ships.

    start: weights to begin from, as `export` writes them. CheckpointError where they are not of this network.
    """

    def __init__(self, settings: LiteSettings, crops: Crops, device: str | None = None, start: Path | None = None):
        self.settings, self._crops = replace(settings, start=digest_of(start) if start else ""), crops
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.manual_seed(settings.seed)
        network = load_network(start).train() if start else LiteNetwork()
        self.network = network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, betas=_BETAS, weight_decay=1e-3
        )
        self._lpips = None
        if settings.loss.perceptual > 0:
            self._lpips = LPIPS.load("vgg").to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = 0

    def run(self, minutes: float = 0.0, every: int = 20) -> Iterator[LiteUpdate]:
        """Until the last step, or for so many minutes (0: no limit); an update every `every` steps."""
        began = time.monotonic()
        sums: dict[str, float] = {}
        since = 0
        while self.step < self.settings.steps and (not minutes or time.monotonic() - began < 60 * minutes):
            for name, value in self._train(self._crops.batch(self.step)).items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            since += 1
            if since == every or self.step == self.settings.steps:
                yield LiteUpdate(
                    self.step, time.monotonic() - began, {name: value / since for name, value in sums.items()}
                )
                sums, since = {}, 0

    def _train(self, batch: Batch) -> dict[str, float]:
        settings, done = self.settings, self.step / self.settings.steps
        warm = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        for group in self._optimiser.param_groups:
            fade = 0.5 + 0.5 * math.cos(math.pi * done)
            group["lr"] = settings.learning_rate * warm * (0.02 + 0.98 * fade)
        frame, photos, present, target, error, photo_errors = (
            tensor.to(self._device)
            for tensor in (batch.frame, batch.photos, batch.present, batch.target, batch.error, batch.photo_errors)
        )
        with self._halves():
            weighed = self.network.weigh(frame, photos, present)
        fixed, trust = self.network.mix(weighed, frame, photos)
        terms = fix_terms(fixed, trust, frame[:, :3], target, settings.loss)
        terms |= choice_terms(weighed, error, photo_errors, settings.loss)
        if self._lpips is not None:
            terms |= perceptual_term(fixed, target, settings.loss, self._lpips, self._halves)
        parts = {name: term.mean() for name, term in terms.items()}
        loss = torch.stack(list(parts.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _GRADIENT_NORM)
        self._optimiser.step()
        keep = min(1 - 1 / _EMA_STEPS, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self._mean[name].lerp_(value, 1 - keep)
        return {name: float(value.detach()) for name, value in parts.items()}

    def _halves(self) -> torch.autocast:
        """bfloat16 where the machine multiplies it faster; float16 would need its loss scaled."""
        fast = self._device.type == "cuda" or fast_dtype(self._device) == torch.bfloat16
        return torch.autocast(self._device.type, torch.bfloat16, enabled=fast)

    def save(self, path: Path) -> None:
        """Everything that going on needs."""
        state = {
            "settings": asdict(self.settings),
            "pairs": self._crops.names,
            "step": self.step,
            "network": self.network.state_dict(),
            "mean": self._mean,
            "optimiser": self._optimiser.state_dict(),
        }
        with replacing_file(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Go on from `save`. CheckpointError where it was made with other settings, or from other pairs."""
        state = torch.load(path, map_location=self._device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise CheckpointError(
                f"{path} was made with {state['settings']}, not with {asdict(self.settings)}. Go on with the same "
                "settings, or train into another folder."
            )
        if state["pairs"] != self._crops.names:
            raise CheckpointError(
                f"{path} learned from {len(state['pairs'])} pairs, and these are {len(self._crops)} others. Train into "
                "another folder."
            )
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self._mean = state["mean"]
        self._optimiser.load_state_dict(state["optimiser"])

    def export(self, path: Path) -> None:
        """The running mean of the weights, as the fixer loads them: float16."""
        halves = {name: value.to("cpu", torch.float16).contiguous() for name, value in self._mean.items()}
        with replacing_file(path) as temporary:
            save_file(halves, temporary)
