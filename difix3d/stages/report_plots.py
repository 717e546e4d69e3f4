"""The report's plots, as PNG. Drawn for a column as wide as a phone: few words, large enough to read there."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from difix3d.stages.report_data import KEPT_OUT, FitHistory, ScoredPhoto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1d2430", "#5d6778", "#e3e7ee"
BLUE, ORANGE = "#3563c9", "#e07b39"
_SIZE_INCHES, _DPI = (5.2, 2.9), 220
RESIDUAL_MAX = 0.25
"""Residuals of a quarter of the range and above are drawn alike: brightest."""


def draw_all(
    history: FitHistory, photos: Sequence[ScoredPhoto], phases: Sequence[tuple[str, float]]
) -> dict[str, bytes]:
    """PNG files by name: psnr and splats over time (where known), photos, phases (where known)."""
    plots = {}
    if history.psnr:
        plots["psnr"] = _line(history.psnr, "PSNR of a few kept-out photos, dB", BLUE)
    if history.splats:
        plots["splats"] = _line(history.splats, "Splats", ORANGE, from_zero=True)
    plots["photos"] = _bars_by_photo(photos)
    if phases:
        plots["phases"] = _phases(phases)
    return plots


def residual_rgb(residual: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[H, W] in 0 to 1 as colours [H, W, 3]: black where nothing is wrong, yellow at RESIDUAL_MAX."""
    from matplotlib import colormaps

    return (colormaps["inferno"](np.clip(residual / RESIDUAL_MAX, 0, 1))[..., :3] * 255 + 0.5).astype(np.uint8)


def titled_axes(title: str, height: float = _SIZE_INCHES[1]) -> tuple[Figure, Axes]:
    """A figure with one plot in the report's look, on which to draw. height: in inches."""
    from matplotlib.figure import Figure

    figure = Figure((_SIZE_INCHES[0], height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=SOFT, labelsize=9.5, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def png_bytes(figure: Figure) -> bytes:
    """The drawn figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _line(points: Sequence[tuple[float, float]], title: str, colour: str, from_zero: bool = False) -> bytes:
    figure, axes = titled_axes(title)
    seconds, values = zip(*points)
    axes.plot(seconds, values, color=colour, linewidth=2, marker="o", markersize=3 if len(points) < 40 else 0)
    axes.set_xlabel("seconds of fitting", color=SOFT, fontsize=9.5)
    axes.set_xlim(left=0)
    if from_zero:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.annotate(
        f"{values[-1]:,.0f}" if from_zero else f"{values[-1]:.1f}",
        (seconds[-1], values[-1]), (0, 7), textcoords="offset points", ha="right", color=colour, weight="bold",
    )  # fmt: skip
    return png_bytes(figure)


def _bars_by_photo(photos: Sequence[ScoredPhoto]) -> bytes:
    """In the order of the capture, so that a bad stretch of a walk shows as one."""
    from matplotlib.patches import Patch

    figure, axes = titled_axes("PSNR of every photo's camera, dB, in the order of the photos")
    axes.grid(visible=False, axis="x")
    # Equal pictures have an infinite PSNR; a bar needs an end.
    values = [min(photo.psnr, 60.0) for photo in photos]
    colours = [ORANGE if photo.role == KEPT_OUT else BLUE for photo in photos]
    axes.bar(range(len(photos)), values, width=0.8, color=colours)
    axes.set_xticks([])
    roles = dict.fromkeys((photo.role, colour) for photo, colour in zip(photos, colours))
    axes.legend(
        handles=[Patch(color=colour, label=role) for role, colour in roles], ncols=2, fontsize=9.5, frameon=False,
        labelcolor=SOFT, loc="upper left", bbox_to_anchor=(0, 0),
    )  # fmt: skip
    return png_bytes(figure)


def _phases(phases: Sequence[tuple[str, float]]) -> bytes:
    total = sum(seconds for _, seconds in phases)
    figure, axes = titled_axes(f"Where {total:,.0f} seconds went", 0.9 + 0.26 * len(phases))
    axes.grid(visible=False, axis="y")
    names, seconds = [name for name, _ in phases], [value for _, value in phases]
    bars = axes.barh(range(len(phases)), seconds, color=BLUE, height=0.62)
    axes.bar_label(bars, labels=[f"{value:.1f} s" for value in seconds], padding=4, color=SOFT, fontsize=9.5)
    axes.set_yticks(range(len(phases)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(max(seconds), 1e-3))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return png_bytes(figure)
