"""How far apart photos were taken is seen from their matches alone."""

from __future__ import annotations

from pathlib import Path

import cv2  # noqa: F401  before pycolmap, as everywhere
import numpy as np
import pycolmap
import pytest
from PIL import Image

from difix3d.geometry import look_at, project
from difix3d.sfm import features
from difix3d.sfm.base import Photo, PhotoSet
from difix3d.sfm.baseline import LEAST_MATCHES, angle_apart_deg
from difix3d.types import Camera

K = np.array([[800.0, 0, 480], [0, 800, 320], [0, 0, 1]])


def matched(folder: Path, turns_deg: list[float], points: int) -> Path:
    """A database of photos taken around a ball of `points` points, each at its angle, all pairs matched."""
    names = [f"{row}.jpg" for row in range(len(turns_deg))]
    for name in names:
        Image.new("RGB", (960, 640)).save(folder / name)
    path = folder / "database.db"
    features.create_database(path, PhotoSet(folder, tuple(Photo(name, 960, 640, focal_px=800.0) for name in names)))
    ball = np.random.default_rng(0).uniform(-0.5, 0.5, (points, 3))
    poses = [look_at((6 * np.cos(turn), 6 * np.sin(turn), 0), (0, 0, 0)) for turn in np.radians(turns_deg)]
    pixels = [project(Camera(K, 960, 640, pose), ball)[0] for pose in poses]
    matches = np.column_stack([np.arange(points)] * 2).astype(np.uint32)
    with features.open_database(path) as database:
        ids = [database.read_image_with_name(name).image_id for name in names]
        camera = database.read_all_cameras()[0]
        for row, image_id in enumerate(ids):
            database.write_keypoints(image_id, pixels[row].astype(np.float32))
        for first in range(len(ids)):
            for second in range(first + 1, len(ids)):
                geometry = pycolmap.estimate_calibrated_two_view_geometry(
                    camera, pixels[first], camera, pixels[second], matches
                )
                database.write_two_view_geometry(ids[first], ids[second], geometry)
    return path


@pytest.mark.parametrize(("turns_deg", "widest_deg"), [([0, 1, 6, 7], 6), ([0, 5, 10], 5), ([0, 2, 25, 27], 25)])
def test_the_widest_pairs_decide(tmp_path: Path, turns_deg: list[float], widest_deg: float) -> None:
    database = matched(tmp_path, turns_deg, 150)
    assert angle_apart_deg(database, 90) == pytest.approx(widest_deg, rel=0.3)
    assert 2 <= angle_apart_deg(database, 2) <= angle_apart_deg(database, 90)


def test_pairs_with_few_matches_do_not_count(tmp_path: Path) -> None:
    assert angle_apart_deg(matched(tmp_path, [0, 2, 25, 27], LEAST_MATCHES - 10), 4) == 0
