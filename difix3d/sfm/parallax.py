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
    focals = longer * np.geomspace(0.4, 4.0, 24)
    if not pairs:
        return 0.0, float(longer)
    explained = np.mean(
        [_turned(first - center, second - center, focals, longer * TOLERANCE) for first, second in pairs], axis=0
    )
    best = int(np.argmax(explained))
    return (float(explained[best]), float(focals[best])) if explained[best] > 0 else (0.0, float(longer))


def _turned(first: Floats, second: Floats, focals: Floats, tolerance_px: float) -> NDArray[np.bool_]:
    """[F], for each focal length."""
    rays_first, rays_second = _rays(first, focals), _rays(second, focals)
    keep = np.ones((len(focals), len(first)), dtype=bool)
    for _ in range(3):  # the matches are verified, so few are wrong: dropping the worst twice is enough
        rotation = _rotation(rays_first * keep[..., None], rays_second)
        turned = rays_first @ rotation.transpose(0, 2, 1)
        in_front = turned[..., 2] > 1e-6
        pixels = focals[:, None, None] * turned[..., :2] / np.where(in_front, turned[..., 2], 1.0)[..., None]
        distance = np.where(in_front, np.linalg.norm(pixels - second, axis=-1), np.inf)
        within = (distance < tolerance_px).mean(axis=1)
        keep = distance <= np.maximum(tolerance_px, np.quantile(distance, 0.7, axis=1))[:, None]
    return within >= 0.8


def _rays(pixels: Floats, focals: Floats) -> Floats:
    """[F, M, 3] unit directions of pixels [M, 2]."""
    places = np.broadcast_to(pixels, (len(focals), *pixels.shape)) / focals[:, None, None]
    rays = np.concatenate([places, np.ones((*places.shape[:2], 1))], axis=2)
    return rays / np.linalg.norm(rays, axis=2, keepdims=True)


def _rotation(source: Floats, target: Floats) -> Floats:
    """[F, 3, 3]: rotations that best turn unit rays `source` [F, M, 3] into `target` (Kabsch 1976)."""
    u, _, vt = np.linalg.svd(target.transpose(0, 2, 1) @ source)
    signs = np.ones((len(u), 3))
    signs[:, 2] = np.sign(np.linalg.det(u @ vt))
    return (u * signs[:, None]) @ vt
