"""The fixers on the page: what choosing one means, all of them side by side, and fetching what one needs."""

from __future__ import annotations

from collections.abc import Generator
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from difix3d.events import Event, Progress
from difix3d.fixers.listing import SIZE, Facts, brief, look_closely, phrases
from difix3d.hub.files import gigabytes
from difix3d.scene import Scene
from difix3d.ui.shared import QUIET, Shared, told

FETCHING: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "fetch", "concurrency_limit": 4}
"""For downloads: they leave the processor alone, so others go on fixing meanwhile."""
FIX_IT = "Fix this frame"


def chooser(shared: Shared, **options: Any) -> gr.Dropdown:
    """The fixers to choose from, the server's default chosen. It has its value from the start: a page that is read
    while somebody chooses must not take the choice back."""
    return gr.Dropdown(
        _choices(shared), value=shared.studio.default_fixer, label="Fixer", filterable=False, scale=2, **options
    )


def refreshed(shared: Shared, chosen: str | None) -> Any:
    """An update of `chooser`: what was chosen stays while it is there."""
    choices = _choices(shared)
    if chosen in [name for _, name in choices]:
        return gr.Dropdown(choices=choices)
    return gr.Dropdown(choices=choices, value=shared.studio.default_fixer)


def _choices(shared: Shared) -> list[tuple[str, str]]:
    return [(offer.label, offer.name) for offer in shared.studio.fixers()]


def note(shared: Shared, scene: Scene | None, name: str | None) -> tuple[str, str]:
    """(HTML of what the fixer `name` takes for a frame of this scene, what the button that starts it should say)."""
    if not name:
        return "", FIX_IT
    facts = look_closely(shared.studio.fixer(name), *frame_size(scene))
    words = escape(" · ".join(brief(facts)))
    return f"<p class='dx-note' data-fixer='{escape(facts.label)}'>{words}</p>", _button(facts)


def noter(shared: Shared) -> Any:
    """Handler: (visitor, scene, fixer) -> the note and the button."""

    @told
    def noted(visitor: dict[str, str], scene_id: str, name: str | None) -> tuple[str, Any]:
        scene = shared.studio.open_scene(scene_id, visitor["id"]) if scene_id else None
        text, label = note(shared, scene, name)
        return text, gr.Button(label)

    return noted


def all_fixers(shared: Shared) -> None:
    """A closed box that lists every fixer with its facts once it is opened."""
    with gr.Accordion("What the fixers take", open=False, elem_id="dx-fixers") as box:
        cards = gr.HTML()

    @told
    def listed(visitor: dict[str, str], scene_id: str) -> str:
        scene = shared.studio.open_scene(scene_id, visitor["id"]) if scene_id else None
        size = frame_size(scene)
        return "".join(_card(look_closely(offer, *size)) for offer in shared.studio.fixers())

    box.expand(listed, [shared.visitor, shared.scene_id], [cards], **QUIET)


class Fetching:
    """A line that tells how far a download or a measurement is, and a button that stops it."""

    def __init__(self, shared: Shared, key: str):
        self.shared, self.key = shared, key
        self.line = gr.HTML(elem_id=f"dx-{key}-fetching")
        self.stop = gr.Button("Stop", size="sm", visible=False, elem_id=f"dx-{key}-stop")
        self.outputs = [self.line, self.stop]
        self.stop.click(self._stopper(), [shared.visitor], None, **QUIET)

    def follow(self, visitor: str, events: Generator[Event, None, Any]) -> Generator[tuple[Any, Any], None, None]:
        """Values for `outputs` while `events` come; nothing is shown where there are none. Errors pass."""
        shown = False
        try:
            for event in self.shared.studio.stoppable(f"{visitor} {self.key}", events):
                shown = True
                yield _progress(event), gr.Button(visible=True)
        except Exception:
            yield "", gr.Button(visible=False)
            raise
        if shown:
            yield "", gr.Button(visible=False)
        else:
            yield gr.skip(), gr.skip()

    def _stopper(self) -> Any:
        @told
        def stop(visitor: dict[str, str]) -> None:
            self.shared.studio.stop(f"{visitor['id']} {self.key}")

        return stop


def frame_size(scene: Scene | None) -> tuple[int, int]:
    """Width and height of the scene's renders; a usual size where it has none yet."""
    first = next(iter(sorted(scene.root.glob("renders/[!.]*/*.png"))), None) if scene else None
    if first is None:
        return SIZE
    with Image.open(first) as picture:
        return picture.size


def _button(facts: Facts) -> str:
    if facts.download_bytes == 0:
        return FIX_IT
    return f"Download {gigabytes(facts.download_bytes)}, then fix" if facts.download_bytes else "Download, then fix"


def _card(facts: Facts) -> str:
    rows = "".join(f"<li>{escape(phrase)}</li>" for phrase in phrases(facts))
    return f"<div class='dx-fixer'><strong>{escape(facts.label)}</strong><ul>{rows}</ul></div>"


def _progress(event: Event) -> str:
    """HTML: a message, and a bar where it is known how long it gets."""
    text, share = getattr(event, "message", ""), 0.0
    if isinstance(event, Progress) and event.total:
        text += f": {event.done:.0f} of {event.total:.0f} {event.unit}"
        share = event.done / event.total
        if event.seconds_left is not None:
            text += f", about {event.seconds_left:.0f} s left"
    bar = f"<div><i style='width:{share:.1%}'></i></div>" if share else ""
    return f"<div class='dx-fetching' role='status'><span>{escape(text)}</span>{bar}</div>"
