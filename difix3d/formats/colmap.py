"""COLMAP's sparse model, read without COLMAP: cameras, images, points3D as .bin or .txt.

Layout: https://colmap.github.io/format.html (little-endian; poses are cam_from_world, quaternions wxyz). Newer files
beside these (rigs.bin, frames.bin) repeat what images.bin says for single cameras, and are not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from difix3d.errors import FormatError
from difix3d.geometry import quat_to_rotation
from difix3d.types import Camera, Reconstruction, View

# id -> (name, number of parameters), colmap/sensor/models.h. Only the two without distortion are taken.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}

_POINT2D = np.dtype([("xy", "<f8", 2), ("point3d_id", "<i8")])

Intrinsics = tuple[np.ndarray, int, int]
"""(K [3, 3], width, height)"""
Shot = tuple[str, int, np.ndarray, np.ndarray]
"""(name, camera id, cam_from_world [4, 4], ids of the points it sees [M])"""


def read_reconstruction(sparse_dir: Path | str, images_dir: Path | str | None = None) -> Reconstruction:
    """The model in `sparse_dir` (.bin preferred, else .txt); views sorted by name, points by id.

    images_dir: where the photos are; sets view.image_path. FormatError for a folder that holds no model, a broken
    file, a lens with distortion, or photos that are not in images_dir.
    """
    sparse_dir = Path(sparse_dir)
    suffix = next((s for s in (".bin", ".txt") if (sparse_dir / f"cameras{s}").is_file()), None)
    if suffix is None:
        raise FormatError(f"{sparse_dir}: expected a COLMAP model (cameras.bin or cameras.txt), found neither.")
    read = _read_bin if suffix == ".bin" else _read_txt
    cameras, shots, (ids, points, colors, errors) = read(sparse_dir)

    order = np.argsort(ids, kind="stable")
    ids, points, colors, errors = ids[order], points[order], colors[order], errors[order]
    views = []
    for name, camera_id, cam_from_world, seen in sorted(shots, key=lambda shot: shot[0]):
        if camera_id not in cameras:
            raise FormatError(f"{sparse_dir}: photo {name} uses camera {camera_id}, which cameras{suffix} lacks.")
        rows = np.searchsorted(ids, seen)
        known = rows < len(ids)
        known[known] = ids[rows[known]] == seen[known]
        image_path = Path(images_dir) / name if images_dir is not None else None
        K, width, height = cameras[camera_id]
        views.append(View(name, Camera(K, width, height, cam_from_world), image_path, np.unique(rows[known])))
    missing = [view.name for view in views if view.image_path is not None and not view.image_path.is_file()]
    if missing:
        raise FormatError(
            f"{images_dir} lacks {len(missing)} of the model's {len(views)} photos ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}). Put them there, or take them out of the model."
        )
    return Reconstruction(tuple(views), points, colors, errors)


def _intrinsics(path: Path, model: str, width: int, height: int, params: Any) -> Intrinsics:
    if model == "SIMPLE_PINHOLE":
        (fx, cx, cy), fy = params, params[0]
    elif model == "PINHOLE":
        fx, fy, cx, cy = params
    else:
        raise FormatError(
            f"{path}: expected SIMPLE_PINHOLE or PINHOLE cameras, found {model}. Undistort the photos first: "
            "difix3d reconstruct --known-poses FOLDER does it, or colmap image_undistorter."
        )
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), width, height


def _pose(quat: Any, translation: Any) -> np.ndarray:
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = quat_to_rotation(quat)
    cam_from_world[:3, 3] = translation
    return cam_from_world


# Binary


def _unpack(stream: BinaryIO, layout: str, path: Path) -> tuple:
    size = struct.calcsize("<" + layout)
    data = stream.read(size)
    if len(data) < size:
        raise FormatError(f"{path}: the file ends early. Copy it again, or write the model anew.")
    return struct.unpack("<" + layout, data)


def _array(stream: BinaryIO, dtype: Any, count: int, path: Path) -> np.ndarray:
    size = np.dtype(dtype).itemsize * count
    data = stream.read(size)
    if len(data) < size:
        raise FormatError(f"{path}: the file ends early. Copy it again, or write the model anew.")
    return np.frombuffer(data, dtype=dtype, count=count)


def _name(stream: BinaryIO, path: Path) -> str:
    letters = bytearray()
    while (letter := stream.read(1)) not in (b"\0", b""):
        letters += letter
    if not letter:
        raise FormatError(f"{path}: the file ends early. Copy it again, or write the model anew.")
    return letters.decode("utf-8", errors="replace")


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        raise FormatError(f"{path.parent}: expected {path.name} beside the cameras, found none.")
    return path.open("rb")


def _read_bin(folder: Path):
    cameras: dict[int, Intrinsics] = {}
    path = folder / "cameras.bin"
    with _open(path) as stream:
        for _ in range(*_unpack(stream, "Q", path)):
            camera_id, model_id, width, height = _unpack(stream, "iiQQ", path)
            model, count = _MODELS.get(model_id, (f"model {model_id}", 0))
            params = _unpack(stream, f"{count}d", path)
            cameras[camera_id] = _intrinsics(path, model, width, height, params)

    shots: list[Shot] = []
    path = folder / "images.bin"
    with _open(path) as stream:
        for _ in range(*_unpack(stream, "Q", path)):
            values = _unpack(stream, "I7dI", path)
            name = _name(stream, path)
            (count,) = _unpack(stream, "Q", path)
            seen = _array(stream, _POINT2D, count, path)["point3d_id"]
            shots.append((name, values[8], _pose(values[1:5], values[5:8]), seen[seen >= 0]))

    path = folder / "points3D.bin"
    with _open(path) as stream:
        (count,) = _unpack(stream, "Q", path)
        ids, points, colors, errors = [], [], [], []
        for _ in range(count):
            point_id, x, y, z, r, g, b, error, length = _unpack(stream, "Q3d3BdQ", path)
            stream.seek(8 * length, 1)
            ids.append(point_id)
            points.append((x, y, z))
            colors.append((r, g, b))
            errors.append(error)
    return cameras, shots, _point_arrays(ids, points, colors, errors)


def _point_arrays(ids: list, points: list, colors: list, errors: list):
    return (
        np.array(ids, dtype=np.int64),
        np.array(points, dtype=np.float64).reshape(-1, 3),
        np.array(colors, dtype=np.uint8).reshape(-1, 3),
        np.array(errors, dtype=np.float64),
    )


# Text


def _lines(path: Path) -> Iterator[list[str]]:
    """Words of each line that is no comment; empty lines stay, since a photo may see no points."""
    with _open(path) as stream:
        for line in stream.read().decode("utf-8", errors="replace").splitlines():
            if not line.startswith("#"):
                yield line.split()


def _read_txt(folder: Path):
    path = folder / "cameras.txt"
    try:
        cameras = {
            int(words[0]): _intrinsics(path, words[1], int(words[2]), int(words[3]), [float(w) for w in words[4:]])
            for words in _lines(path)
            if words
        }
        path = folder / "images.txt"
        shots: list[Shot] = []
        lines = _lines(path)
        for head in lines:
            if not head:
                continue
            seen = np.array(next(lines, [])[2::3], dtype=np.int64)
            pose = [float(word) for word in head[1:8]]
            shots.append((" ".join(head[9:]), int(head[8]), _pose(pose[:4], pose[4:]), seen[seen >= 0]))
        path = folder / "points3D.txt"
        rows = [words for words in _lines(path) if words]
        return (
            cameras,
            shots,
            _point_arrays(
                [int(words[0]) for words in rows],
                [[float(word) for word in words[1:4]] for words in rows],
                [[int(word) for word in words[4:7]] for words in rows],
                [float(words[7]) for words in rows],
            ),
        )
    except (ValueError, IndexError) as error:
        raise FormatError(f"{path}: expected COLMAP's text layout, could not read a line ({error}).") from error
