"""Fit splats to photos within a time budget: one loop for CPU and CUDA.

Resolution, SH degree, learning rates and the number of splats follow difix3d.splatting.schedule. On the CPU, a run that
is limited by steps instead of seconds is the same on every run with the same seed; gsplat adds gradients up in whatever
order its threads end.

Few photos are learned by heart, and what is learned then is wrong from elsewhere. So held-out photos, where there are
any, choose the state that is kept: the one of least loss on them, not the last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from difix3d.errors import ConfigError
from difix3d.metrics import psnr
from difix3d.splatting import l1_ssim, rasterize, schedule
from difix3d.splatting.base import ScreenSpace
from difix3d.splatting.densify import Densifier
from difix3d.splatting.dispatch import shared
from difix3d.splatting.initialise import joined, scene_depth, shell_splats, splats_from_points
from difix3d.splatting.parameters import SplatParameters
from difix3d.splatting.schedule import Clock
from difix3d.spread import evenly
from difix3d.types import Camera, Splats

_UPDATE_SECONDS = 0.25
_SCORE_SECONDS, _SCORE_FRACTION, _SCORE_SHARE = 2.5, 0.1, 0.05
"""Held-out photos are scored at most every so many seconds (every tenth of a run counted in steps), and for at most
this share of a budget of seconds."""
_SCORED_PHOTOS = 4
_LOSS_FRACTION = 0.05
"""Without held-out photos the mean loss over so much of a run stands in for their score."""


@dataclass(frozen=True)
class Photo:
    """A camera and what it saw. rgb: [H, W, 3] uint8 of the camera's size."""

    name: str
    camera: Camera
    rgb: NDArray[np.uint8]


@dataclass(frozen=True)
class TrainSettings:
    """seconds: wall-clock budget (0: none); max_steps: step limit (0: none), one of the two is needed.

    renderer: as `rasterize` takes it, "cpu" or "gsplat"; stop_early: end when the held-out photos, or without any the
    loss, stop improving.
    """

    seconds: float = 30.0
    max_splats: int = 50_000
    max_steps: int = 0
    sh_degree: int = 3
    renderer: str = "cpu"
    stop_early: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Update:
    """Where a run is. left: seconds to go, where that can be told. psnr: mean over the scored held-out photos where
    this update follows a scoring, else None."""

    step: int
    seconds: float
    fraction: float
    splats: int
    loss: float
    left: float | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class _Best:
    """The state of least held-out loss so far, when it was, and a copy of it."""

    loss: float
    psnr: float
    seconds: float
    fraction: float
    tensors: dict[str, Tensor]


