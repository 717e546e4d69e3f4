"""Did the camera move, or only turn? Registered share and reprojection error do not tell; this does.

If it only turned, one focal length f and one rotation per pair explain all matches: x2 ~ K R K^-1 x1. (A flat scene
seen by a moving camera also gives homographies, but not of this form.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 0.004
"""Of the longer side: 4 px at 960, what COLMAP's two-view geometry accepts as an inlier."""


def rotation_only_share(pairs: Sequence[tuple[Floats, Floats]], size: tuple[int, int]) -> tuple[float, float]:
    """(share of the pairs that a turn alone explains, focal length in pixels at which it is largest).

    pairs: matched pixels ([M, 2], [M, 2]) of two photos that are both `size` (width, height) large. A pair counts
    as explained when 80 % of its matches lie within TOLERANCE of where the rotation puts them.
    """
    longer = max(size)
    center = np.array(size) / 2
    best = (0.0, float(longer))
    if not pairs:
        return best
    for focal in longer * np.geomspace(0.4, 4.0, 24):
        explained = np.mean(
            [_turned(first - center, second - center, focal, longer * TOLERANCE) for first, second in pairs]
        )
        if explained > best[0]:
            best = (float(explained), float(focal))
    return best


def _turned(first: Floats, second: Floats, focal: float, tolerance_px: float) -> bool:
    rays_first, rays_second = _rays(first, focal), _rays(second, focal)
    keep = np.ones(len(first), dtype=bool)
    for _ in range(3):  # the matches are verified, so few are wrong: dropping the worst twice is enough
        rotation = _rotation(rays_first[keep], rays_second[keep])
        turned = rays_first @ rotation.T
        in_front = turned[:, 2] > 1e-6
        pixels = focal * turned[:, :2] / np.where(in_front, turned[:, 2], 1.0)[:, None]
        distance = np.where(in_front, np.linalg.norm(pixels - second, axis=1), np.inf)
        within = float((distance < tolerance_px).mean())
        keep = distance <= max(tolerance_px, float(np.quantile(distance, 0.7)))
    return within >= 0.8


def _rays(pixels: Floats, focal: float) -> Floats:
    rays = np.column_stack([pixels / focal, np.ones(len(pixels))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _rotation(source: Floats, target: Floats) -> Floats:
    """Rotation that best turns unit rays `source` into `target` (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(target.T @ source)
    return u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
