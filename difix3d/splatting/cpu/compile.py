"""The one place that decides how kernels are compiled and who runs them.

Kernels release the GIL and are run by plain threads: numba's own thread pools abort the process when two Python
threads use them at once, or after a fork. Work is dealt out by an atomic counter; what a piece computes never
depends on who computes it, so results are bit-identical for any number of threads.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numba.extending
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numpy.typing import NDArray

from difix3d.machine import cores
from difix3d.splatting.cpu.cache import kernel_folder


def kernel(function: Callable[..., Any]) -> Any:
    """Compile with numba at first call, keep the result on disk, release the GIL while running."""
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = str(kernel_folder())  # type: ignore[attr-defined]  # read once, while decorating
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


_intrinsic: Any = numba.extending.intrinsic  # its type hints describe the undecorated function
inlined: Any = numba.njit(inline="always", error_model="numpy")


@_intrinsic
def take(typingctx: Any, counter: Any) -> Any:
    """Atomically: counter[0] += 1, giving the value before. counter: int64 array."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), emit


def aligned_empty(*shape: int) -> NDArray[np.float32]:
    """A new float32 array that begins on a cache line: lanes that straddle two lines cost twice."""
    count = math.prod(shape)
    memory = np.empty(count + 16, np.float32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + count].reshape(shape)


@inlined
def aligned_lanes(count: int) -> Any:
    """The same inside kernels, flat."""
    memory = np.empty(count + 16, np.float32)
    first = (64 - memory.ctypes.data % 64) % 64 // 4
    return memory[first : first + count]


_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def thread_count() -> int:
    """As many as torch may use (torch.set_num_threads), and not more than this process has cores."""
    return max(1, min(torch.get_num_threads(), cores()))


def run(worker: Callable[..., None], *args: Any) -> None:
    """Call worker(counter, *args) on every thread at once; it takes pieces from the counter until none are left."""
    global _pool
    counter = np.zeros(8, dtype=np.int64)
    helpers = thread_count() - 1
    if helpers and _pool is None:
        with _pool_lock:
            if _pool is None:
                _pool = ThreadPoolExecutor(cores(), thread_name_prefix="splat")
    futures = [_pool.submit(worker, counter, *args) for _ in range(helpers)] if _pool else []
    worker(counter, *args)
    for future in futures:
        future.result()
