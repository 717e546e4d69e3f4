"""Step 4: two pictures of one frame, blind. The screen itself talks to ui/rating/routes.py; here it learns who looks at
which scene, and that something in it became ready."""

from __future__ import annotations

from typing import Any

import gradio as gr

from difix3d.ui.rating import screen
from difix3d.ui.rating.people import can_log_in
from difix3d.ui.shared import QUIET, Shared, told
from difix3d.ui.widgets import compare

HERE, EVERYWHERE = "this scene", "all scenes"


def build(shared: Shared) -> None:
    """The step's component and its one event."""
    pairs = compare({tag: shared.studio.media.url(screen.example_path(tag)) for tag in screen.TAGS})
    if can_log_in():
        gr.LoginButton(visible=False)  # makes Gradio serve its addresses; the screen has the link
    opened = [shared.visitor, shared.scene_id, shared.revision]
    for moment in (shared.visitor.change, shared.scene_id.change, shared.revision.change):
        moment(_opened, opened, [pairs], **QUIET)


@told
def _opened(visitor: dict[str, str], scene_id: str, revision: str) -> dict[str, Any]:
    return {"visitor": visitor["id"], "scene": scene_id, "revision": revision}
