"""The frames of a rendered trajectory on disk: 00000.png, 00000_alpha.png, 00000_depth.npy in one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from difix3d.errors import FormatError
from difix3d.formats.image import read_rgb, to_uint8
from difix3d.types import Camera, Frame


def write_frame(folder: Path, frame: Frame) -> None:
    """Write one frame into `folder`, which the caller makes appear as a whole.

    Depth is float32 (4 bytes a pixel, 2.4 MB at 960x640): half floats would move a warped photo by a pixel.
    """
    stem = f"{frame.index:05d}"
    # Level 1: a few percent larger and three times as fast; the folder is made again at any time.
    Image.fromarray(frame.rgb).save(folder / f"{stem}.png", compress_level=1)
    Image.fromarray(to_uint8(frame.alpha)).save(folder / f"{stem}_alpha.png", compress_level=1)
    np.save(folder / f"{stem}_depth.npy", frame.depth.astype(np.float32), allow_pickle=False)


def read_frame(folder: Path, trajectory: str, index: int, camera: Camera) -> Frame:
    """Read a frame back, with the camera it was rendered at.

    A user's own renders may come without alpha (then 1 everywhere) and depth (then 0: unknown). FormatError for a
    missing picture, or files that do not have the camera's size.
    """
    stem = f"{index:05d}"
    rgb = read_rgb(folder / f"{stem}.png")
    shape = (camera.height, camera.width)
    alpha = np.ones(shape, np.float32)
    if (folder / f"{stem}_alpha.png").is_file():
        alpha = (read_rgb(folder / f"{stem}_alpha.png")[..., 0] / 255.0).astype(np.float32)
    depth = np.zeros(shape, np.float32)
    if (folder / f"{stem}_depth.npy").is_file():
        try:
            depth = np.load(folder / f"{stem}_depth.npy", allow_pickle=False).astype(np.float32)
        except (ValueError, OSError, EOFError) as error:
            raise FormatError(f"{stem}_depth.npy: expected a depth map, could not read it ({error})") from error
    for name, array in ((f"{stem}.png", rgb), (f"{stem}_alpha.png", alpha), (f"{stem}_depth.npy", depth)):
        if array.shape[:2] != shape:
            raise FormatError(
                f"{name}: expected {camera.width}x{camera.height} pixels like its camera, "
                f"found {'x'.join(map(str, array.shape[1::-1]))}. Render the trajectory again."
            )
    return Frame(trajectory, index, camera, rgb, alpha, depth)
