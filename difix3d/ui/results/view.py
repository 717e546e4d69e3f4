"""The figures of the votes as HTML. Raters are numbers here: what they call themselves is for nobody but themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from difix3d.ui.rating.screen import TAGS
from difix3d.ui.results.counting import Counted
from difix3d.ui.results.plots import only_fixers
from difix3d.ui.shared import empty, facts

NO_VOTES = (
    "No votes yet. Compare some pairs under Rate, or send the address of this page to others: what all of you say is "
    "counted here."
)
ALL_FILTERED = "These filters leave no vote. Choose an earlier day, other raters, or all scenes."
_MOST_ROWS = 60
_PLOTS = {
    "score-fixer": "Bradley-Terry scores of fixers with intervals",
    "score-references": "Bradley-Terry scores by reference photos with intervals",
    "score-timestep": "Bradley-Terry scores by timestep with intervals",
    "score-arm": "Bradley-Terry scores of ways of fixing with intervals",
    "wins": "How often each is preferred to each other",
    "gold": "Right answers to checks of each rater",
    "seconds": "Seconds for a vote of each rater",
    "days": "Votes per day",
}
"""Name of a plot -> what somebody is told who does not see it; in the order of the page."""


def results_html(counted: Counted, url: Callable[..., str]) -> str:
    """url: address of a file (and the name to save it under)."""
    figures = counted.figures
    if not figures["votes"] + figures["gold_votes"] + figures["repeat_votes"]:
        return empty(ALL_FILTERED if figures["filters"]["votes_left_out"] else NO_VOTES)
    name = f"difix3d-results-{figures['filters']['scene'] or 'all-scenes'}.json"
    return "".join(
        (
            _summary(figures),
            _left_out(figures["filters"]),
            _flagged(figures),
            _plots(counted.plots, url),
            _scores(figures["scores"]),
            _matrix(figures["win_matrix"]),
            _raters(figures["raters"]),
            _scenes(figures["scenes"]),
            _tags(figures["tags"]),
            f"<div class='dx-links'><a href='{url(counted.file, name)}' download='{escape(name)}'>"
            "All figures (.json)</a></div>",
        )
    )


def _summary(figures: dict[str, Any]) -> str:
    alpha, gold, again = figures["alpha"]["choice"], figures["gold"], figures["consistency"]
    side, seconds = figures["side_bias"], figures["seconds"]
    rows = [
        ("votes", f"{figures['votes']:,}", f"and {figures['gold_votes'] + figures['repeat_votes']:,} checks, repeats"),
        ("raters", f"{len(figures['raters']):,}", f"{len(figures['flagged'])} flagged"),
        ("pairs", f"{figures['pairs']:,}", f"in {len(figures['scenes'])} scene{'s' * (len(figures['scenes']) != 1)}"),
        ("agreement", _number(alpha["alpha"]), f"Krippendorff's alpha {_span(alpha['interval'])}"),
        ("checks right", _percent(gold["accuracy"]), f"{gold['right']} of {gold['answered']}"),
        ("same again", _percent(again["consistency"]), f"{again['same']} of {again['repeats']} repeats"),
        ("left side", _percent(side["left_share"]), _biased(side)),
        ("time for a vote", _seconds(seconds["median"]), f"10 to 90 %: {seconds['p10']} to {seconds['p90']} s"),
    ]
    return facts(rows)


def _biased(side: dict[str, Any]) -> str:
    if side["interval"] is None:
        return "no vote for a side"
    low, high = side["interval"]
    return "50 % is no bias" if low <= 0.5 <= high else f"biased: {low:.0%} to {high:.0%}"


def _left_out(filters: dict[str, Any]) -> str:
    parts = []
    if filters["votes_before"]:
        parts.append(f"{filters['votes_before']:,} before {filters['since']}")
    if filters["votes_of_left_out_raters"]:
        numbers = ", ".join(map(str, filters["without_raters"]))
        parts.append(f"{filters['votes_of_left_out_raters']:,} of rater {numbers}")
    if not parts:
        return ""
    return (
        f"<p class='dx-note'>Left out here, and kept in the log: {' and '.join(parts)}. A dataset that is written "
        "under Dataset leaves them out too, and says so.</p>"
    )


def _flagged(figures: dict[str, Any]) -> str:
    if not figures["flagged"]:
        return ""
    out = set(figures["filters"]["without_raters"])
    rows = "".join(
        f"<li>rater {each['rater']}: {escape('; '.join(each['flags']))}"
        f"{' (left out here)' if each['rater'] in out else ''}</li>"
        for each in figures["flagged"][:_MOST_ROWS]
    )
    return f"<div class='dx-flagged'><b>Flagged, and counted unless you leave them out</b><ul>{rows}</ul></div>"


def _plots(plots: dict[str, Path], url: Callable[..., str]) -> str:
    pictures = "".join(
        f"<a href='{url(plots[name])}' target='_blank'><img src='{url(plots[name])}' alt='{escape(told)}'></a>"
        for name, told in _PLOTS.items()
        if name in plots
    )
    return f"<div class='dx-plots'>{pictures}</div>" if pictures else ""


def _scores(scores: dict[str, list[dict[str, Any]]]) -> str:
    heads = {"fixer": "fixer", "references": "reference photos", "timestep": "timestep", "arm": "way of fixing"}
    rows = [
        [heads[group], each["name"], f"{each['score']:+.2f}", _span(each["interval"]), f"{each['votes']:,}"]
        for group in heads
        if not (group == "arm" and only_fixers(scores))
        for each in scores[group]
    ]
    title = "Scores (Bradley-Terry with ties, logits about the mean)"
    return _table(title, ("by", "name", "score", "95 %", "votes"), rows, texts=2)


def _matrix(matrix: dict[str, Any]) -> str:
    names = matrix["names"]
    if len(names) < 2 or len(names) > _MOST_ROWS:
        return ""
    rows = [
        [
            one,
            *("" if i == j else f"{matrix['wins'][i][j]} / {matrix['ties'][i][j]}" for j in range(len(names))),
        ]
        for i, one in enumerate(names)
    ]
    return _table("Wins / ties of the row's against the column's", ("", *names), rows)


def _raters(entries: Sequence[dict[str, Any]]) -> str:
    ordered = sorted(entries, key=lambda entry: (not entry["flags"], -entry["votes"], entry["rater"]))
    rows = [
        [
            str(each["rater"]),
            f"{each['votes']:,}",
            f"{_percent(each['gold']['accuracy'])} of {each['gold']['answered']}",
            f"{_percent(each['consistency']['consistency'])} of {each['consistency']['repeats']}",
            _percent(each["agrees_with_others"]),
            _percent(each["side"]["left_share"]),
            _seconds(each["seconds"]["median"]),
            "; ".join(each["flags"]),
        ]
        for each in ordered
    ]
    heads = ("rater", "votes", "checks right", "same again", "with others", "left side", "a vote takes", "flags")
    return _table("Raters", heads, rows)


def _scenes(scenes: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            scene,
            f"{each['votes']:,}",
            f"{each['items']:,}",
            f"{_number(each['alpha']['alpha'])} {_span(each['alpha']['interval'])}",
            " · ".join(f"{score['name']} {score['score']:+.2f}" for score in each["scores"]),
        ]
        for scene, each in scenes.items()
    ]
    return _table("Scenes", ("scene", "votes", "pairs", "alpha", "scores of fixers, best first"), rows)


def _tags(tags: dict[str, dict[str, Any]]) -> str:
    heads = ("fixer", "shown", *(name.lower() for name, _ in TAGS.values()))
    rows = [[fixer, f"{said['shown']:,}", *(_percent(said[tag]) for tag in TAGS)] for fixer, said in tags.items()]
    return _table("Artifacts: share of showings with any tag on which raters named each", heads, rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """ "" without rows. texts: how many of the first columns are words."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<{'td' if column >= texts else 'th'}>{escape(cell)}</{'td' if column >= texts else 'th'}>"
                         for column, cell in enumerate(row)) + "</tr>"
        for row in rows[:_MOST_ROWS]
    )  # fmt: skip
    more = f"<p class='dx-note'>{len(rows) - _MOST_ROWS:,} more are in the figures below.</p>"
    return (
        f"<h3>{escape(title)}</h3><div class='dx-table'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{more if len(rows) > _MOST_ROWS else ''}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
