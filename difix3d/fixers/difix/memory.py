"""How much memory a fix takes beside the weights, and how many frames fit at once.

The autoencoder decides: near the decoder's end, activations of c_0 to 2 c_0 channels at full size are alive together
with the encoder's a_0, and nothing there can be cut into tiles without changing the result, since group norms look at
the whole picture. So a frame is fixed whole, or refused with the size that would fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from difix3d.errors import FixerError
from difix3d.machine import free_memory_bytes

_FULL_SIZE_PLANES = {"cuda": 8.5, "cpu": 14.0}
"""Peak of a frame, in planes [c_0, H, W]. By count: 3 x 2 planes around the last skip's sum, 1.5 of skips, and what the
convolutions work in; on CPU, where they also keep copies in their own layout, as the peaks of benchmarks/difix.py."""
_VIEW_PLANES = 2.5
"""What each further view adds: its encoding ends before decoding begins, its U-Net tokens stay."""
_SHARE = 0.85
"""Of the free memory, left for others: allocators round up and fragment."""
_MOST_AT_ONCE = {"cuda": 16, "cpu": 1}
"""More at once gains nothing: a few frames fill a GPU; on a CPU even one does."""


@dataclass(frozen=True)
class MemoryPlan:
    """bytes_per_frame: peak beside the weights; available: bytes free now; frames: how many fit at once (0: none)."""

    bytes_per_frame: int
    available: int
    frames: int


def plan(
    width: int,
    height: int,
    *,
    views: int,
    channels: int,
    itemsize: int,
    device: torch.device,
    available: int | None = None,
) -> MemoryPlan:
    """For frames of width x height pixels with `views` views each.

    channels: c_0, the VAE's block_out_channels[0]; itemsize: bytes of a number; available: bytes, else asked for.
    """
    kind = "cuda" if device.type == "cuda" else "cpu"
    plane = channels * width * height * itemsize
    needed = round(plane * (_FULL_SIZE_PLANES[kind] + _VIEW_PLANES * (views - 1)))
    free = available_bytes(device) if available is None else available
    return MemoryPlan(needed, free, min(_MOST_AT_ONCE[kind], int(free * _SHARE) // needed))


def require_fit(found: MemoryPlan, width: int, height: int, device: torch.device) -> int:
    """How many frames to fix at once, at least 1; FixerError, with the size that fits, where not even one does."""
    if found.frames:
        return found.frames
    scale = (found.available * _SHARE / found.bytes_per_frame) ** 0.5
    fitting = " x ".join(str(max(8, int(side * scale) // 8 * 8)) for side in (width, height))
    raise FixerError(
        f"A frame of {width} x {height} pixels needs {found.bytes_per_frame / 2**30:.1f} GB beside the weights; "
        f"{'the GPU' if device.type == 'cuda' else 'this machine'} has {found.available / 2**30:.1f} GB free. "
        f"About {fitting} would fit: render smaller, close other programs, or use another fixer."
    )


def available_bytes(device: torch.device) -> int:
    """Memory that may be used now: of the GPU, or of this process's machine or container, whichever is less."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_memory_bytes()
