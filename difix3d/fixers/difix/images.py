"""Pictures of any mode and size to the U-Net's pixels and back."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from difix3d.errors import FixerError

_LANCZOS = Image.Resampling.LANCZOS
SIDE_MULTIPLE = 8


def working_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) rounded down to multiples of 8, the autoencoder's factor."""
    if not isinstance(image, Image.Image):
        raise FixerError(f"expected a PIL picture, got {type(image).__name__}: Image.fromarray makes one of an array")
    width, height = (side - side % SIDE_MULTIPLE for side in image.size)
    if min(width, height) == 0:
        raise FixerError(f"expected a picture of at least 8x8 pixels, got {image.width}x{image.height}")
    return width, height


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` (width, height) itself; FixerError where the autoencoder cannot work at it."""
    if len(size) != 2 or any(side < SIDE_MULTIPLE or side % SIDE_MULTIPLE for side in size):
        raise FixerError(f"size: expected (width, height), both multiples of {SIDE_MULTIPLE}, got {size}")
    return size


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any picture: grey is repeated, 16 bits keep their upper 8, alpha is dropped."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(grey, 0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise FixerError("expected a picture of whole numbers, got floats (mode F): convert it to RGB first")
    return image.convert("RGB")


def to_pixels(image: Image.Image, size: tuple[int, int] | None = None) -> Tensor:
    """[3, H, W] float32 in [-1, 1], at `size` (width, height) or the working size, by Lanczos."""
    size = size or working_size(image)
    image = to_rgb(image)
    if image.size != size:
        image = image.resize(size, _LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0 * 2.0 - 1.0


def to_pil(pixels: Tensor, size: tuple[int, int]) -> Image.Image:
    """The inverse: clamped, rounded to 8 bits, brought to `size` by Lanczos."""
    unit = _unit(pixels).permute(1, 2, 0).numpy()
    image = Image.fromarray((unit * 255.0).round().astype(np.uint8))
    return image if image.size == size else image.resize(size, _LANCZOS)


def to_unit(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """[3, H, W] float32 in [0, 1] at `size`, by the same Lanczos without rounding."""
    unit = _unit(pixels)
    if (unit.shape[2], unit.shape[1]) == size:
        return unit
    planes = [np.asarray(Image.fromarray(plane.numpy()).resize(size, _LANCZOS)) for plane in unit]
    return torch.from_numpy(np.stack(planes)).clamp(0.0, 1.0)


def _unit(pixels: Tensor) -> Tensor:
    return (pixels.detach().float().cpu() / 2.0 + 0.5).clamp(0.0, 1.0)
