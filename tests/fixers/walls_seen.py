"""A blurred render of the walls, photos of them, and fixers to try on both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import walls
from safetensors.torch import save_file

from difix3d.fixers.base import Fixer
from difix3d.fixers.lite.fixer import LiteFixer
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.fixers.photometric import gaussian
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.types import Frame, Reference


def soft_frame(width: int, height: int, index: int = 0) -> Frame:
    camera = walls.camera_at(0.0, width=width, height=height)
    seen = walls.see(camera)
    soft = (gaussian(seen.rgb, 2.0) * 255 + 0.5).astype(np.uint8)
    return Frame("test", index, camera, soft, np.ones_like(seen.depth), seen.depth)


def reference_at(x: float, width: int, height: int) -> Reference:
    camera = walls.camera_at(x, width=width, height=height)
    seen = walls.see(camera)
    return Reference(f"{x}.png", camera, seen.photo, seen.depth)


def quick_fixer(name: str, folder: Path) -> Fixer:
    """reproject, or lite before any training."""
    if name == "reproject":
        return ReprojectFixer()
    path = folder / "untrained.safetensors"
    save_file(LiteNetwork().state_dict(), path)
    return LiteFixer(path)
