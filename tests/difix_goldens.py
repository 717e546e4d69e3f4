"""The recorded reference of ../shared/golden, shared by the tests of Difix and of its training."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from difix3d.fixers.difix import DifixPipeline


@contextmanager
def opened(shared: Path) -> Iterator[Goldens]:
    """With one thread: on tensors this small, threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Goldens(shared)
    torch.set_num_threads(threads)


@functools.cache
def _pipeline(folder: Path) -> DifixPipeline:
    return DifixPipeline.from_pretrained(folder)


class Goldens:
    """Checkpoints are loaded once per process: `pipeline` gives one that tests must not change."""

    def __init__(self, shared: Path):
        self.folder = shared / "golden"

    def checkpoint(self, model: str) -> Path:
        return self.folder / f"checkpoint_{model}"

    def pipeline(self, model: str) -> DifixPipeline:
        return _pipeline(self.checkpoint(model))

    def image(self, name: str) -> Image.Image:
        return Image.open(self.folder / "inputs" / f"{name}.png")

    def expected(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "expected" / f"{name}.safetensors")
