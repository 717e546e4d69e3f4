"""Step 5: how far raters agree, who among them is odd, and what they prefer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from difix3d.ratings.filters import VoteFilter, vote_filter
from difix3d.ui.rate import EVERYWHERE, HERE
from difix3d.ui.results.counting import Counting
from difix3d.ui.results.view import NO_VOTES, results_html
from difix3d.ui.shared import QUIET, Shared, empty, told
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
    shown = gr.HTML(empty(NO_VOTES), elem_classes="dx-results-page")

    filters = [scope, since, without, flagged]
    read = _reader(shared, counting)
    inputs, outputs = [shared.visitor, shared.scene_id, looked, *filters], [shown, without, shared.filters]
    quiet = {**QUIET, "trigger_mode": "always_last"}
    tab.select(lambda: True, None, [looked], **QUIET).then(read, inputs, outputs, **quiet)
    for moment in (shared.scene_id.change, scope.input, since.submit, since.blur, without.input, flagged.input):
        moment(read, inputs, outputs, **quiet)
    again.click(read, inputs, outputs, **quiet)


def _reader(shared: Shared, counting: Counting) -> Any:
    @told
    def read(
        visitor: dict[str, str],
        scene_id: str,
        looked: bool,
        scope: str,
        since: str,
        without: Sequence[int] | None,
        flagged: bool,
    ) -> Iterator[tuple[Any, Any, Any]]:
        if not looked:
            return
        studio = shared.studio
        wanted = vote_filter(None, since, without or (), flagged)
        if scope == EVERYWHERE and studio.public:  # other people's scenes are theirs
            yield empty(SCENE_BY_SCENE), gr.skip(), gr.skip()
            return
        if scope == HERE:
            if not scene_id:
                yield empty(NO_VOTES), gr.skip(), gr.skip()
                return
            scene = studio.open_scene(scene_id, visitor["id"])
            wanted = VoteFilter(scene.id, wanted.since, wanted.without, wanted.without_flagged)
        counted = counting.at_hand(wanted)
        if counted is None:
            yield f"<div aria-busy='true'>{empty(COUNTING)}</div>", gr.skip(), gr.skip()
            counted = counting.count(wanted)
        # What stays of a filter when the scene changes are its settings; an export has a scene of its own.
        without_names = [str(number) for number in wanted.without]
        kept = {"since": since.strip(), "without": without_names, "without_flagged": wanted.without_flagged}
        choices = [(f"rater {number}", number) for number in counting.raters()]
        html = f"<div class='dx-results'>{results_html(counted, studio.media.url)}{_pushed(studio)}</div>"
        yield html, gr.Dropdown(choices=choices, value=list(wanted.without)), kept

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