class Trainer:
    """Holds the splats while they are fitted. `run` is a generator; closing it stops within a step, and keeps the
    splats as they are then; `go_back` takes back better ones that there were before.

    train: photos to fit, heldout: photos only to score; all of one run may differ in size. points: [P, 3] world and
    colors: [P, 3] uint8, the sparse reconstruction. ConfigError without photos or without a budget.
    """

    def __init__(
        self,
        settings: TrainSettings,
        train: Sequence[Photo],
        heldout: Sequence[Photo],
        points: NDArray,
        colors: NDArray[np.uint8],
    ):
        if not train:
            raise ConfigError("No photo to fit to; at least one is needed.")
        if settings.seconds <= 0 and settings.max_steps <= 0:
            raise ConfigError("A fit needs a budget: seconds or steps.")
        self.settings = settings
        self._device = torch.device("cuda" if settings.renderer == "gsplat" else "cpu")
        self._full = [_target(photo, self._device) for photo in train]
        self._half = [_target(_halved(photo), self._device) for photo in train]
        self.heldout = tuple(heldout)

        cameras = [photo.camera for photo in train]
        depth = scene_depth(points, cameras)
        inner = splats_from_points(points, colors, cameras, 0, settings.max_splats // 2, settings.seed)
        room = settings.max_splats - len(inner)
        shell = shell_splats(points, cameras, [photo.rgb for photo in train], max_count=room)
        start = joined(inner, shell)
        rest = np.zeros((len(start), (settings.sh_degree + 1) ** 2 - 1, 3), np.float32)
        start = Splats(start.means, start.quats, start.log_scales, start.opacity_logits, np.hstack([start.sh, rest]))
        self._parameters = SplatParameters(start, self._device, depth)
        self._first_count = len(start)
        self._densifier = Densifier(
            self._parameters, cameras, [_near_limit(points, camera) for camera in cameras], settings.seed
        )
        self._photo_order = np.random.default_rng(settings.seed)
        self._colour_order = torch.Generator().manual_seed(settings.seed)
        self._queue: list[int] = []
        self._steps = 0
        self._next_refine, self._last_refine_step = schedule.REFINE_FROM, 0
        self._scoring_seconds = 0.0
        self._best: _Best | None = None
        self.kept_from: float | None = None
        """Seconds into the run from which an earlier state was taken back at its end; None where the last was kept."""

    def run(self) -> Generator[Update, None, None]:
        """Fit until the budget is spent; an Update at least four times a second. Then go back to the best state."""
        self._clock = clock = Clock(self.settings.seconds, self.settings.max_steps)
        last_update, scored_at = 0.0, 0.0
        gap = _SCORE_SECONDS / self.settings.seconds if self.settings.seconds > 0 else _SCORE_FRACTION
        gap = gap if self.heldout else _LOSS_FRACTION
        curve: list[tuple[float, float]] = []
        losses: list[Tensor] = []
        while (fraction := clock.fraction(self._steps)) < 1.0:
            at_full_size = not schedule.at_half_resolution(fraction, self._steps)
            loss = self._step(fraction)
            if at_full_size:  # losses at half the size are others, and would look like a plateau
                losses.append(loss)
            self._refine(fraction)
            seconds = clock.seconds()
            if seconds - last_update >= _UPDATE_SECONDS:
                last_update = seconds
                yield self._update(seconds, fraction, float(loss))
            # A budget of steps alone must not depend on how busy the machine is, so all scores are taken.
            dear = self.settings.seconds > 0 and self._scoring_seconds > _SCORE_SHARE * seconds
            if fraction - scored_at < gap or dear:
                continue
            if self.heldout:
                value, scored = yield from self._scored(seconds, fraction, float(loss))
                if at_full_size and (self._best is None or scored < self._best.loss):
                    self._best = _Best(scored, value, seconds, fraction, self._parameters.copy())
                curve.append((fraction, value))
            elif losses:
                curve.append((fraction, -20 * math.log10(float(torch.stack(losses).mean()))))
            losses.clear()
            scored_at = fraction
            if self._best is not None and schedule.is_lost(self._best.fraction, fraction) and not clock.hurried:
                # On from the best state, with what is left of its schedule in less time: its learning rates were
                # still high.
                self._parameters.restore(self._best.tensors)
                self._densifier.forget()
                self._next_refine = scored_at = self._best.fraction
                clock.hurry(self._steps, self._best.fraction)
            elif self.settings.stop_early and curve and schedule.settled(curve):
                clock.hurry(self._steps)
        yield from self.go_back()

    def _update(self, seconds: float, fraction: float, loss: float, psnr: float | None = None) -> Update:
        return Update(self._steps, seconds, fraction, self.count, loss, self._clock.left(self._steps), psnr)

    def _scored(
        self, seconds: float, fraction: float, training_loss: float
    ) -> Generator[Update, None, tuple[float, float]]:
        """Mean (PSNR in dB, loss) of some held-out photos, with an Update after each."""
        scored, values = evenly(self.heldout, _SCORED_PHOTOS), []
        for photo in scored:
            before = time.monotonic()
            values.append(self.score(photo))
            self._scoring_seconds += time.monotonic() - before
            mean = sum(value for value, _ in values) / len(values) if len(values) == len(scored) else None
            yield self._update(seconds, fraction, training_loss, mean)
        return sum(value for value, _ in values) / len(values), sum(loss for _, loss in values) / len(values)

    def go_back(self) -> Iterator[Update]:
        """To the best state of a run that has ended or was closed, where the last one is worse than it."""
        if (best := self._best) is None:
            return
        seconds = self._clock.seconds()
        _, loss = yield from self._scored(seconds, 1.0, best.loss)
        self._best = None
        if loss > best.loss:
            self._parameters.restore(best.tensors)
            self.kept_from = best.seconds
            yield self._update(seconds, 1.0, best.loss, best.psnr)

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def count(self) -> int:
        """How many splats there are now."""
        return len(self._parameters)

    def splats(self) -> Splats:
        """A copy of the splats as they are now."""
        return self._parameters.to_splats()

    @torch.no_grad()
    def render(self, camera: Camera) -> NDArray[np.float32]:
        """[H, W, 3] in [0, 1], before black, as `render_view` would show the splats as they are now."""
        degree = self._parameters.sh_degree
        rgb, _, _ = rasterize(*self._parameters.inputs(degree), camera, None, degree, renderer=self.settings.renderer)
        return rgb.clamp(0.0, 1.0).cpu().numpy()

    def score(self, photo: Photo) -> tuple[float, float]:
        """(PSNR in dB, loss) of the render at the photo's camera."""
        drawn, truth = self.render(photo.camera), photo.rgb.astype(np.float32) / np.float32(255.0)
        loss = l1_ssim(torch.tensor(drawn, device=self._device), torch.tensor(truth, device=self._device))
        return psnr(drawn, truth), float(loss)

    def _step(self, fraction: float) -> Tensor:
        """One photo, forward, backward, Adam."""
        photos = self._half if schedule.at_half_resolution(fraction, self._steps) else self._full
        if not self._queue:
            self._queue = self._photo_order.permutation(len(photos)).tolist()
        index = self._queue.pop()
        camera, photo = photos[index]
        degree = schedule.sh_degree(fraction, self._parameters.sh_degree)
        # A new background each step: what is see-through cannot match, so that nothing real stays so.
        background = torch.rand(3, generator=self._colour_order).to(self._device)
        screen = ScreenSpace()
        rgb, _, _ = rasterize(
            *self._parameters.inputs(degree), camera, background, degree, screen=screen, renderer=self.settings.renderer
        )
        loss = self._loss(rgb, photo.to(torch.float32) / 255.0, index)
        loss.backward()
        self._densifier.observe(screen, camera)
        self._parameters.set_rates(*schedule.learning_rates(fraction, self._steps))
        self._parameters.step()
        self._steps += 1
        return loss.detach()

    def _loss(self, rgb: Tensor, photo: Tensor, index: int) -> Tensor:
        """Of the training photo number `index`, drawn and true; benchmarks/fit_variants.py tries others."""
        return l1_ssim(rgb, photo)

    def _refine(self, fraction: float) -> None:
        """Prune and grow when it is time."""
        due = self._next_refine <= fraction < schedule.REFINE_UNTIL
        if not due or self._steps - self._last_refine_step < schedule.REFINE_EVERY_STEPS:
            return
        self._densifier.refine(schedule.splat_count(fraction, self._first_count, self.settings.max_splats))
        self._next_refine, self._last_refine_step = fraction + schedule.REFINE_EVERY, self._steps


def _target(photo: Photo, device: torch.device) -> tuple[Camera, Tensor]:
    return photo.camera, shared(photo.rgb, device)


def _halved(photo: Photo) -> Photo:
    """Half the size, each pixel the mean of those it covers."""
    width, height = max(1, photo.camera.width // 2), max(1, photo.camera.height // 2)
    small = Image.fromarray(photo.rgb).resize((width, height), Image.Resampling.BOX)
    return Photo(photo.name, photo.camera.sized(width, height), np.asarray(small))


def _near_limit(points: NDArray, camera: Camera) -> float:
    """Half the depth of the nearest sparse points this camera sees: what is closer was never observed."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    in_camera = (homogeneous @ camera.cam_from_world.T)[:, :3]
    in_camera = in_camera[in_camera[:, 2] > 0]
    pixels = (in_camera @ camera.K.T)[:, :2] / in_camera[:, 2:]
    inside = (pixels > 0).all(1) & (pixels < (camera.width, camera.height)).all(1)
    return 0.5 * float(np.percentile(in_camera[inside, 2], 1)) if inside.any() else 0.0
