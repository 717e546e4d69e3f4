"""Splats at given shares of a fit's schedule, for the plan of one unit.

Schedules are counted in steps, so that a pair does not depend on how busy the machine was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from difix3d.formats.image import to_uint8
from difix3d.pairs.plan import FitPlan
from difix3d.stages.pairing.photos import Photos, fitted_size
from difix3d.trajectories import make_trajectory
from difix3d.types import Reconstruction, Splats

if TYPE_CHECKING:
    from difix3d.splatting.trainer import Photo


class State(NamedTuple):
    """A fit when the share `stop` of its schedule is done. seconds: of fitting so far."""

    stop: float
    splats: Splats
    step: int
    seconds: float


@dataclass(frozen=True)
class FitSettings:
    """shift: of a cycle's path, as a share of the viewing distance. renderer: "cpu" or "gsplat"."""

    steps: int
    max_splats: int
    long_side_px: int
    shift: float
    renderer: str
    seed: int


def states(
    plan: FitPlan, settings: FitSettings, reconstruction: Reconstruction, photos: Photos
) -> Iterator[float | State]:
    """The fit at each stop of the plan, in order, and between them the share of all fitting that is done."""
    from difix3d.splatting.trainer import Photo

    fitted = [Photo(name, photos.camera(name), photos.rgb(name)) for name in plan.fitted]
    known = _seen_by(plan.fitted, reconstruction)
    if not plan.cycle:
        yield from _fit(settings, known, fitted, {shot.stop for shot in plan.shots})
        return
    for said in _fit(settings, known, fitted, {1.0}):
        if not isinstance(said, State):
            yield 0.5 * said
            continue
        for again in _fit(settings, known, list(_shifted(settings, reconstruction, said.splats)), {1.0}):
            yield again if isinstance(again, State) else 0.5 + 0.5 * again


def _fit(
    settings: FitSettings, known: Reconstruction, fitted: Sequence[Photo], stops: set[float]
) -> Iterator[float | State]:
    """A stop that goes by between two of the trainer's updates, together with a later one, is missed."""
    from difix3d.splatting.trainer import Trainer, TrainSettings

    schedule = TrainSettings(
        seconds=0.0,
        max_splats=settings.max_splats,
        max_steps=settings.steps,
        renderer=settings.renderer,
        seed=settings.seed,
    )
    trainer = Trainer(schedule, fitted, (), known.points, known.colors)
    started, left = time.monotonic(), sorted(stops)
    last = left[-1]

    def state(stop: float) -> State:
        return State(stop, trainer.splats(), trainer.steps, round(time.monotonic() - started, 2))

    with contextlib.closing(trainer.run()) as updates:
        for update in updates:
            yield min(1.0, update.fraction / last)
            passed = [stop for stop in left if stop <= update.fraction]
            if passed:
                left = left[len(passed) :]
                yield state(passed[-1])
            if not left:
                return
    if left[-1] == 1.0:
        yield state(1.0)


def _seen_by(names: Sequence[str], reconstruction: Reconstruction) -> Reconstruction:
    """Without the points that none of these photos sees: what lies beyond them, their fit cannot know. With all,
    where the reconstruction does not say who sees what."""
    seen = np.zeros(len(reconstruction.points), dtype=bool)
    for name in names:
        seen[reconstruction.view(name).point_indices] = True
    kept: NDArray[np.bool_] = seen if seen.any() else ~seen
    return Reconstruction((), reconstruction.points[kept], reconstruction.colors[kept])


def _shifted(settings: FitSettings, reconstruction: Reconstruction, splats: Splats) -> Iterator[Photo]:
    """Renders along the captured path moved sideways: the photos of a cycle's second fit."""
    from difix3d.splatting import render_view
    from difix3d.splatting.trainer import Photo

    path = make_trajectory("shift", reconstruction, frames=len(reconstruction.views), shift=settings.shift)
    for index, camera in enumerate(path.cameras):
        camera = fitted_size(camera, settings.long_side_px)
        rgb, _, _ = render_view(splats, camera, renderer=settings.renderer)
        yield Photo(f"shifted-{index:05d}", camera, to_uint8(rgb))
