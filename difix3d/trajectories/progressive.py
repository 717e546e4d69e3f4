"""Cameras on their way from the capture outward, a bounded step at a time (Difix3D+, progressive 3D update).

Notation: poses [N, 4, 4] are world_from_cam, rotation R and position t. The distance of two poses is |t_a - t_b| plus
the angle between R_a and R_b in radians; positions are in world units, so scenes should be about unit size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

from difix3d.types import require_shape

Floats = NDArray[np.float64]

STEP = 0.5
"""How far the published trainers go at a time."""
_SAME_PLACE = 1e-6


def pose_distances(a: ArrayLike, b: ArrayLike) -> Floats:
    """[N, M] distances between poses a [N, 4, 4] and b [M, 4, 4]."""
    a, b = _poses("a", a), _poses("b", b)
    apart = np.linalg.norm(a[:, None, :3, 3] - b[None, :, :3, 3], axis=-1)
    traces = np.einsum("nij,mij->nm", a[:, :3, :3], b[:, :3, :3])
    return apart + np.arccos(np.clip((traces - 1) / 2, -1.0, 1.0))


def nearest_poses(poses: ArrayLike, targets: ArrayLike) -> NDArray[np.int64]:
    """[M]: for each target the index of the nearest of `poses`, the first where two are equally near."""
    return pose_distances(poses, targets).argmin(axis=0)


def shift_poses(current: ArrayLike, targets: ArrayLike, step: float = STEP) -> Floats:
    """[M, 4, 4]: for each target [M, 4, 4], the nearest of `current` [N, 4, 4] moved toward it by `step`.

    A target within `step` is reached. Otherwise the position moves by `step` (all the way where no more than that
    would be left) and the rotation by the same share of the way, step / |t_target - t_current|, along the arc.
    """
    current, targets = _poses("current", current), _poses("targets", targets)
    distances = pose_distances(current, targets)
    nearest = distances.argmin(axis=0)
    shifted = targets.copy()
    for index, (start, distance) in enumerate(zip(nearest, distances.min(axis=0))):
        if distance > step:
            shifted[index] = _moved(current[start], targets[index], step)
    return shifted


def _moved(start: Floats, target: Floats, step: float) -> Floats:
    way = target[:3, 3] - start[:3, 3]
    length = float(np.linalg.norm(way))
    moved = target.copy()
    if length <= _SAME_PLACE:
        return moved
    share = min(step / length, 1.0)
    if length - step > step:
        moved[:3, 3] = start[:3, 3] + share * way
    arc = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([start[:3, :3], target[:3, :3]])))
    moved[:3, :3] = arc(share).as_matrix()
    return moved


def _poses(name: str, poses: ArrayLike) -> Floats:
    array = np.asarray(poses, dtype=np.float64)
    require_shape(name, array, ("N", 4, 4))
    return array
