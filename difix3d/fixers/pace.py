"""How long a frame takes on this machine: measured by the fixes that were made here, else from arithmetic.

One small file in the user's cache holds the latest seconds per megapixel of each fixer on each device, and how fast
each device convolves. Losing it costs a measurement; failing to write it is no reason to fail a fix.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from difix3d.atomic import write_json
from difix3d.hub.files import own_cache
from difix3d.machine import cores

_KEPT = 9
"""The median of so many: one slow frame of a busy machine decides nothing."""
_CHANNELS, _SIDE_PX = 128, 128
"""A 3x3 convolution as in Difix's autoencoder, which does four fifths of its work: 4.8 GFLOP."""
_RUNS = 3


def device_name(device: str) -> str:
    """A device for people: "CPU, 8 cores", "NVIDIA H100"."""
    if device == "cpu":
        count = cores()
        return f"CPU, {count} core{'s' if count > 1 else ''}"
    if _lent():
        return "a GPU that ZeroGPU lends"
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def record(fixer: str, device: str, width: int, height: int, seconds: float) -> None:
    """Remember one fix. Two processes that write at once may lose one of both."""

    def add(record: dict[str, Any]) -> None:
        kept = record.setdefault("seconds_per_megapixel", {}).setdefault(_key(fixer, device), [])
        kept.append(round(seconds / (width * height / 1e6), 4))
        del kept[:-_KEPT]

    _change(add)


def measured(fixer: str, device: str, width: int, height: int) -> float | None:
    """Seconds of a frame of that size, from the fixes made here; None where there were none."""
    kept = _read().get("seconds_per_megapixel", {}).get(_key(fixer, device))
    return statistics.median(kept) * width * height / 1e6 if kept else None


def estimated(teraflop: float, device: str) -> float | None:
    """Seconds that so much arithmetic takes at the rate of a convolution, measured at the first call; None where the
    device is not here to be measured."""
    if device != "cpu" and _lent():
        return None
    rates = _read().get("teraflop_per_s", {})
    name = device_name(device)
    if name not in rates:
        rates[name] = convolution_rate(device)
        _change(lambda record: record.setdefault("teraflop_per_s", {}).update({name: rates[name]}))
    return teraflop / rates[name]


def convolution_rate(device: str) -> float:
    """TFLOP/s of a 3x3 convolution in the precision that Difix uses there: the best of a few runs."""
    import torch
    import torch.nn.functional as F

    from difix3d.fixers.difix.precision import fast_dtype

    dtype = fast_dtype(torch.device(device))
    x = torch.rand(1, _CHANNELS, _SIDE_PX, _SIDE_PX, device=device, dtype=dtype)
    weight = torch.rand(_CHANNELS, _CHANNELS, 3, 3, device=device, dtype=dtype)
    best = float("inf")
    with torch.no_grad():
        for _ in range(1 + _RUNS):  # the first one also finds out how
            started = time.perf_counter()
            F.conv2d(x, weight, padding=1)[0, 0, 0, 0].item()  # .item() waits for the device
            best = min(best, time.perf_counter() - started)
    return 2 * 9 * _CHANNELS**2 * _SIDE_PX**2 / best / 1e12


def _lent() -> bool:
    """Whether the GPU is one of ZeroGPU's, which a process has only during a call that was promised one."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def _key(fixer: str, device: str) -> str:
    return f"{fixer} on {device_name(device)}"


def _file() -> Path:
    return own_cache() / "pace.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _change(edit: Callable[[dict[str, Any]], None]) -> None:
    record = _read()
    edit(record)
    with suppress(OSError):
        write_json(_file(), record)
