"""The rating screen's HTML and JavaScript, put together from the files beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from difix3d.types import SCORES

_HERE = Path(__file__).resolve().parent
_PARTS = ("post", "outbox", "stage", "brush", "details", "people")
_SCRIPTS = (*_PARTS, "screen", "notes", "look", "draw", "keys", "start")
"""Together they are the body of one function: parts that are made by calling them, then the screen made of these."""

TAGS = {
    "floaters": ("Floaters", "Smudges hang in the air, before things or beside them."),
    "blur": ("Blur", "Soft where the photos are sharp."),
    "ghosting": ("Ghosting", "A thing is there twice, a little apart."),
    "colour_shift": ("Colour shift", "Colours or brightness are not those of the photos."),
    "invented_detail": ("Invented detail", "Crisp, but not so in any photo."),
    "lost_detail": ("Lost detail", "Something the photos show is gone."),
}
"""Artifact tag -> (what the screen calls it, how to know it)."""

_VOTES = (
    ("left", "A is better", "1"),
    ("right", "B is better", "2"),
    ("tie", "Tie", "3"),
    ("both_bad", "Both bad", "4"),
    ("skip", "Can't tell", "0"),
)
_SCORES = (("artifact_removal", "Free of artifacts"), ("faithfulness", "True to the photos"))


def css() -> str:
    return (_HERE / "rating.css").read_text()


def script() -> str:
    return "\n".join((_HERE / f"{name}.js").read_text() for name in _SCRIPTS)


def outbox_script() -> str:
    """What sends votes that wait in the browser, also where the screen is not shown."""
    return "\n".join((_HERE / f"{name}.js").read_text() for name in ("post", "outbox")) + "\nsharedOutbox();"


def example_path(tag: str) -> Path:
    """The guide's picture of a tag; examples/make_tag_examples.py makes it."""
    return _HERE / "guide" / f"{tag}.jpg"


def template(example_urls: Mapping[str, str]) -> str:
    """example_urls: address of the guide's picture of each tag."""
    sides = (("left", "A"), ("right", "B"))
    parts = {
        "examples": "".join(_example(tag, example_urls[tag]) for tag in TAGS),
        "panes": "".join(_pane(side, name) for side, name in sides),
        "sides": "".join(_side(side, name) for side, name in sides),
        "votes": "".join(_vote(*vote) for vote in _VOTES),
    }
    html = (_HERE / "screen.html").read_text()
    for name, part in parts.items():
        html = html.replace(f"{{{name}}}", part)
    return html


def _example(tag: str, url: str) -> str:
    label, how = TAGS[tag]
    return f"<figure><img src='{url}' alt='Example of {label.lower()}'><b>{label}</b><small>{how}</small></figure>"


def _pane(side: str, name: str) -> str:
    return (
        f"<div class='dx-pane' data-side='{side}'><div class='dx-view'>"
        f"<img class='dx-own' alt='Picture {name}' draggable='false'><img class='dx-other' alt='' draggable='false'>"
        f"<canvas class='dx-marks'></canvas></div><em>{name}</em></div>"
    )


def _vote(choice: str, label: str, key: str) -> str:
    better = " class='dx-better'" if choice in ("left", "right") else ""
    return f"<button type='button' data-choice='{choice}'{better} disabled>{label} <kbd>{key}</kbd></button>"


def _side(side: str, name: str) -> str:
    chips = "".join(
        f"<button type='button' data-tag='{tag}' aria-pressed='false' title='{how}'>{label}</button>"
        for tag, (label, how) in TAGS.items()
    )
    scores = "".join(
        f"<div role='group' aria-label='{name}: {label.lower()}, 1 to 5'><span>{label}</span>"
        + "".join(
            f"<button type='button' data-score='{score}' data-value='{value}' aria-pressed='false'>{value}</button>"
            for value in SCORES
        )
        + "</div>"
        for score, label in _SCORES
    )
    return (
        f"<div class='dx-side' data-side='{side}'>"
        f"<div class='dx-chips' role='group' aria-label='What is wrong in {name}'><b>{name}</b>{chips}</div>"
        f"<div class='dx-scores'>{scores}</div></div>"
    )
