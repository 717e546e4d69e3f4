"""The images/ folder of an export: lossless RGB PNGs, each once, named by the sha256 of its bytes."""

from __future__ import annotations

import hashlib
import io
import shutil
from functools import lru_cache
from pathlib import Path

from PIL import Image

from difix3d.formats.image import read_rgb
from difix3d.scene import hash_file

FOLDER = "images"


class ExportedPictures:
    """folder: of the export. Names that the methods return are relative to it."""

    def __init__(self, folder: Path):
        self.folder = folder / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.count = 0
        self.bytes = 0
        self._photos: dict[tuple[Path, tuple[int, int]], str] = {}

    def copy(self, path: Path) -> str:
        """An 8-bit RGB PNG is copied as it is; any other picture becomes one. FormatError for what is none."""
        if not is_rgb_png(path):
            return self.photo(path, size_of(path))
        name = hash_file(path)
        target = self.folder / f"{name}.png"
        if not target.exists():
            shutil.copyfile(path, target)
            self._count(target)
        return f"{FOLDER}/{target.name}"

    def photo(self, path: Path, size: tuple[int, int]) -> str:
        """A photo as PNG at `size` (width, height), by Lanczos. FormatError for what is no picture."""
        key = (path.resolve(), size)
        if key not in self._photos:
            buffer = io.BytesIO()
            Image.fromarray(read_rgb(path, size)).save(buffer, "PNG")
            self._photos[key] = self.written(buffer.getvalue())
        return self._photos[key]

    def written(self, png: bytes) -> str:
        """A picture that is an RGB PNG already."""
        target = self.folder / f"{hashlib.sha256(png).hexdigest()}.png"
        if not target.exists():
            target.write_bytes(png)
            self._count(target)
        return f"{FOLDER}/{target.name}"

    def _count(self, target: Path) -> None:
        self.count += 1
        self.bytes += target.stat().st_size


def is_rgb_png(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.format == "PNG" and image.mode == "RGB"
    except OSError:
        return False


def size_of(path: Path) -> tuple[int, int]:
    """(width, height); of what is no picture, read_rgb says so."""
    try:
        with Image.open(path) as image:
            return image.size
    except OSError:
        height, width = read_rgb(path).shape[:2]
        return width, height


def jpeg_bytes(path: Path, long_side_px: int = 0) -> bytes:
    """A picture as JPEG, quality 95, no chroma subsampling; reduced to long_side_px where it is longer (0: never)."""
    return _jpeg_bytes(path, path.stat().st_mtime_ns, long_side_px)


@lru_cache(maxsize=16)
def _jpeg_bytes(path: Path, modified_ns: int, long_side_px: int) -> bytes:
    width, height = size_of(path)
    scale = min(1.0, long_side_px / max(width, height)) if long_side_px else 1.0
    buffer = io.BytesIO()
    pixels = read_rgb(path, (max(1, round(width * scale)), max(1, round(height * scale))))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
