"""The figures of the votes as PNG, in the look of a scene's report: drawn for a column as wide as a phone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from difix3d.stages.report_plots import BLUE, GRID, INK, ORANGE, SOFT, png_bytes, titled_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_RATERS = 20
"""Rows that can be told apart on a phone; those who are flagged come first."""
_MOST_NAMES = 14
_MOST_DAYS = 92
_ROW_INCHES = 0.24
_TITLES = {
    "fixer": "Scores of fixers",
    "references": "Scores by reference photos",
    "timestep": "Scores by timestep",
    "arm": "Scores of ways of fixing",
}


def draw_all(figures: dict[str, Any]) -> dict[str, bytes]:
    """figures: of ratings/results.py. PNG files by name, of what there are votes for: score-GROUP, wins, days, gold,
    seconds."""
    plots = {}
    for group, title in _TITLES.items():
        scores = figures["scores"][group]
        if scores and not (group == "arm" and only_fixers(figures["scores"])):
            plots[f"score-{group}"] = _scores(scores[:_MOST_NAMES], title)
    if 1 < len(figures["win_matrix"]["names"]) <= _MOST_NAMES:
        plots["wins"] = _wins(figures["win_matrix"])
    if figures["per_day"]:
        plots["days"] = _days(figures["per_day"])
    raters = sorted(figures["raters"], key=lambda entry: (not entry["flags"], -entry["votes"], entry["rater"]))
    if checked := [entry for entry in raters if entry["gold"]["answered"]][:MOST_RATERS]:
        plots["gold"] = _by_rater(
            checked,
            "Right answers to checks, by rater",
            [(each["gold"]["accuracy"], *each["gold"]["interval"]) for each in checked],
            chance=0.5,
        )
    if timed := [entry for entry in raters if entry["seconds"]["median"] is not None][:MOST_RATERS]:
        times = [[each["seconds"][name] for name in ("median", "p10", "p90")] for each in timed]
        plots["seconds"] = _by_rater(timed, "Seconds for a vote, by rater (median, 10 to 90 %)", times)
    return plots


def only_fixers(scores: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether ways of fixing differ by their fixer alone: their scores say nothing new then."""
    return [each["name"] for each in scores["arm"]] == [each["name"] for each in scores["fixer"]]


def _scores(scores: Sequence[dict[str, Any]], title: str) -> bytes:
    figure, axes = titled_axes(f"{title}, with 95 % intervals", 1.0 + _ROW_INCHES * len(scores))
    axes.axvline(0, color=SOFT, linewidth=0.8)
    points = [(each["score"], *each["interval"]) for each in scores]
    _ranges(axes, points, [BLUE] * len(points))
    axes.set_yticks(range(len(scores)), [_short(each["name"]) for each in scores])
    axes.set_xlabel("logits about the mean: +1 is preferred 2.7 times as often as not", color=SOFT, fontsize=9)
    return png_bytes(figure)


def _by_rater(
    entries: Sequence[dict[str, Any]],
    title: str,
    points: Sequence[Sequence[float]],
    chance: float | None = None,
) -> bytes:
    """Flagged raters are orange."""
    figure, axes = titled_axes(title, 0.8 + _ROW_INCHES * len(entries))
    if chance is not None:
        axes.axvline(chance, color=SOFT, linewidth=0.8, linestyle="--")
        axes.set_xlim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    else:
        axes.set_xlim(0, 1.05 * max(point[2] for point in points))
    _ranges(axes, points, [ORANGE if entry["flags"] else BLUE for entry in entries])
    axes.set_yticks(range(len(entries)), [f"rater {entry['rater']}" for entry in entries])
    return png_bytes(figure)


def _ranges(axes: Axes, points: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    """One row per (value, low, high), the first at the top."""
    for row, ((value, low, high), colour) in enumerate(zip(points, colours)):
        axes.plot([low, high], [row, row], color=colour, linewidth=5, alpha=0.3, solid_capstyle="round")
        axes.plot([value], [row], color=colour, marker="o", markersize=6)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(points) - 0.4, -0.6)


def _wins(matrix: dict[str, Any]) -> bytes:
    """Share of the votes for the row's, of those that it and the column's were shown for; a tie is half."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    names = matrix["names"]
    figure, axes = titled_axes("How often the row's is preferred to the column's", 1.5 + 0.42 * len(names))
    colours = colormaps["RdBu"]
    for i in range(len(names)):
        for j in range(len(names)):
            wins, losses, ties = matrix["wins"][i][j], matrix["wins"][j][i], matrix["ties"][i][j]
            total = wins + losses + ties
            if i == j or not total:
                continue
            share = (wins + ties / 2) / total
            # The map's ends are too dark to read ink on.
            axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, color=colours(0.2 + 0.6 * share)))
            axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=INK, fontsize=9.5)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    short = [_short(name, 16 if len(names) < 6 else 10) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=0 if len(names) < 6 else 45)
    axes.set_yticks(range(len(names)), short)
    axes.grid(visible=False)
    axes.spines[:].set_color(GRID)
    return png_bytes(figure)


def _days(per_day: dict[str, int]) -> bytes:
    """Days without votes are there too; of very long campaigns the last three months."""
    last = date.fromisoformat(max(per_day))
    first = max(date.fromisoformat(min(per_day)), last - timedelta(days=_MOST_DAYS - 1))
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    figure, axes = titled_axes("Votes per day (UTC), with checks and repeats")
    counts = [per_day.get(day.isoformat(), 0) for day in days]
    bars = axes.bar(range(len(days)), counts, width=0.8 if len(days) > 3 else 0.35, color=BLUE)
    if len(days) <= 14:
        axes.bar_label(bars, color=SOFT, fontsize=8.5, padding=2)
    step = max(1, -(-len(days) // 6))
    axes.set_xticks(range(0, len(days), step), [f"{day.day} {day:%b}" for day in days[::step]])
    axes.set_xlim(-0.9, len(days) - 0.1)
    axes.grid(visible=False, axis="x")
    return png_bytes(figure)


def _short(name: str, most: int = 26) -> str:
    # Of a name that means mathematics to matplotlib, the dollars are shown.
    name = name.replace("$", r"\$")
    return name if len(name) <= most else f"{name[: most - 1]}…"
