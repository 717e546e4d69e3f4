"""The part of its pictures that a training sample shows."""

from __future__ import annotations

from dataclasses import dataclass

from difix3d.errors import ConfigError
from difix3d.fixers.difix.images import SIDE_MULTIPLE

Size = tuple[int, int]
"""Width and height, pixels."""


@dataclass(frozen=True)
class Framing:
    """width, height: all pictures are stretched to this size (Lanczos, as inference does; published training used
    1024x576); 0: each keeps its image's own size, down to multiples of 8. crop_px: then one random square of this
    side, at one place for the pictures of a row; 0: all of it.

    Raises ConfigError for sizes that the autoencoder cannot take.
    """

    width: int = 0
    height: int = 0
    crop_px: int = 0

    def __post_init__(self) -> None:
        if bool(self.width) != bool(self.height):
            raise ConfigError(f"width and height: give both or none, got {self.width}x{self.height}")
        for name, value in (("width", self.width), ("height", self.height), ("crop", self.crop_px)):
            if value % SIDE_MULTIPLE:
                raise ConfigError(f"{name}: expected a multiple of {SIDE_MULTIPLE}, got {value}")
        if self.width and self.crop_px > min(self.width, self.height):
            raise ConfigError(f"crop: {self.crop_px} is more than fits into {self.width}x{self.height}")

    @property
    def uncropped(self) -> Framing:
        """As pictures are judged: whole."""
        return Framing(self.width, self.height)

    def stretched(self, image: Size) -> Size:
        """The size that the pictures of a row are brought to, of an image this large."""
        if self.width:
            return self.width, self.height
        width, height = (side - side % SIDE_MULTIPLE for side in image)
        return width, height

    def shown(self, image: Size) -> Size:
        """The size of the sample."""
        return (self.crop_px, self.crop_px) if self.crop_px else self.stretched(image)

    def problem(self, image: Size) -> str:
        """Why no sample can be cut from an image this large; empty where one can."""
        needed = self.crop_px or SIDE_MULTIPLE
        if min(self.stretched(image)) >= needed:
            return ""
        what = f"crops of {self.crop_px}" if self.crop_px else "the autoencoder"
        return f"{image[0]}x{image[1]} is too small for {what}"
