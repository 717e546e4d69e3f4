"""What the captured cameras have in common, as the paths need it.

Notation
    target      [3] where the cameras look
    directions  [N, 3] unit, from the target to the cameras
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from difix3d.geometry import looked_at_point, project
from difix3d.types import Camera, Reconstruction

Floats = NDArray[np.float64]

UP = np.array([0.0, 0.0, 1.0])
_LARGEST_GAP_DEG = 120.0
"""Cameras that leave no wider gap than this in their ring go around the subject."""
_OVERHEAD_DEG = 30.0
"""Cameras nearer than this to straight above (or below) look down, whatever ring they make."""
_LOWEST = 0.3
"""No path is nearer to the ground than this share of the lowest camera's height above it."""
_NEIGHBOUR = 8
"""Clearance is the distance to the 8th nearest sparse point: a few stray points are no obstacle."""
_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


@dataclass(frozen=True)
class Rig:
    """The captured cameras, as the paths see them."""

    reconstruction: Reconstruction

    @cached_property
    def target(self) -> Floats:
        return looked_at_point(self.reconstruction)

    @cached_property
    def seers(self) -> list[Camera]:
        """The cameras that have the target in their picture; all, where it is in fewer than three.

        From other cameras' directions no photo shows what the middle of a novel picture would.
        """
        cameras = [view.camera for view in self.reconstruction.views]
        seeing = [camera for camera in cameras if _sees(camera, self.target)]
        return seeing if len(seeing) >= 3 else cameras

    @cached_property
    def offsets(self) -> Floats:
        """[N, 3] from the target to each of the seers, never zero."""
        offsets = np.stack([camera.position for camera in self.seers]) - self.target
        distances = np.linalg.norm(offsets, axis=1)
        behind = -np.stack([camera.forward for camera in self.seers])
        return np.where(distances[:, None] > 1e-9, offsets, 1e-6 * behind)

    @cached_property
    def distance(self) -> float:
        return float(np.median(np.linalg.norm(self.offsets, axis=1)))

    @cached_property
    def directions(self) -> Floats:
        return self.offsets / np.linalg.norm(self.offsets, axis=1, keepdims=True)

    @cached_property
    def goes_around(self) -> bool:
        """Whether the cameras make a ring around the vertical through the target."""
        steepness = np.degrees(np.arccos(np.clip(np.abs(self.directions[:, 2]), 0, 1)))
        azimuths = np.sort(np.arctan2(self.directions[:, 1], self.directions[:, 0]))
        gaps = np.diff(azimuths, append=azimuths[0] + 2 * np.pi)
        beside = np.percentile(steepness, 20) >= _OVERHEAD_DEG
        return bool(beside and np.degrees(gaps.max()) <= _LARGEST_GAP_DEG)

    @cached_property
    def central(self) -> Camera:
        """The seer with the least sum of angles to the others' directions."""
        angles = np.arccos(np.clip(self.directions @ self.directions.T, -1, 1))
        return self.seers[int(np.argmin(np.round(angles.sum(axis=1), 9)))]

    @cached_property
    def middle(self) -> Floats:
        """[3] unit: the middle of the directions, robust to where most photos were taken."""
        mean = self.directions.mean(axis=0)
        if np.linalg.norm(mean) < 1e-6:
            mean = self.central.position - self.target
        return mean / np.linalg.norm(mean)

    @cached_property
    def up(self) -> Floats:
        """[3] unit: the sky in novel pictures; for cameras that look down, the top of the central view's picture."""
        if abs(self.middle[2]) < np.cos(np.radians(_OVERHEAD_DEG)) or self.goes_around:
            return UP
        return -self.central.cam_from_world[1, :3]

    @cached_property
    def ground(self) -> float:
        """z below which no path goes: a share of the lowest camera's height above the lowest points around."""
        lowest_camera = float(min(view.camera.position[2] for view in self.reconstruction.views))
        across = np.linalg.norm((self.reconstruction.points - self.target)[:, :2], axis=1)
        near = self.reconstruction.points[across < 1.2 * self.distance, 2]
        floor = float(np.percentile(near, 2)) if len(near) else -np.inf
        if not floor < lowest_camera:
            return lowest_camera
        return floor + _LOWEST * (lowest_camera - floor) if np.isfinite(floor) else -np.inf

    @cached_property
    def _tree(self) -> cKDTree | None:
        return cKDTree(self.reconstruction.points) if len(self.reconstruction.points) >= _NEIGHBOUR else None

    def clearance(self, positions: Floats) -> Floats:
        """[N] distance from positions [N, 3] to the 8th nearest sparse point; infinite without points."""
        if self._tree is None:
            return np.full(len(positions), np.inf)
        return self._tree.query(positions, k=[_NEIGHBOUR])[0][:, 0]

    @cached_property
    def needed_clearance(self) -> float:
        """0.4 of the least that the captured cameras kept (they stood in free space), at most 0.1 of the distance."""
        if self._tree is None:
            return 0.0
        positions = np.stack([view.camera.position for view in self.reconstruction.views])
        return float(min(0.4 * self.clearance(positions).min(), 0.1 * self.distance))

    def clear(self, path: Callable[[float], Floats]) -> Floats:
        """path(share) [N, 3] with the largest share that keeps away from the sparse points."""
        for share in _SHARES:
            positions = path(share)
            if self.clearance(positions).min() >= self.needed_clearance:
                break
        return positions


def _sees(camera: Camera, point: Floats) -> bool:
    (pixel,), (depth,) = project(camera, point[None])
    return bool(depth > 0 and (pixel >= 0).all() and (pixel <= (camera.width, camera.height)).all())
