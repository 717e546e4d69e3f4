"""In which numbers Difix computes: exact where asked for, the fastest that 8-bit pictures allow where not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


def fast_dtype(device: torch.device) -> torch.dtype:
    """float16 on CUDA, whose 11 bits are more than a picture's 8. On a CPU float32, except where it multiplies bfloat16
    faster (AMX, AVX512-BF16): benchmarks/difix.py prints what that gains, and how far off it is."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if _multiplies_bfloat16() else torch.float32


def _multiplies_bfloat16() -> bool:
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):  # not Linux, or not x86
        return False
    return bool({"amx_bf16", "avx512_bf16"} & set(flags.split()))


@contextmanager
def exact_float32(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Within, products of float32 in full precision, where torch would take 10-bit TF32 in convolutions on CUDA, and
    algorithms that repeat to the bit. Half precision keeps torch's own choice."""
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
