"""How much of a frame a photo can tell about, by geometry alone: what people see before they choose it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from difix3d.types import Camera
from difix3d.warping import look_up


def coverage(
    target: Camera,
    target_depth: NDArray[np.float32],
    reference: Camera,
    reference_depth: NDArray[np.float32] | None = None,
    target_alpha: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """[H, W] in [0, 1]: how far a photo at `reference` can be believed at each pixel of `target` (warping.look_up).

    Depths and alpha as look_up takes them; small cameras (Camera.resized) do, and cost a hundredth.
    """
    return look_up(reference, target, target_depth, reference_depth, target_alpha).confidence


def covered_share(maps: Sequence[NDArray[np.float32]]) -> float:
    """Share of the frame that these photos cover together, in [0, 1]: at each pixel the best of them counts."""
    return float(np.max(np.stack(maps), axis=0).mean()) if maps else 0.0
