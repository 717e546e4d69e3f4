"""Paths through the captured cameras, or beside them. Each gives [frames, 4, 4] cam_from_world."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, Slerp

from difix3d.trajectories.rig import UP, Floats, Rig
from difix3d.types import View

_JUMP_DEG = 20.0
"""Between two photos further apart than this, as seen from the target, the path bends around the target."""


def interpolate(rig: Rig, frames: int, shift: float = 0.0) -> Floats:
    """Through the captured cameras, each moved sideways by `shift` times the viewing distance."""
    positions, rotations = _captured_path(rig, frames)
    # At most a quarter of what the picture spans at that distance, so that the subject stays in it.
    lens = rig.central
    most = 0.25 * lens.width / lens.K[0, 0]
    sideways = rotations[:, 0] * float(np.clip(shift, -most, most)) * rig.distance
    # Of the two sides, the one with more room.
    room = [rig.clearance(positions + sign * sideways).min() for sign in (1, -1)]
    sign = 1 if room[0] >= room[1] else -1
    return _posed(rig.clear(lambda share: positions + sign * share * sideways), rotations)


def _posed(positions: Floats, rotations: Floats) -> Floats:
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = rotations
    poses[:, :3, 3] = -np.einsum("nij,nj->ni", rotations, positions)
    return poses


def _captured_path(rig: Rig, frames: int) -> tuple[Floats, Floats]:
    """Positions [frames, 3] and cam_from_world rotations [frames, 3, 3] through the captured cameras.

    A cubic spline through the centres and slerp between the rotations, at a constant speed (where turning counts as
    moving), then smoothed by about the distance between two photos: hands shake, and a video of it is unpleasant.
    """
    views = _in_order(rig)
    positions, rotations = _with_bends(
        np.stack([view.camera.position for view in views]),
        np.stack([view.camera.cam_from_world[:3, :3] for view in views]),
        rig.target,
    )
    steps = _steps(positions, rotations, rig.distance)
    kept = np.concatenate([[True], steps > 1e-9 * rig.distance])
    positions, rotations = positions[kept], rotations[kept]
    if len(positions) == 1:
        return np.repeat(positions, frames, axis=0), np.repeat(rotations, frames, axis=0)

    # Square roots (centripetal): a spline over them does not overshoot where photos are unevenly spaced.
    knots = np.concatenate([[0.0], np.cumsum(np.sqrt(_steps(positions, rotations, rig.distance)))])
    fine = np.linspace(0, knots[-1], max(20 * len(positions), 4 * frames))
    fine_positions = CubicSpline(knots, positions, bc_type="natural")(fine)
    fine_rotations = Slerp(knots, Rotation.from_matrix(rotations))(fine)
    travelled = np.concatenate([[0.0], np.cumsum(_steps(fine_positions, fine_rotations.as_matrix(), rig.distance))])
    per_photo = travelled[-1] / (len(positions) - 1)

    count = max(8 * len(positions), 4 * frames)
    at = np.interp(np.linspace(0, travelled[-1], count), travelled, fine)
    sigma = 0.75 * per_photo / (travelled[-1] / (count - 1))
    smooth = _smoothed(CubicSpline(knots, positions, bc_type="natural")(at), sigma)
    quats = Slerp(knots, Rotation.from_matrix(rotations))(at).as_quat()
    flips = np.cumprod(np.concatenate([[1.0], np.where(np.sum(quats[1:] * quats[:-1], axis=1) < 0, -1.0, 1.0)]))
    turned = Rotation.from_quat(_smoothed(quats * flips[:, None], sigma))

    travelled = np.concatenate([[0.0], np.cumsum(_steps(smooth, turned.as_matrix(), rig.distance))])
    wanted = np.interp(np.linspace(0, travelled[-1], frames), travelled, np.arange(count))
    at_frames = np.stack([np.interp(wanted, np.arange(count), smooth[:, axis]) for axis in range(3)], axis=1)
    return at_frames, Slerp(np.arange(count), turned)(wanted).as_matrix()


def _smoothed(values: Floats, sigma: float) -> Floats:
    """values [N, K] along N; point reflection at the ends keeps the first and the last where they are."""
    pad = min(len(values) - 1, int(4 * sigma) + 1)
    before = 2 * values[0] - values[pad:0:-1]
    after = 2 * values[-1] - values[-2 : -pad - 2 : -1]
    return gaussian_filter1d(np.concatenate([before, values, after]), sigma, axis=0)[pad : pad + len(values)]


def _steps(positions: Floats, rotations: Floats, distance: float) -> Floats:
    """[N - 1] world units between neighbours; one radian of turning counts as half the viewing distance."""
    turn = Rotation.from_matrix(rotations[1:] @ rotations[:-1].transpose(0, 2, 1)).magnitude()
    return np.hypot(np.linalg.norm(np.diff(positions, axis=0), axis=1), 0.5 * distance * turn)


def _in_order(rig: Rig) -> list[View]:
    """The views by name, as ingest numbers them, unless a short tour is much shorter than that."""
    views = sorted(rig.reconstruction.views, key=lambda view: view.name)
    if len(views) < 4:
        return views
    positions = np.stack([view.camera.position for view in views])
    rotations = Rotation.from_matrix(np.stack([view.camera.cam_from_world[:3, :3] for view in views]))
    turn = np.stack([(rotations * rotation.inv()).magnitude() for rotation in rotations])
    apart = np.hypot(
        np.linalg.norm(positions[:, None] - positions[None], axis=-1), 0.5 * rig.distance * (turn + turn.T) / 2
    )
    as_named = np.arange(len(views))
    tour = _tour(apart)
    if _length(apart, as_named) <= 1.5 * _length(apart, tour):
        return views
    return [views[index] for index in tour]


def _length(apart: Floats, order: NDArray[np.int64]) -> float:
    return float(apart[order[:-1], order[1:]].sum())


def _tour(apart: Floats) -> NDArray[np.int64]:
    """A short open path through all N given their distances [N, N]: nearest neighbour from an end, then 2-opt."""
    count = len(apart)
    start = int(np.argmax(np.round(apart.sum(axis=1), 9)))
    left = set(range(count)) - {start}
    order = [start]
    while left:
        order.append(min(left, key=lambda index: (apart[order[-1], index], index)))
        left.remove(order[-1])
    tour = np.array(order)
    for _ in range(30):  # sweeps; a few are enough, and a bound keeps 1,000 photos within seconds
        improved = False
        for first in range(count - 1):
            # Reversing tour[first + 1 .. last] replaces the edge after `first` and the one after `last`.
            last = np.arange(first + 1, count)
            a, b, c = tour[first], tour[first + 1], tour[last]
            beyond = np.append(tour[first + 2 :], -1)
            after = np.where(beyond >= 0, apart[c, beyond] - apart[b, beyond], 0.0)
            gain = apart[a, b] - apart[a, c] + after
            best = int(np.argmax(gain))
            if gain[best] > 1e-9 * apart.max():
                tour[first + 1 : last[best] + 1] = tour[first + 1 : last[best] + 1][::-1]
                improved = True
        if not improved:
            break
    return tour


def _with_bends(positions: Floats, rotations: Floats, target: Floats) -> tuple[Floats, Floats]:
    """The same with poses added where two neighbours are far apart around the target: a chord could cut through it."""
    out_positions, out_rotations = [positions[:1]], [rotations[:1]]
    for index in range(len(positions) - 1):
        a, b = positions[index] - target, positions[index + 1] - target
        lengths = np.linalg.norm(a), np.linalg.norm(b)
        if min(lengths) > 0:
            axis = np.cross(a, b)
            angle = float(np.arctan2(np.linalg.norm(axis), a @ b))
            if np.radians(_JUMP_DEG) < angle:
                if np.linalg.norm(axis) < 1e-6 * lengths[0] * lengths[1]:  # opposite: around the vertical
                    axis = UP - (UP @ a) * a / lengths[0] ** 2
                    axis = axis if np.linalg.norm(axis) > 1e-6 else np.array([1.0, 0.0, 0.0])
                axis = axis / np.linalg.norm(axis)
                share = np.linspace(0, 1, int(np.degrees(angle) // _JUMP_DEG) + 2)[1:-1]
                turned = Rotation.from_rotvec((share * angle)[:, None] * axis).apply(a / lengths[0])
                out_positions.append(target + turned * (lengths[0] + share * (lengths[1] - lengths[0]))[:, None])
                pair = Rotation.from_matrix(rotations[index : index + 2])
                out_rotations.append(Slerp([0, 1], pair)(share).as_matrix())
        out_positions.append(positions[index + 1 : index + 2])
        out_rotations.append(rotations[index + 1 : index + 2])
    return np.concatenate(out_positions), np.concatenate(out_rotations)
