"""How far apart photos were taken, seen from their matches alone: before any camera is placed."""

from __future__ import annotations

from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap

from difix3d.sfm import features

LEAST_MATCHES = 100
"""That a pair needs to be the incremental mapper's first (COLMAP's init_min_num_inliers)."""
_PAIRS = 3
"""One or two may be mistaken: photos taken almost from one place leave the pose of a pair open."""


def angle_apart_deg(database: Path, enough_deg: float) -> float:
    """The angle under which some pairs of photos see what they share, each by the median of its matches: three pairs
    see it under so much or more. Where that is `enough_deg` or more, looks no further: it may be more still. 0 where
    there are no three pairs, or nothing but turning.

    Without pairs far enough apart COLMAP tries every one with RANSAC before it relents: 17 s of processor time for 3 s
    of hand-held video, whose pairs reach 7 degrees. Captures that were walked around reach 28 to 64.
    """
    widest = [0.0] * _PAIRS
    with features.open_database(database) as opened:
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        images = {image.image_id: image for image in opened.read_all_images()}
        # Few matches first: they are the pairs far apart, and a few are enough.
        for inliers, pair_id in sorted(zip(*reversed(opened.read_two_view_geometry_num_inliers()))):
            if inliers < LEAST_MATCHES:
                continue
            pair = pycolmap.pair_id_to_image_pair(pair_id)
            geometry = opened.read_two_view_geometry(*pair)
            seen = [(cameras[images[i].camera_id], np.asarray(opened.read_keypoints(i).data)[:, :2]) for i in pair]
            (first, pixels1), (second, pixels2) = seen
            if pycolmap.estimate_two_view_geometry_pose(
                first, pixels1.astype(np.float64), second, pixels2.astype(np.float64), geometry
            ):
                widest = sorted([*widest, float(np.degrees(geometry.tri_angle))])[1:]
            if widest[0] >= enough_deg:
                break
    return widest[0]
