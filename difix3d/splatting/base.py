"""What every rasterizer shares: the constants that make two of them draw the same picture, and ScreenSpace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# As in gsplat 1.5 and 3DGS, so that a scene fitted with one renderer looks the same in another.
NEAR_PLANE = 0.01  # world units along z; splats with their centre nearer are not drawn
BLUR_PX2 = 0.3  # added to the diagonal of the projected covariance: no splat is thinner than a pixel
MIN_ALPHA = 1.0 / 255.0  # fainter contributions are skipped
MAX_ALPHA = 0.999  # keeps transmittance above zero, so that gradients exist
MIN_TRANSMITTANCE = 1e-4  # a pixel is finished before the splat that would bring it to this or below
TINY_ALPHA = 1e-10  # depth = sum(w z) / max(alpha, TINY_ALPHA)
LARGEST = 1e15  # splats with a parameter beyond it are not drawn, as with NaN: float32 could not hold products of two
FOV_MARGIN = 0.3  # the projection's Jacobian is held constant this fraction of the image's tangents outside it


@dataclass
class ScreenSpace:
    """What densification wants to know of one rasterization.

    radii: [N] int32 pixels, set by the forward pass; 0: not drawn.
    abs_gradients: [N, 2] float32, set by the backward pass; 0 where not drawn. The absolute values of dL/d(projected
    centre), in 1/pixels, that each pixel asks for, summed over the pixels (AbsGS: Ye et al. 2024; gsplat's absgrad).
    """

    radii: torch.Tensor | None = None
    abs_gradients: torch.Tensor | None = None
