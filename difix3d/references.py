"""Which capture photos help at a novel camera: those that saw the same things, from about the same side.

Nearness of the cameras alone misleads: two that stand side by side may look at different things, and a photo from
behind a wall shows the wall. The sparse points know what each photo saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from difix3d.geometry import looked_at_point, pose_distance, project
from difix3d.types import Camera, Reconstruction, View, require_shape

_PARALLAX_DEG = 20.0
"""A point seen from this far aside still counts 0.6: surfaces look much the same, occlusions begin to differ."""
_OCCLUSION_TOLERANCE = 0.1
"""Points up to this share behind the rendered depth count as seen: rendered depth is soft. So do those that are deeper,
or less deep, by this share than the ones found around them."""
_CONSIDERED = 32
"""Of the photos by rank: what is chosen together is chosen among so many."""
_WORTH_IT = 0.003
"""What a further photo must add to the score that those chosen have together, times the square of that score: where
they show next to everything from nearby it only blurs, and where they show little, little is welcome."""
_CELLS = 24
"""Along a photo's longer side: a cell and its eight neighbours hold some of the points found in it."""


@dataclass(frozen=True)
class RankedReference:
    """One photo, as seen from a novel camera.

    score: share of the novel picture's visible points that this photo shows too, in [0, 1]; points that it shows from
    another side, or coarser, count less. shared: how many points that is, each counted as 1. distance: world units
    between the camera centres; angle_deg: between the orientations.
    """

    name: str
    score: float
    shared: int
    distance: float
    angle_deg: float


def rank_references(
    camera: Camera,
    reconstruction: Reconstruction,
    names: Iterable[str] | None = None,
    *,
    depth: NDArray[np.float32] | None = None,
) -> list[RankedReference]:
    """The photos `names` (None: all), the most helpful at `camera` first.

    Ranked by score, then by pose (the only criterion where views have no points), then by name. depth: [H, W] as
    rendered at `camera`, 0 where nothing was hit: points behind it are not visible. KeyError for an unknown name.
    """
    views = _views(reconstruction, names)
    rows = _seen_points(camera, reconstruction, views, depth)
    return [one for one, _, _ in _ranked(camera, reconstruction, views, rows)]


def choose_references(
    camera: Camera,
    reconstruction: Reconstruction,
    names: Iterable[str] | None = None,
    *,
    most: int,
    depth: NDArray[np.float32] | None = None,
) -> list[RankedReference]:
    """At most `most` photos that together show what `camera` sees, the most helpful alone first.

    The next is always the one that adds most: each point counts for as much as it does in the chosen photo that shows
    it best (greedy facility location: Nemhauser, Wolsey and Fisher 1978). One that adds too little is left out: where a
    photo shows the same from nearly the same place, further ones only blur it. Where views have no points, the
    first `most` by rank. Arguments and errors as for rank_references; ValueError if `most` is negative.
    """
    if most < 0:
        raise ValueError(f"most is a number of photos, 0 or more, not {most}.")
    views = _views(reconstruction, names)
    rows = _seen_points(camera, reconstruction, views, depth)
    ranked = _ranked(camera, reconstruction, views, rows)
    if not ranked or ranked[0][0].score == 0:
        return [one for one, _, _ in ranked[:most]]
    likely = [one for one, _, _ in ranked[:_CONSIDERED]]
    worth = np.zeros((len(likely), len(rows)), np.float32)
    for row, (_, shown, weights) in zip(worth, ranked):
        row[shown] = weights
    chosen: list[RankedReference] = []
    have = np.zeros(len(rows), np.float32)
    while len(chosen) < min(most, len(likely)):
        gains = np.maximum(worth - have, 0).mean(axis=1, dtype=np.float64).round(9)
        best = int(np.argmax(gains))  # of equal ones the first by rank
        if chosen and gains[best] < _WORTH_IT * float(have.mean(dtype=np.float64)) ** 2:
            break
        chosen.append(likely[best])
        have = np.maximum(have, worth[best])
    return chosen


def _views(reconstruction: Reconstruction, names: Iterable[str] | None) -> Sequence[View]:
    return reconstruction.views if names is None else [reconstruction.view(name) for name in dict.fromkeys(names)]


