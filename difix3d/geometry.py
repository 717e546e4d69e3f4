"""Poses, projection and the normalisation of a reconstruction, in numpy.

Notation
    q         quaternion (w, x, y, z), Hamilton, any length > 0 where one comes in, unit and w >= 0 where one goes out
    R, t      p_cam = R p_world + t, the upper rows of cam_from_world
    S         [4, 4] similarity: upper left is scale * rotation, last column a translation
    pixels    (x, y), centre of the first pixel at (0.5, 0.5), as COLMAP has it
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difix3d.errors import ReconstructionError, ShapeError
from difix3d.types import Camera, Reconstruction, View, require_shape

Floats = NDArray[np.float64]


# Rotations


def quat_to_rotation(quats: ArrayLike) -> Floats:
    """[N, 4] wxyz (or one [4]) to [N, 3, 3] (or [3, 3]) rotation matrices."""
    quats = np.asarray(quats, dtype=np.float64)
    if quats.shape[-1:] != (4,):
        raise ShapeError(f"quats: expected [N, 4] or [4], got {list(quats.shape)}")
    w, x, y, z = np.moveaxis(quats / np.linalg.norm(quats, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_between(source: ArrayLike, target: ArrayLike) -> Floats:
    """[3, 3] smallest rotation that turns direction `source` into direction `target`."""
    a = np.asarray(source, dtype=np.float64) / np.linalg.norm(source)
    b = np.asarray(target, dtype=np.float64) / np.linalg.norm(target)
    if a @ b < -1 + 1e-12:  # opposite: half a turn about anything perpendicular
        axis = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        axis /= np.linalg.norm(axis)
        return 2 * np.outer(axis, axis) - np.eye(3)
    return quat_to_rotation(np.concatenate([[1 + a @ b], np.cross(a, b)]))


def look_at(position: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> Floats:
    """[4, 4] cam_from_world of a camera at `position` that faces `target`, its picture's top towards `up`.

    Looking straight along `up` leaves the roll open; it is then chosen, not an error.
    """
    position = np.asarray(position, dtype=np.float64)
    forward = np.asarray(target, dtype=np.float64) - position
    distance = np.linalg.norm(forward)
    if distance == 0:
        raise ShapeError("look_at: position and target are the same point")
    forward = forward / distance
    sky = np.asarray(up, dtype=np.float64)
    right = np.cross(forward, sky)
    if np.linalg.norm(right) < 1e-9 * np.linalg.norm(sky):
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right /= np.linalg.norm(right)
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ position
    return cam_from_world


def pose_distance(a: Camera, b: Camera) -> tuple[float, float]:
    """(distance between the centres in world units, angle between the orientations in degrees)."""
    relative = a.cam_from_world[:3, :3] @ b.cam_from_world[:3, :3].T
    # atan2 of both parts stays exact near 0 degrees, where arccos of the trace alone loses half the digits.
    sine = np.linalg.norm(
        [relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]]
    )
    angle = np.degrees(np.arctan2(sine, np.trace(relative) - 1))
    return float(np.linalg.norm(a.position - b.position)), float(angle)


# Projection


def project(camera: Camera, points: ArrayLike) -> tuple[Floats, Floats]:
    """World `points` [N, 3] to (pixels [N, 2], depth [N] along the optical axis, world units).

    Nothing is culled: pixels may lie outside the picture, and those with depth <= 0 are NaN.
    """
    points = np.asarray(points, dtype=np.float64)
    require_shape("points", points, ("N", 3))
    points_cam = points @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    depth = points_cam[:, 2]
    in_front = np.where(depth > 0, depth, np.nan)
    return (points_cam @ camera.K.T)[:, :2] / in_front[:, None], depth


def unproject(camera: Camera, depth: ArrayLike) -> Floats:
    """Depth [H, W] (world units along the optical axis) at pixel centres to world points [H, W, 3]."""
    depth = np.asarray(depth, dtype=np.float64)
    require_shape("depth", depth, (camera.height, camera.width))
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays_cam = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T
    return transform_points(camera.world_from_cam, rays_cam * depth[..., None])


def transform_points(matrix: ArrayLike, points: ArrayLike) -> Floats:
    """Points [..., 3] through a rigid or similarity matrix [4, 4]."""
    matrix, points = np.asarray(matrix, dtype=np.float64), np.asarray(points, dtype=np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


# Reconstructions


def transform_camera(camera: Camera, similarity: ArrayLike) -> Camera:
    """The camera that sees the transformed world as `camera` saw the old one (depths grow by the scale)."""
    similarity = np.asarray(similarity, dtype=np.float64)
    rotation = similarity[:3, :3] / np.cbrt(np.linalg.det(similarity[:3, :3]))
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = camera.cam_from_world[:3, :3] @ rotation.T
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ transform_points(similarity, camera.position)
    return camera.moved(cam_from_world)


def transform_reconstruction(reconstruction: Reconstruction, similarity: ArrayLike) -> Reconstruction:
    """The reconstruction with cameras and points moved by a [4, 4] similarity."""
    views = tuple(
        View(view.name, transform_camera(view.camera, similarity), view.image_path, view.point_indices)
        for view in reconstruction.views
    )
    points = transform_points(similarity, reconstruction.points)
    return Reconstruction(views, points, reconstruction.colors, reconstruction.errors)


def up_direction(reconstruction: Reconstruction) -> Floats:
    """[3] unit: where the sky is, judged by how people hold cameras.

    Cameras pitch and pan but seldom roll, so their x axes span the ground plane: up is the direction least along
    them. Where all x axes agree (a sweep without turning) the mean of the cameras' own ups decides; where those
    cancel too (a drone that flies to and fro looking down) up is against the viewing direction.
    """
    axes = np.stack([view.camera.cam_from_world[:3, :3] for view in reconstruction.views])
    rights, ups, forwards = axes[:, 0], -axes[:, 1], axes[:, 2]
    mean_up = ups.mean(axis=0)
    hint = mean_up - 0.5 * max(0.0, 1.0 - float(np.linalg.norm(mean_up))) * forwards.mean(axis=0)
    # 0.01 is the variance of x axes spread over +-6 degrees: with less yaw than that the hint decides, not noise.
    cost = np.einsum("ni,nj->ij", rights, rights) / len(rights) - 0.01 * np.outer(hint, hint)
    _, vectors = np.linalg.eigh(cost)
    up = vectors[:, 0]
    return up if up @ hint >= 0 else -up


def geometric_median(points: ArrayLike) -> Floats:
    """[3] point with the least sum of distances to `points` [N, 3] (Weiszfeld): robust, whatever way the axes lie."""
    points = np.asarray(points, dtype=np.float64)
    center = points.mean(axis=0)
    for _ in range(100):
        distances = np.linalg.norm(points - center, axis=1)
        if not distances.mean() > 0:  # all in one place: 1 / 0 would make it nowhere
            break
        weights = distances.mean() / np.maximum(distances, 1e-9 * distances.mean())
        center = weights @ points / weights.sum()
    return center


def looked_at_point(reconstruction: Reconstruction) -> Floats:
    """[3] where the cameras look: the geometric median of the points at each view's median depth along its axis."""
    targets = []
    for view in reconstruction.views:
        seen = reconstruction.points[view.point_indices] if len(view.point_indices) else reconstruction.points
        depth = transform_points(view.camera.cam_from_world, seen)[:, 2] if len(seen) else np.empty(0)
        depth = depth[depth > 0]
        if len(depth):
            targets.append(view.camera.position + view.camera.forward * np.median(depth))
    if targets:
        return geometric_median(np.array(targets))
    # No points at all: the point nearest to all optical axes, drawn weakly to one unit before the mean camera.
    positions = np.stack([view.camera.position for view in reconstruction.views])
    forwards = np.stack([view.camera.forward for view in reconstruction.views])
    across = np.eye(3) - np.einsum("ni,nj->nij", forwards, forwards)
    prior = (positions + forwards).mean(axis=0)
    weight = 1e-3 * len(positions)
    return np.linalg.solve(
        across.sum(axis=0) + weight * np.eye(3), np.einsum("nij,nj->i", across, positions) + weight * prior
    )


