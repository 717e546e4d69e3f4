"""Camera paths as nerfstudio's viewer writes and reads them (camera_path.json).

    {"camera_type": "perspective", "render_width": 960, "render_height": 540, "fps": 24, "seconds": 2,
     "camera_path": [{"camera_to_world": [16 numbers, row by row], "fov": 50.0, "aspect": 1.78}, ...]}

camera_to_world has OpenGL axes (x right, y up, z backwards); fov is vertical, in degrees, of a lens centred in the
picture. What that cannot say of our cameras (K, a size of its own, whose photo's camera it is) is under "difix3d"
beside it, and is believed as long as it agrees with fov: a path edited in the viewer means what the viewer shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import write_json
from difix3d.errors import FormatError
from difix3d.types import Camera, Trajectory

MAX_CAMERAS = 10_000
MAX_SIDE_PX = 8192
MAX_BYTES = 64 * 2**20
MAX_FPS = 480.0
DEFAULT_FPS = 24.0

_OPENGL = np.array([1.0, -1.0, -1.0])
"""Signs that turn OpenCV's camera axes into OpenGL's, and back."""
_RIGID_TOLERANCE = 1e-3
_FOV_TOLERANCE_DEG = 1e-3


def write_camera_path(path: Path | str, trajectory: Trajectory) -> None:
    """Write `trajectory`, atomically. FormatError for one without cameras."""
    if not trajectory.cameras:
        raise FormatError(f"Trajectory {trajectory.name!r} has no cameras: expected at least 1.")
    names = trajectory.view_names or (None,) * len(trajectory)
    first = trajectory.cameras[0]
    write_json(
        Path(path),
        {
            "camera_type": "perspective",
            "render_width": first.width,
            "render_height": first.height,
            "fps": trajectory.fps,
            "seconds": len(trajectory) / trajectory.fps,
            "camera_path": [_written(camera, name) for camera, name in zip(trajectory.cameras, names)],
        },
    )


def read_camera_path(path: Path | str) -> Trajectory:
    """The path in a file of ours or of nerfstudio's viewer; it is called as the file is.

    FormatError, naming the camera, for anything that is no such path: at most 10,000 perspective cameras of at most
    8192 px a side, each with a rigid pose.
    """
    path = Path(path)
    data = _load(path)
    entries = data.get("camera_path")
    if not isinstance(entries, list) or not entries:
        raise FormatError(
            f'{path.name}: expected a list of cameras under "camera_path", found {_what(entries)}. '
            "Save a path with keyframes from nerfstudio's viewer."
        )
    if len(entries) > MAX_CAMERAS:
        raise FormatError(
            f"{path.name} has {len(entries):,} cameras; at most {MAX_CAMERAS:,} are rendered. Shorten it."
        )
    kind = data.get("camera_type", "perspective")
    if kind != "perspective":
        raise FormatError(f'{path.name}: camera_type is {kind!r}; only "perspective" can be rendered.')
    fps = _fps(path.name, data, len(entries))
    cameras, names = [], []
    for index, entry in enumerate(entries):
        where = f"{path.name}, camera {index}"
        if not isinstance(entry, dict):
            raise FormatError(f"{where}: expected an object, found {_what(entry)}")
        ours = entry.get("difix3d")
        ours = ours if isinstance(ours, dict) else {}
        cameras.append(_camera(where, entry, ours, data))
        names.append(ours.get("view"))
    view_names = tuple(name for name in names if isinstance(name, str))
    return Trajectory(path.stem, tuple(cameras), fps, view_names if len(view_names) == len(names) else ())


def _written(camera: Camera, view: str | None) -> dict[str, Any]:
    pose = camera.world_from_cam.copy()
    pose[:3, :3] *= _OPENGL
    ours = {"K": camera.K.tolist(), "width": camera.width, "height": camera.height}
    return {
        "camera_to_world": pose.ravel().tolist(),
        "fov": _fov_deg(camera.K, camera.height),
        "aspect": camera.width / camera.height,
        "difix3d": ours if view is None else {**ours, "view": view},
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FormatError(f"{path.name} has {size / 2**20:.0f} MB; a camera path has at most {MAX_BYTES // 2**20}.")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path}: expected a camera path, could not read it ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name}: expected a camera path in JSON, could not read it ({error})") from error
    if not isinstance(data, dict):
        raise FormatError(f"{path.name}: expected a camera path (a JSON object), found {_what(data)}")
    return data


def _fps(name: str, data: dict[str, Any], count: int) -> float:
    """Frames a second: as written, else as `seconds` says, else 24."""
    if "fps" in data:
        return _number(f"{name}: fps", data["fps"], 0.0, MAX_FPS)
    if "seconds" in data:
        return min(MAX_FPS, count / _number(f"{name}: seconds", data["seconds"], 0.0, 1e6))
    return DEFAULT_FPS


def _camera(where: str, entry: dict[str, Any], ours: dict[str, Any], data: dict[str, Any]) -> Camera:
    width = _pixels(f"{where}: width", ours.get("width", data.get("render_width")))
    height = _pixels(f"{where}: height", ours.get("height", data.get("render_height")))
    fov = _number(f"{where}: fov (vertical, degrees)", entry.get("fov"), 0.0, 180.0)
    focal_px = height / 2 / np.tan(np.radians(fov) / 2)
    K = np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    exact = _numbers(ours.get("K"), 9)
    if exact is not None:
        exact = exact.reshape(3, 3)
        usable = exact[0, 0] > 0 and exact[1, 1] > 0 and (exact[2] == (0, 0, 1)).all()
        if usable and abs(_fov_deg(exact, height) - fov) < _FOV_TOLERANCE_DEG:
            K = exact
    return Camera(K, width, height, _cam_from_world(where, entry.get("camera_to_world")))


def _cam_from_world(where: str, values: Any) -> NDArray[np.float64]:
    pose = _numbers(values, 16)
    if pose is None:
        raise FormatError(f'{where}: expected 16 finite numbers under "camera_to_world", found {_what(values)}')
    pose = pose.reshape(4, 4)
    rotation = pose[:3, :3] * _OPENGL
    off = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if off > _RIGID_TOLERANCE or np.linalg.det(rotation) < 0 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise FormatError(
            f"{where}: camera_to_world is no rigid pose (a rotation, a position, and the last row 0 0 0 1, row by row)"
        )
    if off > 1e-12:  # written with fewer digits: the nearest rotation
        left, _, right = np.linalg.svd(rotation)
        rotation = left @ right
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation.T
    cam_from_world[:3, 3] = -rotation.T @ pose[:3, 3]
    return cam_from_world


def _fov_deg(K: NDArray[np.float64], height: int) -> float:
    return float(np.degrees(2 * np.arctan(height / 2 / K[1, 1])))


def _numbers(values: Any, count: int) -> NDArray[np.float64] | None:
    """[count] finite numbers, from a flat or a nested list; None for anything else."""
    try:
        array = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.size == count and np.isfinite(array).all() else None


def _number(where: str, value: Any, above: float, most: float) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    if not above < number <= most or number == 180.0 == most:
        raise FormatError(f"{where}: expected a number above {above:g} and below {most:g}, found {_what(value)}")
    return float(number)


def _pixels(where: str, value: Any) -> int:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    if not 1 <= number <= MAX_SIDE_PX or number % 1:
        raise FormatError(f"{where}: expected 1 to {MAX_SIDE_PX} whole pixels, found {_what(value)}")
    return int(number)


def _what(value: Any) -> str:
    """A short description of what was found."""
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return repr(value)[:40]
