"""The .splat format of web viewers (antimatter15's): 32 bytes a splat, one colour, no view dependence.

Per splat: position 3 x float32, scale 3 x float32 (linear), colour and opacity 4 x uint8, rotation wxyz 4 x uint8 with
128 for 0. Little-endian, no header. Largest and most opaque first, so that a half-loaded file already shows the scene.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from difix3d.atomic import replacing_file
from difix3d.types import SH_C0, Splats

RECORD_BYTES = 32


def write_splat(path: Path, splats: Splats, max_splats: int = 300_000) -> None:
    """Write the `max_splats` largest and most opaque splats, atomically."""
    opacities = expit(splats.opacity_logits.astype(np.float64))
    sizes = np.exp(splats.log_scales.astype(np.float64).sum(axis=1))
    order = np.argsort(-sizes * opacities, kind="stable")[:max_splats]

    quats = splats.quats[order] / np.linalg.norm(splats.quats[order], axis=1, keepdims=True)
    colors = np.concatenate([0.5 + SH_C0 * splats.sh[order, 0], opacities[order, None]], axis=1)
    records = np.empty((len(order), RECORD_BYTES), np.uint8)
    records[:, 0:12] = _float_bytes(splats.means[order])
    records[:, 12:24] = _float_bytes(np.exp(splats.log_scales[order]))
    records[:, 24:28] = np.clip(np.rint(255 * colors), 0, 255)
    records[:, 28:32] = np.clip(np.rint(128 + 128 * quats), 0, 255)
    with replacing_file(path) as temporary:
        temporary.write_bytes(records.tobytes())


def _float_bytes(values: NDArray) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values, dtype="<f4").view(np.uint8).reshape(len(values), 12)
