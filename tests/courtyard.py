"""The bundled courtyard with its true cameras: a small real job for the tests that find cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from difix3d.geometry import transform_points
from difix3d.scene import Scene
from difix3d.sfm.pose_files import read_transforms
from difix3d.stages.ingest import IngestConfig, ingest
from difix3d.types import Camera

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "courtyard"
TRANSFORMS = FOLDER / "transforms.json"


def photo_paths(every: int = 1) -> list[Path]:
    return sorted((FOLDER / "images").glob("*.jpg"))[::every]


def ingested(root: Path, paths: Sequence[Path]) -> Scene:
    scene = Scene.create(root)
    list(ingest(scene, IngestConfig(tuple(str(path) for path in paths))))
    return scene


def true_poses() -> dict[str, np.ndarray]:
    """Name of a photo -> its true cam_from_world [4, 4]."""
    return {Path(frame.name).name: frame.cam_from_world for frame in read_transforms(TRANSFORMS)}


def disagreement(cameras: dict[str, Camera], truth: dict[str, np.ndarray]) -> tuple[float, float, np.ndarray]:
    """(largest distance of a camera from its true place over the true cameras' extent, largest angle in degrees
    between orientations, world up in the truth's world [3]), after the similarity that fits best (Umeyama 1991)."""
    names = sorted(cameras)
    found = np.array([cameras[name].position for name in names])
    true = np.array([np.linalg.inv(truth[name])[:3, 3] for name in names])
    a, b = found - found.mean(axis=0), true - true.mean(axis=0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(signs) @ vt
    similarity = np.eye(4)
    similarity[:3, :3] = rotation * (singular @ signs) / (a**2).sum()
    similarity[:3, 3] = true.mean(axis=0) - similarity[:3, :3] @ found.mean(axis=0)
    away = np.linalg.norm(transform_points(similarity, found) - true, axis=1)
    angles = []
    for name in names:
        relative = cameras[name].cam_from_world[:3, :3] @ rotation.T @ truth[name][:3, :3].T
        angles.append(np.degrees(np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))))
    return float(away.max() / np.ptp(true, axis=0).max()), float(max(angles)), rotation @ np.array([0.0, 0.0, 1.0])
