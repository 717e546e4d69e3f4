"""3D Gaussian splats: drawing them differentiably, and fitting them to photos.

Names are loaded at first use: torch and numba take a second, and the command line's help should not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difix3d.splatting.base import ScreenSpace
    from difix3d.splatting.dispatch import l1_ssim, rasterize, render_view, warm_up, why_cpu

__all__ = ["ScreenSpace", "l1_ssim", "rasterize", "render_view", "warm_up", "why_cpu"]


def __getattr__(name: str) -> Any:
    if name == "ScreenSpace":
        from difix3d.splatting.base import ScreenSpace

        return ScreenSpace
    if name in __all__:
        from difix3d.splatting import dispatch

        return getattr(dispatch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
