"""Step 5: how far raters agree, who among them is odd, and what they prefer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from difix3d.ratings.filters import vote_filter
from difix3d.ui.rate import EVERYWHERE, HERE
from difix3d.ui.results.counting import Counting
from difix3d.ui.results.view import NO_VOTES, results_html
from difix3d.ui.shared import LATEST, QUIET, Shared, empty, told
from difix3d.ui.studio import Studio

SCENE_BY_SCENE = "On this server, votes are counted scene by scene."
COUNTING = "Counting the votes…"


def css() -> str:
    return (Path(__file__).resolve().parent / "results.css").read_text()


def build(shared: Shared, tab: gr.Tab) -> None:
    """The step's components and events. Nothing is counted before somebody looks at `tab`."""
    counting = Counting(shared.studio.store)
    looked = gr.State(False)
    with gr.Row(equal_height=False):
        scope = gr.Radio(
            [HERE, EVERYWHERE], value=HERE, label="Votes of", scale=2, min_width=280, elem_id="dx-results-scope"
        )
        since = gr.Textbox(
            label="Since (UTC)", placeholder="2026-11-28", max_length=10, min_width=130, elem_id="dx-since"
        )
        without = gr.Dropdown([], label="Without raters", multiselect=True, min_width=130, elem_id="dx-without-raters")
    with gr.Row(equal_height=False):
        flagged = gr.Checkbox(
            label="Leave out who is flagged", container=False, scale=4, min_width=200, elem_id="dx-without-flagged"
        )
        again = gr.Button("Count again", size="sm", min_width=110, elem_id="dx-count-again")
    shown = gr.HTML(empty(NO_VOTES), elem_id="dx-results-page")

    chosen = [since, without, flagged]
    inputs, outputs = [shared.visitor, shared.scene_id, looked, scope, shared.filters], [shown, without]
    read = _reader(shared, counting)
    tab.select(lambda: True, None, [looked], **QUIET).then(read, inputs, outputs, **LATEST)
    for moment in (since.submit, since.blur, without.input, flagged.input):
        moment(_chosen, chosen, [shared.filters], **LATEST).success(read, inputs, outputs, **LATEST)
    for moment in (shared.scene_id.change, scope.input, again.click):
        moment(read, inputs, outputs, **LATEST)


@told
def _chosen(since: str, without: Sequence[int] | None, flagged: bool) -> dict[str, Any]:
    """What the page's other steps know of the filters; they stay when the scene changes."""
    wanted = vote_filter(None, since, without or (), flagged)
    numbers = [str(number) for number in wanted.without]
    return {"since": since.strip(), "without": numbers, "without_flagged": flagged}


def _reader(shared: Shared, counting: Counting) -> Any:
    @told
    def read(
        visitor: dict[str, str], scene_id: str, looked: bool, scope: str, filters: dict[str, Any]
    ) -> Iterator[tuple[Any, Any]]:
        if not looked:
            return
        studio = shared.studio
        if scope == EVERYWHERE and studio.public:  # other people's scenes are theirs
            yield empty(SCENE_BY_SCENE), gr.skip()
            return
        if scope == HERE and not scene_id:
            yield empty(NO_VOTES), gr.skip()
            return
        scene = studio.open_scene(scene_id, visitor["id"]).id if scope == HERE else None
        wanted = vote_filter(scene, **filters)
        counted = counting.at_hand(wanted)
        if counted is None:
            yield f"<div aria-busy='true'>{empty(COUNTING)}</div>", gr.skip()
            counted = counting.count(wanted)
        html = f"<div class='dx-results'>{results_html(counted, studio.media.url)}{_pushed(studio)}</div>"
        choices = [(f"rater {number}", number) for number in counting.raters()]
        yield html, gr.Dropdown(choices=choices, value=list(wanted.without), multiselect=True)

    return read


def _pushed(studio: Studio) -> str:
    """Where votes go by themselves, and whether they get there."""
    if studio.pushing is None:
        return ""
    status = studio.pushing.status()
    text = f"Votes and exports are pushed to {status['repository']}; {status['waiting']:,} entries wait."
    if status["told"]:
        text += " The last push failed and is tried again: the server's log says why."
    return f"<p class='dx-note'>{escape(text)}</p>"
