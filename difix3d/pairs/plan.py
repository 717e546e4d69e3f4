"""Which photos a fit sees, and at which cameras it is rendered when: Difix3D+'s ways to flawed renders with a truth.

    sparse     every 2nd, 3rd, 5th photo is fitted; the others are rendered: flaws between the photos
    dense      all photos but every 8th are fitted, which are rendered: how little is wrong with a good fit
    halves     one half of the capture is fitted; the other is rendered: flaws beyond the photos
    cross      the photos of one camera or session are fitted; the others' are rendered
    cycle      a fit to all is rendered along a shifted path, a second fit sees only that, and is rendered at the photos
    underfit   the fits above, rendered when only a part of their schedule is done

No disk and no pixels here: names, positions, and what comes of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

STRATEGIES = ("sparse", "dense", "halves", "cross", "cycle", "underfit")
MIN_FITTED = 4
"""Photos that a fit needs here: from three, hardly any of the scene is seen twice."""
_HELD_OUT_EVERY = 8


@dataclass(frozen=True)
class Shot:
    """A render to make: at the camera of `photo`, when the share `stop` of the schedule is done."""

    photo: str
    stop: float
    strategy: str


@dataclass(frozen=True)
class FitPlan:
    """One fit: the photos it sees, and the renders made of it. name: also its folder's."""

    name: str
    fitted: tuple[str, ...]
    shots: tuple[Shot, ...]
    cycle: bool = False


@dataclass(frozen=True)
class Plan:
    """The fits of one scene. skipped: strategy or fit -> why there is none."""

    fits: tuple[FitPlan, ...]
    skipped: Mapping[str, str]

    @property
    def shots(self) -> int:
        return sum(len(fit.shots) for fit in self.fits)


@dataclass(frozen=True)
class Captured:
    """A registered photo. position: [3] of its camera; camera: make and model from Exif, or ""; source: its name as
    uploaded; size: (width, height) pixels."""

    name: str
    position: NDArray[np.float64]
    camera: str = ""
    source: str = ""
    size: tuple[int, int] = (0, 0)


def plan_fits(
    photos: Sequence[Captured],
    strategies: Iterable[str] = STRATEGIES,
    *,
    every: Sequence[int] = (2, 3, 5),
    stops: Sequence[float] = (0.25, 0.5, 0.75),
) -> Plan:
    """The fits of a scene with these photos. every: of `sparse`; stops: of `underfit`, one of them for each photo in
    turn. Where `underfit` is asked for alone, it stops the fits of `sparse`.

    No photo is both fitted and rendered by one fit, but for `cycle`, whose second fit sees no photo.
    """
    wanted = set(strategies)
    photos = sorted(photos, key=lambda photo: photo.name)
    splits: dict[str, list[tuple[str, list[str]]]] = {
        "sparse": _sparse(photos, every),
        "dense": _dense(photos),
        "halves": _halves(photos),
    }
    skipped: dict[str, str] = {}
    splits["cross"], problem = _cross(photos)
    if problem and "cross" in wanted:
        skipped["cross"] = problem

    fits: list[FitPlan] = []
    alone = wanted == {"underfit"}
    for strategy, of_strategy in splits.items():
        if strategy not in wanted and not (alone and strategy == "sparse"):
            continue
        for name, fitted in of_strategy:
            rest = [photo.name for photo in photos if photo.name not in set(fitted)]
            if len(fitted) < MIN_FITTED or not rest:
                skipped[name] = f"{len(fitted)} of {len(photos)} photos to fit and {len(rest)} to render; {_NEEDED}"
                continue
            shots = [] if alone else [Shot(photo, 1.0, strategy) for photo in rest]
            if "underfit" in wanted:
                shots += [Shot(photo, stops[index % len(stops)], "underfit") for index, photo in enumerate(rest)]
            fits.append(FitPlan(name, tuple(fitted), tuple(shots)))
    if "cycle" in wanted:
        names = tuple(photo.name for photo in photos)
        if len(names) < MIN_FITTED:
            skipped["cycle"] = f"{len(names)} photos; {_NEEDED}"
        else:
            fits.append(FitPlan("cycle", names, tuple(Shot(name, 1.0, "cycle") for name in names), cycle=True))
    return Plan(tuple(fits), skipped)


_NEEDED = f"at least {MIN_FITTED} to fit and one to render are needed"


def thinned(plan: Plan, most: int) -> Plan:
    """At most `most` renders, evenly spread over all of the plan; fits of which none is left are not made."""
    total = plan.shots
    if total <= most:
        return plan
    kept = set(np.linspace(0, total - 1, most).round().astype(int).tolist()) if most else set()
    fits, first = [], 0
    for fit in plan.fits:
        shots = tuple(shot for index, shot in enumerate(fit.shots, first) if index in kept)
        first += len(fit.shots)
        if shots:
            fits.append(replace(fit, shots=shots))
    return Plan(tuple(fits), plan.skipped)


def _sparse(photos: Sequence[Captured], every: Sequence[int]) -> list[tuple[str, list[str]]]:
    return [(f"every{step}", [photo.name for photo in photos[::step]]) for step in dict.fromkeys(every)]


def _dense(photos: Sequence[Captured]) -> list[tuple[str, list[str]]]:
    # The fourth of each eight, so that no end of the capture is held out, which would be beyond the photos.
    return [("dense", [photo.name for at, photo in enumerate(photos) if at % _HELD_OUT_EVERY != _HELD_OUT_EVERY // 2])]


def _halves(photos: Sequence[Captured]) -> list[tuple[str, list[str]]]:
    """Either side of the middle, along the direction in which the cameras are spread most: contiguous in space
    whatever the photos are called."""
    if not photos:
        return []
    positions = np.stack([photo.position for photo in photos])
    _, _, axes = np.linalg.svd(positions - positions.mean(axis=0), full_matrices=False)
    # The sign of a singular vector is arbitrary: the first photo is in the first half.
    along = (positions - positions[0]) @ axes[0]
    if np.median(along) < 0:
        along = -along
    order = sorted(range(len(photos)), key=lambda index: (round(float(along[index]), 9), photos[index].name))
    middle = len(order) // 2
    halves = {"half1": order[:middle], "half2": order[middle:]}
    return [(name, sorted(photos[index].name for index in half)) for name, half in halves.items()]


def _cross(photos: Sequence[Captured]) -> tuple[list[tuple[str, list[str]]], str]:
    """(fits, "") or ([], why not): one for each group large enough, by the first trait that tells groups apart."""
    for trait, of in _TRAITS.items():
        groups: dict[str, list[str]] = {}
        for photo in photos:
            groups.setdefault(of(photo), []).append(photo.name)
        large = [names for names in groups.values() if len(names) >= MIN_FITTED]
        if len(groups) > 1 and large:
            return [(f"cross-{trait}{number}", names) for number, names in enumerate(large, 1)], ""
    return [], "all photos are of one camera and session: same Exif camera, folder, kind of name and size"


def _session(photo: Captured) -> str:
    """The name as uploaded without its running number: cameras number on, and begin another name for another day."""
    return re.sub(r"\d+$", "", PurePosixPath(photo.source).stem)


_TRAITS: dict[str, Callable[[Captured], str]] = {
    "camera": lambda photo: photo.camera,
    "folder": lambda photo: str(PurePosixPath(photo.name).parent),
    "session": _session,
    "size": lambda photo: "x".join(map(str, sorted(photo.size))),  # held upright or not, it is one camera
}
