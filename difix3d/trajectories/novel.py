"""Paths around the subject, all looking at it: orbit, turntable, extrapolate, spiral.

Each gives [frames, 4, 4] cam_from_world.

Notation
    azimuth, elevation   radians, of directions from the target, about rig.up; azimuth 0 is the middle direction, and
                         grows to the right of a camera that faces the target
    share                1 is the whole reach that was asked for; less where the whole would come too near to points
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from difix3d.geometry import look_at
from difix3d.trajectories.rig import UP, Floats, Rig

_LEAST_HALF_DEG = 5.0
"""An arc is at least twice this, also where the photos were all taken from one spot."""
_LARGEST_HALF_DEG = 75.0
"""Extrapolation from one side ends here: beyond it a flat subject is seen along its surface."""
_LEAST_REACH_DEG, _LARGEST_REACH_DEG = 10.0, 25.0
"""How far `extrapolate` goes past the capture: parallax of 10 degrees shows what the photos did not see, and past 25
there is little left that they did."""
_LEAST_REACH_SPREADS, _SHORTEST_REACH_DEG = 5.0, 3.0
"""A fit to photos from a few steps' walk falls apart at 10 degrees: there the least reach is 5 times the capture's
own wider half-range, and 3 degrees."""
_TURNTABLE_HIGHEST_DEG = 45.0
"""What was photographed from straight above is turned at this height: from above it would turn on the spot."""
_HIGHEST_DEG = 80.0
"""Nearer to the zenith than this the picture would turn on the spot."""
_NEAR_DEG = 30.0
"""The spiral is around the mean of the cameras this near to the middle direction."""
_DENSE = 720
"""Points that a closed curve is measured at; half a degree apart."""


def orbit(rig: Rig, frames: int) -> Floats:
    if rig.goes_around:
        across = float(np.median(np.linalg.norm(rig.offsets[:, :2], axis=1)))
        height = float(np.median(rig.offsets[:, 2]))
        turns = _start(rig) + _turns(frames)
        ring = np.stack([across * np.cos(turns), across * np.sin(turns), np.full(frames, height)], axis=1)
        return _looking(rig, rig.target + ring)
    chart = _Chart(rig)
    (left, right), _ = chart.range()
    half = max((right - left) / 2, np.radians(_LEAST_HALF_DEG))
    elevation = np.full(frames, np.median(chart.elevations))

    def arc(share: float) -> Floats:
        return chart.positions((left + right) / 2 + max(share, 0.1) * half * np.linspace(-1, 1, frames), elevation)

    return _looking(rig, rig.clear(arc))


def turntable(rig: Rig, frames: int) -> Floats:
    """At the median distance and, up to 45 degrees, the median height of the cameras, about the vertical."""
    elevation = np.median(np.arcsin(np.clip(rig.directions[:, 2], -1, 1)))
    elevation = np.clip(elevation, -np.radians(_TURNTABLE_HIGHEST_DEG), np.radians(_TURNTABLE_HIGHEST_DEG))
    turns = _start(rig) + _turns(frames)
    level = np.stack([np.cos(turns), np.sin(turns), np.full(frames, np.tan(elevation))], axis=1)
    positions = rig.target + rig.distance * np.cos(elevation) * level
    return np.stack([look_at(position, rig.target, UP) for position in positions])


def extrapolate(rig: Rig, frames: int, factor: float) -> Floats:
    chart = _Chart(rig)
    (left, right), (low, high) = chart.range()
    spread = np.degrees(max(right - left, high - low) / 2)
    least = np.radians(np.clip(_LEAST_REACH_SPREADS * spread, _SHORTEST_REACH_DEG, _LEAST_REACH_DEG))

    def reach(half: float, share: float) -> float:
        wanted = float(np.clip((factor - 1) * half, least, np.radians(_LARGEST_REACH_DEG)))
        return share * wanted if factor > 1 else 0.0

    def bounds(share: float) -> tuple[float, float]:
        past = reach((high - low) / 2, share)
        top = max(high, min(high + past, np.radians(_HIGHEST_DEG)))
        return max(low - past, min(low, chart.lowest_elevation())), top

    def wave(share: float) -> Floats:
        # A ring has no ends: it is left upwards and downwards, twice in a turn.
        bottom, top = bounds(share)
        turns = _turns(frames)
        elevations = (top + bottom) / 2 + (top - bottom) / 2 * np.sin(2 * turns)
        return chart.positions(_start(rig) - chart.start + turns, elevations)

    def ellipse(share: float) -> Floats:
        bottom, top = bounds(share)
        half = (right - left) / 2
        half = max(half, min(half + reach(half, share), np.radians(_LARGEST_HALF_DEG)))

        def curve(turns: Floats) -> Floats:
            return chart.positions(
                (left + right) / 2 + half * np.cos(turns), (top + bottom) / 2 + (top - bottom) / 2 * np.sin(turns)
            )

        return _evenly(curve, frames)

    return _looking(rig, rig.clear(wave if rig.goes_around else ellipse))


def spiral(rig: Rig, frames: int) -> Floats:
    """LLFF's render path (Mildenhall et al. 2019): c(t) = radii * (cos t, -sin t, -sin t/2), in a mean camera's axes.

    The mean is over the cameras near the middle direction (near the central camera, where the capture goes around),
    at their mean distance: of a whole ring it would be inside the subject.
    """
    toward = rig.central.position - rig.target if rig.goes_around else rig.middle
    nearness = rig.directions @ (toward / np.linalg.norm(toward))
    enough = np.sort(nearness)[-min(3, len(nearness))]
    near = nearness >= min(np.cos(np.radians(_NEAR_DEG)), enough)
    offsets = rig.offsets[near]
    direction = rig.directions[near].mean(axis=0)
    distance = float(np.linalg.norm(offsets, axis=1).mean())
    mean = rig.target + distance * direction / np.linalg.norm(direction)
    axes = look_at(mean, rig.target, rig.up)[:3, :3]
    spread = np.percentile(np.abs((rig.target + offsets - mean) @ axes.T), 90, axis=0)
    # Wide enough to see parallax, and never so deep that the path comes near to the subject.
    radii = np.clip(spread, distance * np.array([0.06, 0.04, 0.02]), distance * np.array([0.35, 0.2, 0.1]))

    turns = _turns(frames)
    curve = np.stack([np.cos(2 * turns), -np.sin(2 * turns), -np.sin(turns)], axis=1) * radii @ axes

    def path(share: float) -> Floats:
        positions = mean + share * curve
        positions[:, 2] = np.maximum(positions[:, 2], min(rig.ground, float(mean[2])))
        return positions

    return _looking(rig, rig.clear(path))


class _Chart:
    """The directions of the seers as azimuth and elevation [N] about rig.up."""

    def __init__(self, rig: Rig):
        self._rig = rig
        self._east = np.cross(rig.up, rig.middle)
        if np.linalg.norm(self._east) < 1e-6:
            self._east = np.cross(rig.up, rig.central.position - rig.target)
        if np.linalg.norm(self._east) < 1e-6:
            self._east = rig.central.cam_from_world[0, :3] - rig.up * (rig.central.cam_from_world[0, :3] @ rig.up)
        self._east = self._east / np.linalg.norm(self._east)
        self._front = np.cross(self._east, rig.up)
        self.azimuths = np.arctan2(rig.directions @ self._east, rig.directions @ self._front)
        self.elevations = np.arcsin(np.clip(rig.directions @ rig.up, -1, 1))
        self.start = float(np.arctan2(self._front[1], self._front[0]))
        """The azimuth about world z of this chart's azimuth 0; meant where up is z."""

    def range(self) -> Floats:
        """[2, 2] radians: (least, most) azimuth and elevation; one stray photo does not count."""
        return np.percentile(np.stack([self.azimuths, self.elevations]), (5, 95), axis=1).T

    def lowest_elevation(self) -> float:
        """Where the path would be at rig.ground."""
        if self._rig.up[2] < 1:
            return -np.pi / 2  # seen from above, lower is sideways
        return float(np.arcsin(np.clip((self._rig.ground - self._rig.target[2]) / self._rig.distance, -1, 1)))

    def positions(self, azimuths: Floats, elevations: Floats) -> Floats:
        """[N, 3] at the median distance from the target, in those directions [N]."""
        level = np.cos(azimuths)[:, None] * self._front + np.sin(azimuths)[:, None] * self._east
        directions = np.cos(elevations)[:, None] * level + np.sin(elevations)[:, None] * self._rig.up
        return self._rig.target + self._rig.distance * directions


def _start(rig: Rig) -> float:
    """Azimuth about z at which a full circle starts: the central camera's."""
    start = rig.central.position - rig.target
    return float(np.arctan2(start[1], start[0]))


def _turns(frames: int) -> Floats:
    """[frames] angles of one turn; the last is one step before the first."""
    return 2 * np.pi * np.arange(frames) / frames


def _evenly(curve: Callable[[Floats], Floats], frames: int) -> Floats:
    """[frames, 3] on a closed curve (of one turn), the same distance apart."""
    turns = np.linspace(0, 2 * np.pi, _DENSE + 1)
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve(turns), axis=0), axis=1))])
    return curve(np.interp(travelled[-1] * np.arange(frames) / frames, travelled, turns))


def _looking(rig: Rig, positions: Floats) -> Floats:
    """[N, 4, 4] poses at positions [N, 3] that face the target."""
    return np.stack([look_at(position, rig.target, rig.up) for position in positions])
