"""A picture of what was found: the sparse points and the cameras' frustums, seen obliquely from above."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from difix3d.geometry import look_at, project
from difix3d.types import Camera, Reconstruction

Floats = NDArray[np.float64]

SIZE = (1120, 700)
_SUPERSAMPLED = 2
_BACKGROUND = (18, 20, 26)
_CAMERA = (255, 176, 60)
_PATH = (120, 92, 52)
_ELEVATION_DEG = 38.0
_FOCAL = 1.6  # of the picture's height: a mild perspective


def draw(reconstruction: Reconstruction, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """[H, W, 3] uint8 for `size` (width, height). World axes as `reconstruct` leaves them: z up, scene at the origin.

    Cameras are joined in the order of their names, so that the way the photographer went can be seen.
    """
    width, height = size[0] * _SUPERSAMPLED, size[1] * _SUPERSAMPLED
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)
    if not reconstruction.views:
        return _shrunk(canvas, size)
    frustums = [_frustum(view.camera, _frustum_length(reconstruction)) for view in reconstruction.views]
    shown = _without_strays(reconstruction)
    eye = _eye(reconstruction, np.concatenate(frustums), width, height)
    _draw_points(canvas, eye, reconstruction.points[shown], reconstruction.colors[shown])
    centers, _ = project(eye, np.array([corners[0] for corners in frustums]))
    _line(canvas, centers, _PATH, _SUPERSAMPLED)
    for corners in frustums:
        pixels, _ = project(eye, corners)
        for corner in pixels[1:]:
            _line(canvas, np.array([pixels[0], corner]), _CAMERA, _SUPERSAMPLED)
        _line(canvas, pixels[[1, 2, 3, 4, 1]], _CAMERA, _SUPERSAMPLED)
    return _shrunk(canvas, size)


def _frustum_length(reconstruction: Reconstruction) -> float:
    """A third of the way to a typical neighbour, within a twelfth and a quarter of the scene's radius."""
    positions = np.array([view.camera.position for view in reconstruction.views])
    radius = float(np.median(np.linalg.norm(positions - np.median(positions, axis=0), axis=1)))
    radius = max(radius, 0.05 * float(np.median(np.linalg.norm(positions, axis=1))), 1e-6)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    step = float(np.median(steps)) if len(steps) else radius
    return float(np.clip(0.6 * step, radius / 12, radius / 4))


def _frustum(camera: Camera, length: float) -> Floats:
    """[5, 3] world: the centre, then the corners of the picture plane `length` away."""
    corners = np.array([(0, 0), (camera.width, 0), (camera.width, camera.height), (0, camera.height)])
    rays = np.column_stack([corners, np.ones(4)]) @ np.linalg.inv(camera.K).T
    rays *= length / np.linalg.norm(rays, axis=1, keepdims=True)
    world_from_cam = camera.world_from_cam
    return np.concatenate([camera.position[None], rays @ world_from_cam[:3, :3].T + camera.position])


def _without_strays(reconstruction: Reconstruction) -> NDArray[np.bool_]:
    """[P] which points are not absurdly far: a wrong match at the horizon would be a dot in front of the sky."""
    distance = np.linalg.norm(reconstruction.points, axis=1)
    return distance <= 30 * max(float(np.linalg.norm(view.camera.position)) for view in reconstruction.views)


def _eye(reconstruction: Reconstruction, frustums: Floats, width: int, height: int) -> Camera:
    """A camera behind the photographers, above them, that just holds the frustums and the points near them."""
    forward = np.mean([view.camera.forward for view in reconstruction.views], axis=0)
    if np.linalg.norm(forward[:2]) < 0.25:  # looking inwards from all sides, or straight down
        forward = np.array([0.35, 0.94, 0.0])
    forward[2] = 0.0
    forward /= np.linalg.norm(forward)
    # From behind and a little to the side: straight from behind, the cameras would hide the points.
    turn = np.radians(28.0)
    side = np.array([forward[1], -forward[0], 0.0])
    forward = forward * np.cos(turn) + side * np.sin(turn)
    elevation = np.radians(_ELEVATION_DEG)
    direction = np.array([*(forward[:2] * np.cos(elevation)), -np.sin(elevation)])
    focal = _FOCAL * height
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])

    reach = 1.3 * float(np.quantile(np.linalg.norm(frustums, axis=1), 0.95))
    near = reconstruction.points[np.linalg.norm(reconstruction.points, axis=1) < reach]
    center = np.median(frustums, axis=0)
    distance = 4 * reach
    for _ in range(20):  # nearer or farther, and centred, until it just fits
        eye = Camera(K, width, height, look_at(center - direction * distance, center))
        boxes = [_box(eye, world, 0.01) for world in (frustums, near) if len(world)]
        low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
        offset = (low + high) / 2 - (width / 2, height / 2)
        axes = eye.cam_from_world[:3, :3]
        center = center + (axes[0] * offset[0] + axes[1] * offset[1]) * distance / focal
        distance *= np.clip(float(np.max((high - low) / (0.88 * width, 0.86 * height))), 0.5, 2.0)
    return Camera(K, width, height, look_at(center - direction * distance, center))


def _box(eye: Camera, world: Floats, strays: float) -> Floats:
    """[4] left, top, right, bottom pixels of `world`, without the outermost share `strays` on each side."""
    pixels, depth = project(eye, world)
    return np.quantile(pixels[depth > 0], [strays, 1 - strays], axis=0).ravel()


def _draw_points(canvas: NDArray[np.uint8], eye: Camera, points: Floats, colors: NDArray[np.uint8]) -> None:
    pixels, depth = project(eye, points)
    order = np.argsort(-depth)
    order = order[depth[order] > 0]
    # Few points are drawn large, many small.
    radius = int(np.clip(round(_SUPERSAMPLED * 1.8 * (4000 / max(len(points), 1)) ** 0.25), 2, 5))
    lifted = np.minimum(255, 40 + colors.astype(np.int32) * 0.92).astype(np.uint8)
    for row in order:
        cv2.circle(canvas, _rounded(pixels[row]), radius, tuple(int(c) for c in lifted[row]), -1, cv2.LINE_AA)


def _line(canvas: NDArray[np.uint8], pixels: Floats, color: tuple[int, int, int], thickness: int) -> None:
    path = np.array([_rounded(pixel) for pixel in pixels if np.isfinite(pixel).all()], dtype=np.int32)
    cv2.polylines(canvas, [path], False, color, thickness, cv2.LINE_AA)


def _rounded(pixel: Floats) -> tuple[int, int]:
    """Whole pixels, kept within what OpenCV's fixed point can hold."""
    return int(np.clip(pixel[0], -16000, 16000)), int(np.clip(pixel[1], -16000, 16000))


def _shrunk(canvas: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
