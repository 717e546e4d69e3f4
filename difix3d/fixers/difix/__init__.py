"""Difix (Wu et al. 2025, "Difix3D+"): a one-step diffusion model that cleans renders, on our own modules.

attention.py   views attend to each other inside the U-Net
vae.py         autoencoder whose skip activations are explicit values
checkpoint.py  the published layout on disk, read strictly and written
hub.py         the same layout from the Hugging Face Hub
pipeline.py    images in, images out
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