def _seen_points(
    camera: Camera, reconstruction: Reconstruction, views: Sequence[View], depth: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    """Indices of the points that are visible at the camera and were found in any of the views."""
    found = np.zeros(len(reconstruction.points), dtype=bool)
    for view in views:
        found[view.point_indices] = True
    return np.flatnonzero(_visible(camera, reconstruction.points, depth) & found)


def _ranked(
    camera: Camera, reconstruction: Reconstruction, views: Sequence[View], rows: NDArray[np.int64]
) -> list[tuple[RankedReference, NDArray[np.bool_], NDArray[np.float32]]]:
    """Each photo, the most helpful first, with which of `rows` it shows and what each of those counts."""
    scale = max(float(np.linalg.norm(looked_at_point(reconstruction) - camera.position)), 1e-12)
    ranked = []
    for view in views:
        shown = _shown(view, reconstruction.points, rows)
        weights = _agreement(camera, view.camera, reconstruction.points[rows[shown]])
        distance, angle = pose_distance(camera, view.camera)
        # Rounded, so that the order does not hang on the last bit of a sum.
        score = round(float(weights.sum()) / max(1, len(rows)), 9)
        one = RankedReference(view.name, score, len(weights), distance, angle)
        ranked.append((one, shown, weights.astype(np.float32)))
    return sorted(ranked, key=lambda each: (-each[0].score, round(_apart(each[0], scale), 9), each[0].name))


def _apart(one: RankedReference, scale: float) -> float:
    """Pose distance as one number: a radian of turning is as far as the viewing distance."""
    return float(np.hypot(one.distance / scale, np.radians(one.angle_deg)))


def _visible(camera: Camera, points: NDArray[np.float64], depth: NDArray[np.float32] | None) -> NDArray[np.bool_]:
    """[P] whether each point is in front of the camera, in its picture, and not behind the rendered surface."""
    pixels, z = project(camera, points)
    inside = _in_picture(camera, pixels, z)
    if depth is None:
        return inside
    require_shape("depth", depth, (camera.height, camera.width))
    column, row = pixels[inside].astype(np.int64).T
    surface = np.asarray(depth, dtype=np.float64)[row, column]
    inside[inside] = (surface <= 0) | (z[inside] <= surface * (1 + _OCCLUSION_TOLERANCE))
    return inside


def _shown(view: View, points: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[len(rows)] whether the photo shows these of the points: found in it, or as deep as what was found around."""
    camera = view.camera
    found = np.zeros(len(points), bool)
    found[view.point_indices] = True
    cell = max(camera.width, camera.height) / _CELLS
    shape = int(camera.height / cell) + 1, int(camera.width / cell) + 1
    nearest, deepest = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    pixels, z = project(camera, points[view.point_indices])
    ahead = _in_picture(camera, pixels, z)
    column, row = (pixels[ahead] / cell).astype(np.int64).T
    np.minimum.at(nearest, (row, column), z[ahead].astype(np.float32))
    np.maximum.at(deepest, (row, column), z[ahead].astype(np.float32))
    nearest, deepest = _around(nearest).min(axis=(2, 3)), _around(deepest).max(axis=(2, 3))
    pixels, z = project(camera, points[rows])
    inside = _in_picture(camera, pixels, z)
    column, row = (pixels[inside] / cell).astype(np.int64).T
    shown = found[rows]
    low, high = nearest[row, column] * (1 - _OCCLUSION_TOLERANCE), deepest[row, column] * (1 + _OCCLUSION_TOLERANCE)
    shown[inside] |= (z[inside] >= low) & (z[inside] <= high)
    return shown


def _around(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """[rows, columns, 3, 3]: each cell and its eight neighbours."""
    return sliding_window_view(np.pad(grid, 1, mode="edge"), (3, 3))


def _in_picture(camera: Camera, pixels: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (z > 0) & (pixels >= 0).all(axis=1) & (pixels < (camera.width, camera.height)).all(axis=1)


def _agreement(camera: Camera, other: Camera, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M] in [0, 1]: how much alike two cameras see each point; less for parallax and for a coarser photo."""
    rays, other_rays = points - camera.position, points - other.position
    lengths, other_lengths = np.linalg.norm(rays, axis=1), np.linalg.norm(other_rays, axis=1)
    cosine = np.sum(rays * other_rays, axis=1) / np.maximum(lengths * other_lengths, 1e-300)
    parallax = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    # Pixels per world unit at the point, as shares of the picture, so that the same lens at another size is the same.
    detail = (other.K[0, 0] / other.width / np.maximum(other_lengths, 1e-300)) * (
        lengths * camera.width / camera.K[0, 0]
    )
    return np.exp(-0.5 * (parallax / _PARALLAX_DEG) ** 2) * np.minimum(1.0, detail)
