"""Two textured walls with exact depth, to warp between: a slanted one, and a small one in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difix3d.geometry import look_at
from difix3d.types import Camera

FRONT_Y, FRONT_HALF_SIZE = -1.0, 0.25
SLANT = 0.3


@dataclass(frozen=True)
class Seen:
    """rgb: [H, W, 3] float32 in [0, 1]; depth: [H, W] float32; front: [H, W] bool, where the small wall is seen."""

    rgb: np.ndarray
    depth: np.ndarray
    front: np.ndarray

    @property
    def photo(self) -> np.ndarray:
        return (self.rgb * 255 + 0.5).astype(np.uint8)


def camera_at(x: float, z: float = 0.0, y: float = -3.0, width: int = 120, height: int = 90) -> Camera:
    """A camera south of the walls that looks at the middle of them; its pixels are not square."""
    K = np.array([[1.1 * width, 0, 0.49 * width], [0, 1.12 * width, 0.52 * height], [0, 0, 1]])
    return Camera(K, width, height, look_at((x, y, z), (0, 0, 0)))


def texture(u: np.ndarray, v: np.ndarray, seed: float) -> np.ndarray:
    """[..., 3] smooth in world units: nothing finer than some pixels, so that interpolation errs little."""
    waves = [np.sin(9 * u + 3 * np.sin(4 * v + c + seed)) * np.cos(8 * v + 2 * c + np.sin(5 * u)) for c in range(3)]
    return (0.5 + 0.35 * np.stack(waves, axis=-1)).astype(np.float32)


def see(camera: Camera, front: bool = True) -> Seen:
    """Both walls, or the back one alone: y = SLANT x, and y = FRONT_Y for |x|, |z| < FRONT_HALF_SIZE."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays_cam = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T
    rays = rays_cam @ camera.cam_from_world[:3, :3]
    origin = camera.position
    back = (SLANT * origin[0] - origin[1]) / (rays[..., 1] - SLANT * rays[..., 0])
    near = (FRONT_Y - origin[1]) / rays[..., 1]
    at_near = origin + near[..., None] * rays
    hit = np.abs(at_near[..., [0, 2]]).max(axis=-1) < FRONT_HALF_SIZE
    hit = hit & front
    depth = np.where(hit, near, back)
    points = origin + depth[..., None] * rays
    u, v = points[..., 0], points[..., 2]
    rgb = np.where(hit[..., None], texture(u, v, 2.0)[..., ::-1] * 0.5, texture(u, v, 0.0))
    return Seen(rgb.astype(np.float32), depth.astype(np.float32), hit)
