"""When what came out is no scene, and what a person is told then: found, needed, next."""

from __future__ import annotations

from pathlib import Path

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import numpy as np
import pycolmap
from numpy.typing import NDArray

from difix3d.errors import ReconstructionError
from difix3d.sfm import features
from difix3d.sfm.base import PhotoSet, needed_photos
from difix3d.sfm.mapping import Model
from difix3d.sfm.parallax import rotation_only_share

USUAL_FEATURES = 500
FEW_FEATURES = 120
"""Below this median nothing registers (10 photos blurred by 9 px have 84; the poorest capture that works has 750)."""
SEEN_PER_PHOTO = 40
"""Points that a typical photo sees, at least. Models below were all wrong (8 photos with 31 px motion blur: 17); a
capture that works has 150 to 400."""
TURNED_SHARE = 0.9
_PAIRS_LOOKED_AT, _MATCHES_LOOKED_AT = 60, 100
"""Per model and per pair; all of 150 pairs took 1 to 3 s, and moved the share by hundredths."""


def require_features(counts: NDArray[np.int64]) -> None:
    """ReconstructionError where a typical photo has too few features for anything to match."""
    typical = int(np.median(counts)) if len(counts) else 0
    if typical < FEW_FEATURES:
        raise ReconstructionError(
            f"Found {typical} features in a typical photo; about {USUAL_FEATURES} are usual: the photos look blurred "
            "or show plain surfaces. Take sharp photos, in good light, of things with texture."
        )


def require_scene(model: Model | None, photos: PhotoSet) -> Model:
    """The model, if it holds enough photos and points."""
    total = len(photos.photos)
    needed = needed_photos(total)
    registered = model.registered if model else 0
    if model is None or registered < needed:
        raise ReconstructionError(
            f"Registered {registered} of {total} photos; at least {needed} are needed. The others do not overlap "
            "enough, are blurred, or show something else. Add photos with more overlap: a step or two between "
            "neighbours, every part of the subject on three photos or more."
        )
    seen = seen_per_photo(model.reconstruction)
    if seen < SEEN_PER_PHOTO:
        raise ReconstructionError(
            f"Registered {registered} of {total} photos, but a typical one shares only {seen} points with others; at "
            f"least {SEEN_PER_PHOTO} are needed to trust the cameras. The photos look blurred, plain, or hardly "
            "overlap: take sharp ones with more overlap."
        )
    return model


def seen_per_photo(model: pycolmap.Reconstruction) -> int:
    """Median number of points that a registered photo sees."""
    return int(np.median([model.image(image_id).num_points3D for image_id in model.reg_image_ids()]))


def require_parallax(database: Path, photos: PhotoSet, model: Model) -> None:
    """ReconstructionError where the camera only turned: then depths are made up, however small the errors."""
    share = turned_share(database, photos, model)
    if share >= TURNED_SHARE:
        raise ReconstructionError(
            f"The camera only turned: {share:.0%} of the photo pairs show no shift between near and far, so depth "
            "cannot be measured. Walk around the subject, don't turn on the spot: a step sideways between photos."
        )


def turned_share(database: Path, photos: PhotoSet, model: Model) -> float:
    """Share of matched pairs (of photos of one size, both registered) that a pure rotation explains."""
    sizes = {photo.name: (photo.width, photo.height) for photo in photos.photos}
    by_size: dict[tuple[int, int], list] = {}
    registered = model.names
    with features.open_database(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        keypoints: dict[str, NDArray[np.float64]] = {}

        def pixels(name: str) -> NDArray[np.float64]:
            if name not in keypoints:
                keypoints[name] = np.asarray(opened.read_keypoints(ids[name]).data)[:, :2].astype(np.float64)
            return keypoints[name]

        pairs = [
            pair
            for pair, inliers in sorted(features.pairs_of(opened).items())
            if inliers >= 15 and sizes[pair[0]] == sizes[pair[1]] and registered >= set(pair)
        ]
        step = max(1, len(pairs) // _PAIRS_LOOKED_AT)
        for first, second in pairs[::step]:
            matches = opened.read_two_view_geometry(ids[first], ids[second]).inlier_matches
            rows = np.asarray(getattr(matches, "data", matches), dtype=np.int64).reshape(-1, 2)
            rows = rows[:: -(-len(rows) // _MATCHES_LOOKED_AT)]
            by_size.setdefault(sizes[first], []).append((pixels(first)[rows[:, 0]], pixels(second)[rows[:, 1]]))
    counted = sum(len(found) for found in by_size.values())
    if not counted:
        return 0.0
    return sum(rotation_only_share(found, size)[0] * len(found) for size, found in by_size.items()) / counted
