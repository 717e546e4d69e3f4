"""Poses that somebody already has, as files: which ones there are, and nerfstudio's transforms.json read.

transforms.json: https://docs.nerf.studio/quickstart/data_conventions.html. Its transform_matrix is world_from_cam with
OpenGL axes (x right, y up, z backward); ours are OpenCV's (y down, z forward).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import ConfigError, FormatError

Floats = NDArray[np.float64]

_COLMAP_FILES = ("cameras", "images", "points3D")
_INSIDE = (".", "sparse/0", "sparse", "0", "colmap/sparse/0")
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class PosedFrame:
    """One frame of a transforms.json. model, params: of COLMAP's camera models, for a picture of width x height;
    these are 0 where the file leaves them out: then params hold only the field of view (radians), model is "FOV_X"."""

    name: str
    model: str
    width: int
    height: int
    params: tuple[float, ...]
    cam_from_world: Floats


def find_poses(path: str | Path) -> Path:
    """The COLMAP model folder, or the transforms.json, that `path` means. ConfigError where it holds neither."""
    path = Path(path).expanduser()
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder. Give a COLMAP folder or a transforms.json.")
    if path.is_file():
        if path.suffix.lower() == ".json":
            return path
        raise ConfigError(
            f"{path.name} holds no poses that can be read: expected a COLMAP folder (cameras, images and points3D, "
            ".bin or .txt) or a transforms.json."
        )
    for inside in _INSIDE:
        if colmap_suffix(path / inside):
            return path / inside
    for name in ("transforms.json", "transforms_train.json"):
        if (path / name).is_file():
            return path / name
    raise ConfigError(
        f"The folder {path.name!r} holds no poses: expected cameras.bin and images.bin (or .txt) in it or in sparse/0, "
        "or a transforms.json. Give the folder that holds them."
    )


def colmap_suffix(folder: Path) -> str | None:
    """ ".bin" or ".txt" where `folder` holds a COLMAP model, else None."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
            return suffix
    return None


def files_of(path: str | Path) -> tuple[str, ...]:
    """Absolute paths of the files that poses are read from."""
    found = find_poses(path).resolve()
    if found.is_file():
        return (str(found),)
    files = (found / f"{name}{colmap_suffix(found)}" for name in _COLMAP_FILES)
    return tuple(str(file) for file in files if file.is_file())


def read_transforms(path: Path) -> list[PosedFrame]:
    """The frames of a transforms.json. FormatError names the frame and field that is missing or impossible."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path.name}: expected JSON, could not read it ({error}).") from error
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames:
        raise FormatError(f'{path.name}: expected a list "frames" with one entry per photo, found none.')
    return [_frame(path, row, data, frame) for row, frame in enumerate(frames)]


def _frame(path: Path, row: int, shared: dict[str, Any], frame: Any) -> PosedFrame:
    where = f"{path.name}, frame {row}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
        raise FormatError(f'{where}: expected "file_path", the name of a photo, found none.')
    where = f"{path.name}, {frame['file_path']}"
    model, width, height, params = _lens(where, {**shared, **frame})
    return PosedFrame(frame["file_path"], model, width, height, params, _pose(where, frame.get("transform_matrix")))


def _pose(where: str, rows: Any) -> Floats:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FormatError(f'{where}: expected "transform_matrix" as 4 rows of 4 numbers.') from error
    if matrix.shape not in ((4, 4), (3, 4)) or not np.isfinite(matrix).all():
        raise FormatError(f'{where}: expected "transform_matrix" as 4 rows of 4 numbers, got {list(matrix.shape)}.')
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    rotation = matrix[:3, :3] / scale if scale > 1e-9 else matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3:
        raise FormatError(f'{where}: the upper left 3x3 of "transform_matrix" is no rotation. Export the poses again.')
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3], world_from_cam[:3, 3] = rotation, matrix[:3, 3]
    return np.linalg.inv(world_from_cam @ _OPENCV_FROM_OPENGL).astype(np.float64)


def _lens(where: str, values: dict[str, Any]) -> tuple[str, int, int, tuple[float, ...]]:
    def number(*names: str, default: float | None = None) -> float | None:
        for name in names:
            if values.get(name) is not None:
                try:
                    found = float(values[name])
                except (TypeError, ValueError):
                    found = math.nan
                if not math.isfinite(found):
                    raise FormatError(f"{where}: expected a number for {name!r}, got {values[name]!r}.")
                return found
        return default

    width, height = int(number("w", default=0) or 0), int(number("h", default=0) or 0)
    focal_x, focal_y = number("fl_x"), number("fl_y")
    if focal_x is None:
        angle = number("camera_angle_x")
        if angle is None or not 0 < angle < math.pi:
            raise FormatError(f'{where}: expected the focal length "fl_x" (pixels) or "camera_angle_x" (radians).')
        return "FOV_X", width, height, (angle,)
    if focal_x <= 0 or width < 1 or height < 1:
        raise FormatError(f'{where}: expected "fl_x", "w" and "h" above 0, got {focal_x}, {width} and {height}.')
    pinhole = (
        focal_x,
        focal_y if focal_y is not None else focal_x,
        number("cx", default=width / 2) or 0.0,
        number("cy", default=height / 2) or 0.0,
    )
    k1, k2, k3, k4, p1, p2 = (number(name, default=0.0) or 0.0 for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    kind = str(values.get("camera_model", "OPENCV")).upper()
    if kind == "OPENCV_FISHEYE":
        return "OPENCV_FISHEYE", width, height, (*pinhole, k1, k2, k3, k4)
    if kind not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"):
        raise FormatError(
            f"{where}: the camera model {kind} cannot be straightened to a pinhole. Use OPENCV, PINHOLE or "
            "OPENCV_FISHEYE."
        )
    if k3 or k4:
        # COLMAP's FULL_OPENCV: k1 k2 p1 p2 k3 k4 k5 k6, the last three in the denominator, which nerfstudio lacks.
        if k4:
            raise FormatError(f"{where}: k4 is known only for OPENCV_FISHEYE. Set it to 0, or name that model.")
        return "FULL_OPENCV", width, height, (*pinhole, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    if k1 or k2 or p1 or p2:
        return "OPENCV", width, height, (*pinhole, k1, k2, p1, p2)
    return "PINHOLE", width, height, pinhole
