"""Difix (Wu et al. 2025, "Difix3D+"): a one-step diffusion model that cleans renders, on our own modules.

attention.py   views attend to each other inside the U-Net
vae.py         autoencoder whose skip activations are explicit values
layout.py      the files of a checkpoint folder
checkpoint.py  such a folder, read and written
weights.py     its tensors to those of our modules, every key accounted for
hub.py         the same folder from the Hugging Face Hub
images.py      pictures of any mode and size to pixels and back
precision.py   in which numbers to compute
memory.py      how many frames fit, and which size does
pipeline.py    images in, images out
cost.py        arithmetic of a frame, bytes of the weights
fixer.py       the pipeline as one of the project's fixers
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix3d.fixers.difix.pipeline import DifixPipeline

__all__ = ["DifixPipeline"]


def __getattr__(name: str) -> Any:
    # Listing fixers must not import diffusers.
    if name == "DifixPipeline":
        from difix3d.fixers.difix.pipeline import DifixPipeline

        return DifixPipeline
    raise AttributeError(f"module {__name__} has no attribute {name}")
