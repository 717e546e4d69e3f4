"""The splats a fit starts from: one per sparse point, and a thin shell far behind everything.

The shell stands in for sky and for whatever SfM found no points on. Without it such pixels are filled by splats close
to the cameras, which look right in the photos and are floaters everywhere else, or stay black.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from difix3d.errors import ReconstructionError
from difix3d.types import SH_C0, Camera, Splats

_INITIAL_OPACITY = 0.1
_SHELL_OPACITY = 0.5
_NEIGHBOURS = 3
_LARGEST_ANGLE = 0.1
"""An isolated point starts no larger than this share of its distance from the cameras."""
_SHELL_DIRECTIONS = 3000
"""On the whole sphere: one every 3.7 degrees; the photos usually see a small part of it."""
_MEDIAN_OF = 5_000_000
"""Depths that a median is taken of, at most: 40 MB."""
_SHELL_DISTANCE = 6.0
"""In typical scene depths, beyond the cameras' own spread; further out parallax is no longer visible."""


def scene_depth(points: NDArray, cameras: Sequence[Camera]) -> float:
    """The median depth of sparse points in front of the cameras: the length that step sizes are measured in.

    points: [P, 3] world. Unlike the spread of the cameras (3DGS' scene extent) it also suits forward-facing and
    nadir captures. ReconstructionError where no point is in front of any camera.
    """
    depths = []
    apart = 1 + len(points) * len(cameras) // _MEDIAN_OF
    for index, camera in enumerate(cameras):
        z = points[index % apart :: apart] @ camera.cam_from_world[2, :3] + camera.cam_from_world[2, 3]
        depths.append(z[z > 0])
    if not points.size or not any(len(z) for z in depths):
        raise ReconstructionError("No sparse point lies in front of a camera; the reconstruction cannot be fitted.")
    return float(np.median(np.concatenate(depths)))


def splats_from_points(
    points: NDArray,
    colors: NDArray[np.uint8],
    cameras: Sequence[Camera],
    sh_degree: int = 0,
    max_count: int | None = None,
    seed: int = 0,
) -> Splats:
    """One isotropic splat per sparse point, as large as its distance to the three nearest (3DGS, section 5.1).

    points: [P, 3] world; colors: [P, 3] uint8. More than max_count are thinned at random. Points without a neighbour
    at a sensible distance (SfM outliers) start small instead of covering the view.
    """
    depth = scene_depth(points, cameras)
    nearest_camera, _ = cKDTree(np.stack([camera.position for camera in cameras])).query(points)
    kept = nearest_camera < 30 * depth
    if max_count is not None and kept.sum() > max_count:
        chosen = np.random.default_rng(seed).permutation(np.flatnonzero(kept))[:max_count]
        kept = np.isin(np.arange(len(points)), chosen)
    points, colors, nearest_camera = points[kept], colors[kept], nearest_camera[kept]
    if len(points) > _NEIGHBOURS:
        distances, _ = cKDTree(points).query(points, k=_NEIGHBOURS + 1)
        scales = np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1))
    else:
        scales = np.full(len(points), _LARGEST_ANGLE * depth)
    scales = np.clip(scales, 1e-4 * depth, _LARGEST_ANGLE * np.maximum(nearest_camera, 0.1 * depth))
    return _isotropic(points, colors / 255.0, scales, _INITIAL_OPACITY, sh_degree)


def shell_splats(
    points: NDArray,
    cameras: Sequence[Camera],
    photos: Sequence[NDArray[np.uint8]],
    sh_degree: int = 0,
    max_count: int = _SHELL_DIRECTIONS,
) -> Splats:
    """Splats on a sphere around the scene, only where a photo looks, coloured by the median photo pixel there.

    points: [P, 3] world, the sparse points; photos: one [H, W, 3] uint8 per camera, of that camera's size. max_count:
    at least 1; where it would be passed, fewer and larger ones stand in for all.
    """
    directions = _SHELL_DIRECTIONS
    while len(shell := _shell(points, cameras, photos, sh_degree, directions)) > max_count:
        directions = directions * max_count // len(shell)
    return shell


def _shell(
    points: NDArray, cameras: Sequence[Camera], photos: Sequence[NDArray[np.uint8]], sh_degree: int, count: int
) -> Splats:
    """What is seen of `count` splats on the whole sphere."""
    positions = np.stack([camera.position for camera in cameras])
    centre = positions.mean(0)
    spread = np.linalg.norm(positions - centre, axis=1).max()
    distances = np.linalg.norm(points - centre, axis=1)
    # Behind nearly every point, so that the shell never hides what is there.
    radius = max(spread + _SHELL_DISTANCE * scene_depth(points, cameras), 1.5 * float(np.percentile(distances, 98)))
    directions = _fibonacci_sphere(count)
    world = np.concatenate([centre + radius * directions, np.ones((len(directions), 1))], axis=1)

    seen = np.full((len(cameras), len(directions), 3), np.nan)
    spacing = np.sqrt(4 * np.pi / len(directions))
    for index, (camera, photo) in enumerate(zip(cameras, photos)):
        in_camera = (world @ camera.cam_from_world.T)[:, :3]
        z = np.where(in_camera[:, 2] > 1e-6, in_camera[:, 2], np.inf)
        pixels = in_camera[:, :2] / z[:, None] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
        margin = spacing * camera.K[0, 0]  # a splat just outside still reaches in
        size = np.array([camera.width, camera.height])
        inside = np.isfinite(z) & (pixels > -margin).all(1) & (pixels < size + margin).all(1)
        column, row = np.clip(pixels[inside].astype(int), 0, size - 1).T
        seen[index, inside] = photo[row, column] / 255.0
    visible = np.isfinite(seen[..., 0]).any(0)
    colors = np.nanmedian(seen[:, visible], axis=0) if visible.any() else np.empty((0, 3))
    scales = np.full(int(visible.sum()), 0.6 * spacing * radius)
    return _isotropic(world[visible, :3], colors, scales, _SHELL_OPACITY, sh_degree)


def joined(first: Splats, second: Splats) -> Splats:
    """Both sets as one; they have the same SH degree."""
    names = ("means", "quats", "log_scales", "opacity_logits", "sh")
    return Splats(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


def _isotropic(means: NDArray, colors: NDArray, scales: NDArray, opacity: float, sh_degree: int) -> Splats:
    count = len(means)
    sh = np.zeros((count, (sh_degree + 1) ** 2, 3), np.float32)
    sh[:, 0] = (colors - 0.5) / SH_C0
    quats = np.tile([1.0, 0.0, 0.0, 0.0], (count, 1))
    log_scales = np.repeat(np.log(scales)[:, None], 3, axis=1)
    return Splats(means, quats, log_scales, np.full(count, np.log(opacity / (1 - opacity))), sh)


def _fibonacci_sphere(count: int) -> NDArray[np.float64]:
    """[count, 3] unit vectors, evenly spread."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = index * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - z**2)
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), z], axis=1)
