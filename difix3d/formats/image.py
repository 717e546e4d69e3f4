"""Pictures on disk that this project wrote itself: 8-bit RGB, alpha and depth. (Uploads go through `ingest`.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difix3d.atomic import replacing_file
from difix3d.errors import FormatError


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """[H, W, 3] uint8. size: (width, height) to resample to (area-like, Pillow's Lanczos with reducing)."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            if size is not None and image.size != size:
                image = image.resize(size, Image.Resampling.LANCZOS)
            return np.asarray(image)
    except (OSError, SyntaxError) as error:  # the latter is what Pillow raises for some broken PNGs
        raise FormatError(f"{path.name}: expected a picture, could not read it ({error})") from error


def write_rgb(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write [H, W, 3] or [H, W] uint8 as PNG (or JPEG, by suffix), atomically."""
    with replacing_file(path) as temporary:
        options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
        Image.fromarray(rgb).save(temporary, **options)


def to_uint8(rgb: NDArray) -> NDArray[np.uint8]:
    """Floats in [0, 1] to 8 bits, rounded."""
    return (np.clip(rgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
