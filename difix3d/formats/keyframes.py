"""Choose the frames of a video that are worth reconstructing from: sharp ones, a fair step of motion apart.

Points are tracked from the last kept frame on (Shi-Tomasi corners, pyramidal Lucas-Kanade, checked backwards). A frame
is due when a quarter of the tracks have moved by `step` of the picture's long side (not the median: who walks around
a statue holds it still in the middle of the picture), or when too few survive; among the frames around that moment the
sharpest is kept. Never every n-th frame: where a camera moves fast, even thinning
tears neighbours apart, and where it rests, it keeps copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 0.06  # of the long side: about 3 degrees around a subject that fills the frame
LEAST_STEP = 0.012  # 4 px of 320: below, motion and the tremor of tracking look alike
MOST_STEP = 0.30  # above, SIFT matches of neighbours grow few
AIM_AT_LEAST = 24  # frames; a short clip is searched with smaller steps until it gives as many
WINDOW = (0.75, 1.25)  # share of the step between which the sharpest frame is taken
NEARLY = 0.9
SURVIVORS = 0.6  # share of tracks below which the overlap counts as used up, at STEP; see _least_survivors
LEAST_CORNERS = 24
CHANGED_GREY = 6.0  # mean grey difference that tells a new picture from noise where no corner can be tracked


@dataclass(frozen=True)
class Selection:
    """kept: positions in the sequence of samples, rising; step: the motion threshold used; last: the position
    of the last sample that was considered, smaller than the end where the cap was reached before."""

    kept: tuple[int, ...]
    step: float
    last: int


def choose(
    greys: Sequence[NDArray[np.uint8]], sharpness: Sequence[float], max_frames: int, step: float = STEP
) -> Selection:
    """Pick at most max_frames of the samples (greys: [h, w] uint8 each, all of one size).

    Too many: the step is raised, up to MOST_STEP; if that is not enough, the first max_frames neighbours stay
    together and the rest is left out. Fewer than AIM_AT_LEAST: the step is lowered, down to LEAST_STEP.
    """
    aim = min(AIM_AT_LEAST, max_frames)
    stop_at = max_frames * 3 // 2  # a pass that overshoots has told how much larger the step must be
    kept = _walk(greys, sharpness, step, stop_at)
    while len(kept) < aim and step > LEAST_STEP:
        step = max(LEAST_STEP, step * 0.6)
        kept = _walk(greys, sharpness, step, stop_at)
    while len(kept) > max_frames and step < MOST_STEP:
        in_all = len(kept) * len(greys) / (kept[-1] + 1)
        step = min(MOST_STEP, step * max(1.15, in_all / max_frames))
        kept = _walk(greys, sharpness, step, stop_at)
    if len(kept) > max_frames:
        return Selection(tuple(kept[:max_frames]), step, kept[max_frames - 1])
    return Selection(tuple(kept), step, len(greys) - 1)


def _walk(greys: Sequence[NDArray[np.uint8]], sharpness: Sequence[float], step: float, stop_at: int) -> list[int]:
    """Positions kept at that step, no more than stop_at + 1; the first is a sharp one before the camera moves on."""
    if not len(greys):
        return []
    kept = [_best(sharpness, _still(greys, step))]
    while len(kept) <= stop_at and (window := _window(greys, kept[-1], step)):
        kept.append(_best(sharpness, window))
    return kept


def _best(sharpness: Sequence[float], positions: Sequence[int]) -> int:
    """The first that is nearly as sharp as the sharpest: waiting for a hair more detail would cost overlap."""
    enough = NEARLY * max(sharpness[position] for position in positions)
    return next(position for position in positions if sharpness[position] >= enough)


def _least_survivors(step: float) -> float:
    """Larger steps are a promise to live with less overlap: 0.6 at STEP, 0.32 at MOST_STEP, never above 0.85."""
    return min(0.85, SURVIVORS * (STEP / step) ** 0.4)


def _still(greys: Sequence[NDArray[np.uint8]], step: float) -> list[int]:
    """Positions from the first on, while the picture has moved less than a quarter of the step."""
    tracks = Tracks(greys[0])
    positions = [0]
    for position in range(1, len(greys)):
        motion, survivors = tracks.follow(greys[position])
        if motion > step / 4 or survivors < _least_survivors(step):
            break
        positions.append(position)
    return positions


def _window(greys: Sequence[NDArray[np.uint8]], start: int, step: float) -> list[int]:
    """Positions of which one is to be kept next after `start`; empty where the rest hardly moves."""
    tracks = Tracks(greys[start])
    low, high = step * WINDOW[0], step * WINDOW[1]
    window: list[int] = []
    for position in range(start + 1, len(greys)):
        motion, survivors = tracks.follow(greys[position])
        if motion > high or survivors < _least_survivors(step):
            return window or [position]
        if motion >= low:
            window.append(position)
    return window


class Tracks:
    """Corners of one frame, followed from frame to frame."""

    def __init__(self, grey: NDArray[np.uint8]):
        import cv2

        self._cv2: Any = cv2
        self._first = self._last = grey
        corners = cv2.goodFeaturesToTrack(grey, 200, 0.01, 6)
        self._start = np.empty((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        self._now = self._start
        self._alive = np.ones(len(self._start), dtype=bool)

    def follow(self, grey: NDArray[np.uint8]) -> tuple[float, float]:
        """(upper quartile of motion since the first frame, in long sides; share of tracks alive) after one more."""
        if len(self._start) < LEAST_CORNERS:
            changed = float(np.abs(self._first.astype(np.float32) - grey).mean()) > CHANGED_GREY
            return 0.0, 0.0 if changed else 1.0
        alive = np.flatnonzero(self._alive)
        if len(alive):
            lk = {"winSize": (15, 15), "maxLevel": 4}
            there, found, _ = self._cv2.calcOpticalFlowPyrLK(self._last, grey, self._now[alive], None, **lk)
            back, again, _ = self._cv2.calcOpticalFlowPyrLK(grey, self._last, there, None, **lk)
            height, width = grey.shape
            good = (found.ravel() == 1) & (again.ravel() == 1)
            good &= np.linalg.norm(back - self._now[alive], axis=1) < 1.0
            good &= (there >= 0).all(axis=1) & (there[:, 0] < width) & (there[:, 1] < height)
            self._now = self._now.copy()
            self._now[alive] = there
            self._alive[alive[~good]] = False
            alive = alive[good]
        self._last = grey
        if not len(alive):
            return 0.0, 0.0
        moved = np.linalg.norm(self._now[alive] - self._start[alive], axis=1)
        return float(np.quantile(moved, 0.75)) / max(grey.shape), len(alive) / len(self._start)
