"""What a fix costs: arithmetic of one frame, and bytes of the weights.

The counts are of the published configuration, taken with torch.utils.flop_counter at 512x512 and 1024x576 (1 FLOP is
half a multiply-add). Between and beyond, everything grows with the number of pixels p, but for attention, which grows
with the square of all views' tokens:

    encode a view   4.13 p + 0.49 p^2        U-Net, V views   2.60 V p + 1.79 (V p)^2        decode   9.59 p + 0.49 p^2

in TFLOP, p in megapixels. That gives 4.47 and 6.63 TFLOP at 512x512 without and with one reference, 10.6 and 16.6 at
1024x576, as counted.
"""

from __future__ import annotations

from pathlib import Path

PUBLISHED_BYTES = 5_166_000_000
"""Of nvidia/difix as it is pinned, in float32; nvidia/difix_ref holds the same tensors."""
_WEIGHTS = "*/*.safetensors"


def teraflop(width: int, height: int, views: int, weights_bytes: int = PUBLISHED_BYTES) -> float:
    """One frame with `views` - 1 references. A narrower network does less in about the measure that it weighs less."""
    p = width * height / 1e6
    encode = views * (4.13 * p + 0.49 * p**2)
    unet = 2.60 * views * p + 1.79 * (views * p) ** 2
    decode = 9.59 * p + 0.49 * p**2
    return (encode + unet + decode) * weights_bytes / PUBLISHED_BYTES


def weights_bytes(folder: Path) -> int:
    """Of a checkpoint folder's safetensors."""
    return sum(path.stat().st_size for path in folder.glob(_WEIGHTS))
