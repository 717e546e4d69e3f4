"""The two ways of fixing a frame that are compared, each in a process of its own, which says what a call took.

Processes of their own keep apart what would flatter or hurt: peak memory, warm caches, settings of allocators.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from difix_floor import peak_tflops, synchronize
from numpy.typing import NDArray
from PIL import Image
from released import ReleasedDifix
from torch import Tensor, nn

from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.images import to_pixels, to_unit

RELEASED = "released"


@dataclass(frozen=True)
class Call:
    """Fix a picture of (width, height) with so many references (0 or 1).

    frame, reference: seeds of their pixels; a reference that was seen before may be looked up.
    sampled: the released pipeline's draw from the posterior, which its timings contain; else the mean, to compare.
    """

    size: tuple[int, int]
    references: int
    frame: int
    reference: int
    sampled: bool = False


@dataclass(frozen=True)
class Answer:
    """seconds of a call; peak_bytes during it, weights included, on CPU of the whole process; picture in [0, 1]."""

    seconds: float
    peak_bytes: int
    picture: NDArray[np.float32]


class Variant:
    """A process that holds one variant. name: "released", or the dtype in which ours runs."""

    def __init__(self, name: str, folder: Path, device: str, compiled: bool = False):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, folder, device, compiled), daemon=True)
        self._process.start()
        theirs.close()  # so that a process that dies ends `recv`
        self.weights_bytes: int = self._pipe.recv()

    def run(self, call: Call) -> Answer:
        self._pipe.send(call)
        return self._pipe.recv()

    def peak_tflops(self) -> float:
        """What the machine does now, in this variant's dtype."""
        self._pipe.send(None)
        return self._pipe.recv()


def _serve(pipe: Connection, name: str, folder: Path, device_name: str, compiled: bool) -> None:
    device = torch.device(device_name)
    fixer: ReleasedDifix | DifixPipeline
    if name == RELEASED:
        # Ours, of difix3d/__init__.py; torch asks at its first large tensor. Its setting of idle threads stays: without
        # it, the released code falls behind several times over whenever another program runs.
        os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
        fixer = ReleasedDifix.from_pretrained(folder, device_name)
    else:
        fixer = DifixPipeline.from_pretrained(folder, dtype=getattr(torch, name), device=device)
        if compiled:
            fixer.compile()
    pipe.send(sum(tensor.nbytes for network in _networks(fixer) for tensor in network.parameters()))
    while True:
        try:
            call: Call | None = pipe.recv()
        except EOFError:  # the one who asks has gone
            return
        if call is None:
            pipe.send(peak_tflops(device, next(fixer.unet.parameters()).dtype))
            continue
        image, *references = (
            random_picture(call.size, seed) for seed in (call.frame, call.reference)[: 1 + call.references]
        )
        reset_peak(device)
        synchronize(device)
        started = time.perf_counter()
        picture = _fix(fixer, image, references, call, device)
        synchronize(device)
        seconds = time.perf_counter() - started
        pipe.send(Answer(seconds, peak_bytes(device), picture.numpy()))


def _networks(fixer: ReleasedDifix | DifixPipeline) -> list[nn.Module]:
    return [fixer.unet, fixer.vae, fixer.text_encoder]


def _fix(
    fixer: ReleasedDifix | DifixPipeline,
    image: Image.Image,
    references: list[Image.Image],
    call: Call,
    device: torch.device,
) -> Tensor:
    """[3, H, W] in [0, 1], from pictures to pixels in both variants."""
    posterior: Any = "sample" if call.sampled else "mean"
    if isinstance(fixer, DifixPipeline):
        return fixer(image, [references], posterior=posterior, output_type="pt").images[0]
    pixels = torch.stack([to_pixels(picture) for picture in (image, *references)])
    return to_unit(fixer(pixels.to(device), posterior), call.size)


def random_picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Blots of many sizes, which do not matter for the time, and are not all alike for the comparison."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((size[1], size[0], 3))
    for side in (4, 16, 64):
        blots = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        picture += np.asarray(blots.resize(size, Image.Resampling.BICUBIC)) / 3.0
    return Image.fromarray(picture.astype(np.uint8))


def reset_peak(device: torch.device) -> None:
    """Begin to look for the peak anew. On Linux; elsewhere a process's peak is that of its whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): the high-water mark falls to now


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # getrusage's mark does not fall
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
