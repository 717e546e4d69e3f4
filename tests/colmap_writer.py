"""A Reconstruction as a sparse model of COLMAP, binary or text: https://colmap.github.io/format.html."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from difix3d.atomic import replacing_folder
from difix3d.geometry import project
from difix3d.types import Reconstruction

_POINT2D = np.dtype([("xy", "<f8", 2), ("point3d_id", "<i8")])


def write_reconstruction(folder: Path | str, reconstruction: Reconstruction, suffix: str = ".bin") -> None:
    """Write cameras, images and points3D (suffix ".bin" or ".txt") into `folder`, replacing it.

    A Reconstruction keeps which points a view sees, not where; the observations written are their projections.
    """
    errors = reconstruction.errors if reconstruction.errors is not None else np.full(len(reconstruction.points), -1.0)
    cameras: dict[tuple, int] = {}
    shots = []
    tracks: list[list[tuple[int, int]]] = [[] for _ in reconstruction.points]
    for image_id, view in enumerate(reconstruction.views, start=1):
        camera, seen = view.camera, view.point_indices
        lens = (camera.width, camera.height, camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2])
        pixels, _ = project(camera, reconstruction.points[seen])
        for position, row in enumerate(seen):
            tracks[row].append((image_id, position))
        quat = np.roll(Rotation.from_matrix(camera.cam_from_world[:3, :3]).as_quat(), 1)  # wxyz
        shots.append(
            (image_id, (*quat, *camera.cam_from_world[:3, 3]), cameras.setdefault(lens, len(cameras) + 1), view.name,
             np.nan_to_num(pixels), seen + 1)
        )  # fmt: skip
    with replacing_folder(Path(folder)) as into:
        write = _write_bin if suffix == ".bin" else _write_txt
        write(into, cameras, shots, reconstruction.points, reconstruction.colors, errors, tracks)


def _write_bin(folder: Path, cameras, shots, points, colors, errors, tracks) -> None:
    with (folder / "cameras.bin").open("wb") as stream:
        stream.write(struct.pack("<Q", len(cameras)))
        for (width, height, *params), camera_id in cameras.items():
            stream.write(struct.pack("<iiQQ4d", camera_id, 1, width, height, *params))
    with (folder / "images.bin").open("wb") as stream:
        stream.write(struct.pack("<Q", len(shots)))
        for image_id, pose, camera_id, name, pixels, seen in shots:
            stream.write(struct.pack("<I7dI", image_id, *pose, camera_id) + name.encode() + b"\0")
            observations = np.empty(len(seen), dtype=_POINT2D)
            observations["xy"], observations["point3d_id"] = pixels, seen
            stream.write(struct.pack("<Q", len(seen)) + observations.tobytes())
    with (folder / "points3D.bin").open("wb") as stream:
        stream.write(struct.pack("<Q", len(points)))
        for row, track in enumerate(tracks):
            stream.write(
                struct.pack("<Q3d3BdQ", row + 1, *points[row], *map(int, colors[row]), errors[row], len(track))
            )
            stream.write(np.array(track, dtype="<u4").tobytes())


def _write_txt(folder: Path, cameras, shots, points, colors, errors, tracks) -> None:
    def text(values: Any) -> str:
        return " ".join(repr(float(value)) for value in values)

    with (folder / "cameras.txt").open("w") as stream:
        stream.write("# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy\n")
        for (width, height, *params), camera_id in cameras.items():
            stream.write(f"{camera_id} PINHOLE {width} {height} {text(params)}\n")
    with (folder / "images.txt").open("w") as stream:
        stream.write("# IMAGE_ID qw qx qy qz tx ty tz CAMERA_ID NAME, then x y POINT3D_ID of each observation\n")
        for image_id, pose, camera_id, name, pixels, seen in shots:
            observations = " ".join(f"{text(xy)} {point}" for xy, point in zip(pixels, seen))
            stream.write(f"{image_id} {text(pose)} {camera_id} {name}\n{observations}\n")
    with (folder / "points3D.txt").open("w") as stream:
        stream.write("# POINT3D_ID x y z r g b error, then IMAGE_ID POINT2D_IDX of each observation\n")
        for row, track in enumerate(tracks):
            color = " ".join(str(int(value)) for value in colors[row])
            seen_in = " ".join(f"{image} {position}" for image, position in track)
            stream.write(f"{row + 1} {text(points[row])} {color} {float(errors[row])!r} {seen_in}\n")