def normalising_similarity(reconstruction: Reconstruction) -> Floats:
    """[4, 4] that makes z up, puts the origin where the cameras look, and their median distance from it at 1.

    Depends on the reconstruction only through its shape: of a normalised one it is the identity.
    """
    if not reconstruction.views:
        raise ReconstructionError("The reconstruction has no cameras: expected at least 1 registered photo.")
    center = looked_at_point(reconstruction)
    distances = [np.linalg.norm(view.camera.position - center) for view in reconstruction.views]
    scale = 1.0 / max(float(np.median(distances)), 1e-12)
    similarity = np.eye(4)
    similarity[:3, :3] = scale * rotation_between(up_direction(reconstruction), (0.0, 0.0, 1.0))
    similarity[:3, 3] = -similarity[:3, :3] @ center
    return similarity


def triangulation_angles_deg(reconstruction: Reconstruction) -> Floats:
    """[P] largest angle between the rays to a point from the views that see it; 0 where fewer than two do."""
    angles = np.zeros(len(reconstruction.points))
    if not reconstruction.views:
        return angles
    positions = np.stack([view.camera.position for view in reconstruction.views])
    points = np.concatenate([view.point_indices for view in reconstruction.views])
    seers = np.repeat(np.arange(len(reconstruction.views)), [len(view.point_indices) for view in reconstruction.views])
    order = np.argsort(points, kind="stable")
    points, seers = points[order], seers[order]
    ids, starts, lengths = np.unique(points, return_index=True, return_counts=True)
    for length in np.unique(lengths[lengths > 1]):
        group = lengths == length
        views = seers[starts[group][:, None] + np.arange(length)]
        rays = reconstruction.points[ids[group]][:, None] - positions[views]
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        # arcsin of half the chord keeps its digits at small angles, where arccos of the dot product does not.
        smallest = np.einsum("pik,pjk->pij", rays, rays).reshape(len(rays), -1).argmin(axis=1)
        first, second = np.divmod(smallest, length)
        rows = np.arange(len(rays))
        chord = np.linalg.norm(rays[rows, first] - rays[rows, second], axis=-1)
        angles[ids[group]] = np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
    return angles
