"""Flat ground seen from straight above: there a focal length and a distance cannot be told apart."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap

from difix3d.events import Progress
from difix3d.sfm.adjust import adjust
from difix3d.sfm.mapping import Model


def is_flat_and_parallel(model: Model) -> bool:
    """Whether all cameras look the same way at flat ground: then focal length and distance cannot be told apart.

    Nine in ten optical axes within 15 degrees of their mean, and points whose depths along it spread by less than
    a quarter of their distance (middle 80 %): trees and roofs under a drone do, a room or a street does not.
    """
    reconstruction = model.reconstruction
    images = [reconstruction.image(image_id) for image_id in reconstruction.reg_image_ids()]
    axes = np.array([image.viewing_direction() for image in images])
    mean = axes.mean(axis=0)
    if np.linalg.norm(mean) < 0.5:
        return False
    mean /= np.linalg.norm(mean)
    angles = np.degrees(np.arccos(np.clip(axes @ mean, -1, 1)))
    points = np.array([point.xyz for point in reconstruction.points3D.values()])
    if np.quantile(angles, 0.9) > 15 or len(points) < 10:
        return False
    camera_depth = np.median([image.projection_center() @ mean for image in images])
    depths = points @ mean - camera_depth
    low, middle, high = np.quantile(depths, [0.1, 0.5, 0.9])
    return bool(middle > 0 and (high - low) / middle < 0.25)


def with_focals(model: Model, focals_px: Mapping[int, float]) -> Generator[Progress, None, Model]:
    """A flat and parallel model as it is with other focal lengths, camera id -> pixels, which are held. Cameras that
    are not in focals_px, which needs one of the model's, change as much as the others do.

    f x / z is the same for s times f and s times z: the world is drawn out along the way that all look, and what that
    leaves is adjusted. That spares mapping everything a second time. Lenses are SIMPLE_RADIAL, as
    features.create_database makes them.
    """
    drawn = pycolmap.Reconstruction(model.reconstruction)
    told = {key: focals_px[key] / camera.focal_length for key, camera in drawn.cameras.items() if key in focals_px}
    others = float(np.median(list(told.values())))
    ratios = {camera_id: told.get(camera_id, others) for camera_id in drawn.cameras}
    images = [drawn.image(image_id) for image_id in drawn.reg_image_ids()]
    axis = np.mean([image.viewing_direction() for image in images], axis=0)
    axis /= np.linalg.norm(axis)
    along = float(np.median([ratios[image.camera_id] for image in images])) - 1
    stretch = np.eye(3) + along * np.outer(axis, axis)
    for image in images:
        rotation = image.cam_from_world().rotation
        moved = -rotation.matrix() @ (stretch @ image.projection_center())
        frame = image.frame
        assert frame is not None  # it is registered
        frame.set_cam_from_world(image.camera_id, pycolmap.Rigid3d(rotation, moved))
    for point in drawn.points3D.values():
        point.xyz = stretch @ point.xyz
    for camera_id, camera in drawn.cameras.items():
        focal, x, y, bent = camera.params
        ratio = ratios[camera_id]
        camera.params = [focal * ratio, x, y, bent * ratio**2]
    yield from adjust(drawn, True, 20)  # as many as COLMAP is given (mapping.py)
    return replace(model, reconstruction=drawn, held_focal=True)
