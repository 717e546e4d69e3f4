"""How close two pictures are: PSNR, SSIM, LPIPS, DISTS, FLIP. Pictures are [H, W, 3], uint8 or floats in [0, 1]."""

from __future__ import annotations

import functools
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import ShapeError

if TYPE_CHECKING:
    import torch

    from difix3d.dists import DISTS
    from difix3d.losses import LPIPS

log = logging.getLogger(__name__)

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(a: NDArray, b: NDArray) -> float:
    """Peak signal-to-noise ratio in dB, peak 1; infinity for equal pictures."""
    a, b = _unit_pair(a, b)
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else -10.0 * math.log10(error)


def ssim(a: NDArray, b: NDArray) -> float:
    """Structural similarity (Wang et al. 2004), mean over all pixels and channels; 1 for equal pictures.

    11x11 Gaussian window, sigma 1.5, data range 1, biased variances, zeros beyond the border and nothing cut off:
    the variant that the 3D Gaussian Splatting papers report (scikit-image cuts the border and differs by ~0.001).
    """
    from scipy.ndimage import correlate1d

    a, b = _unit_pair(a, b)
    offsets = np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window /= window.sum()

    def blur(x: NDArray) -> NDArray:
        return correlate1d(correlate1d(x, window, axis=0, mode="constant"), window, axis=1, mode="constant")

    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return float(np.mean(luminance * structure))


def lpips(a: NDArray, b: NDArray, net: str = "vgg") -> float | None:
    """LPIPS v0.1 with net "vgg" or "alex": 0 for equal pictures, lower is better.

    None, and one warning in the log, where its weights are not found (difix3d.perceptual_weights says where).
    """
    from difix3d.perceptual_weights import find_weights

    path = find_weights(net)
    if path is None:
        _say_missing(net)
        return None
    model = _lpips_net(net, path)
    return _distance(model, model.shift.device, a, b)


def dists(a: NDArray, b: NDArray) -> float | None:
    """DISTS (Ding et al. 2020): 0 for equal pictures, lower is better; it forgives texture that lies elsewhere.

    None, and one warning in the log, where the weights of VGG-16 or its own are not found.
    """
    from difix3d.perceptual_weights import find_weights

    for net in ("vgg", "dists"):
        if find_weights(net) is None:
            _say_missing(net)
            return None
    model = _dists_net()
    return _distance(model, model.alpha.device, a, b)


def flip(a: NDArray, truth: NDArray) -> float | None:
    """LDR-FLIP (Andersson et al. 2020), mean over the pixels: the difference that a person sees who alternates between
    both at 67 pixels per degree (a 0.7 m wide 4K screen 0.7 m away); 0 for equal pictures, 1 at most.

    Computed by its authors' package. None, and one warning in the log, where that is not installed.
    """
    try:
        import flip_evaluator
    except ImportError:
        _say_no_flip()
        return None
    ours, theirs = (np.ascontiguousarray(picture, dtype=np.float32) for picture in _unit_pair(a, truth))
    _, mean, _ = flip_evaluator.evaluate(theirs, ours, "LDR", applyMagma=False)
    return float(mean)


def _distance(model: torch.nn.Module, device: torch.device, a: NDArray, b: NDArray) -> float:
    """What a perceptual network says of two pictures."""
    import torch

    def tensor(picture: NDArray) -> torch.Tensor:
        return torch.from_numpy(picture.astype(np.float32) * 2 - 1).permute(2, 0, 1)[None].to(device)

    a, b = _unit_pair(a, b)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return float(model(tensor(a), tensor(b)))


@functools.cache
def _dists_net() -> DISTS:
    import torch

    from difix3d.dists import DISTS

    return DISTS.load().to("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def _say_no_flip() -> None:
    log.warning("FLIP is left out: it is not installed. Get it with: pip install -e '.[benchmarks]'.")


@functools.cache
def _lpips_net(net: str, path: Path) -> LPIPS:
    import torch

    from difix3d.losses import LPIPS

    return LPIPS.load(net, path).to("cuda" if torch.cuda.is_available() else "cpu")


@functools.cache
def _say_missing(net: str) -> None:
    from difix3d.perceptual_weights import how_to_get

    what = "DISTS" if net == "dists" else f"LPIPS ({net})"
    log.warning("%s is left out: its weights are not here. %s", what, how_to_get(net))


def _unit_pair(a: NDArray, b: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if a.shape != b.shape or a.ndim != 3:
        raise ShapeError(f"expected two pictures [H, W, 3] of one size, got {list(a.shape)} and {list(b.shape)}")
    return _unit(a), _unit(b)


def _unit(picture: NDArray) -> NDArray[np.float64]:
    return picture.astype(np.float64) / 255.0 if picture.dtype == np.uint8 else picture.astype(np.float64)
