"""Step 4: two pictures of one frame, blind; a vote is stored before the next pair is shown."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from difix3d import __version__
from difix3d.errors import Difix3DError, RatingError
from difix3d.ratings.candidates import Frames, candidates_of
from difix3d.ratings.sampling import PairToRate, next_pair, progress
from difix3d.ratings.schema import new_id
from difix3d.scene import Scene
from difix3d.types import Candidate, Rating
from difix3d.ui.fix import thumbnail_of
from difix3d.ui.scene import NO_SCENE
from difix3d.ui.shared import QUIET, Shared, told
from difix3d.ui.studio import Studio, rater_key
from difix3d.ui.widgets import compare

log = logging.getLogger(__name__)

HERE, EVERYWHERE = "this scene", "all scenes"
UI_VERSION = f"studio {__version__}"
NO_PAIRS = "Nothing to compare yet: a path has to be rendered and fixed first. Capture shows how far it is."
ALL_RATED = "You have rated every pair there is. Thank you! Fix frames with other photos, or another path, for more."


@dataclass
class Asked:
    """What a person is looking at. shown_at: monotonic seconds of the server; reference: the photo beside it."""

    pair: PairToRate
    reference: str | None
    shown_at: float


def build(shared: Shared) -> None:
    """The step's components and events."""
    asked = gr.State(None)
    pairs = compare()
    with gr.Row():
        scope = gr.Radio([HERE, EVERYWHERE], value=HERE, label="Pairs from", elem_id="dx-scope")
        gr.HTML(
            "<p class='dx-note'>You are not told which picture is which, and sides are drawn anew each time. Scroll or "
            "pinch to look closer: both move together. Each vote is kept at once; a vote can be taken back.</p>"
        )

    opened = [shared.visitor, shared.scene_id, scope]
    shown = [pairs, asked]
    for moment in (shared.revision.change, scope.change):
        moment(_reader(shared), [*opened, asked], shown, **QUIET)
    pairs.vote(_voter(shared), [*opened, asked], shown, **QUIET)
    pairs.undo(_undoer(shared), [*opened, asked], shown, **QUIET)


def _reader(shared: Shared) -> Any:
    @told
    def read(visitor: dict[str, str], scene_id: str, scope: str, asked: Asked | None) -> tuple[Any, ...]:
        scenes = _scenes(shared.studio, visitor, scene_id, scope)
        if asked and any(_still_there(scene, asked.pair) for scene in scenes):
            return gr.skip(), asked  # something else became ready: the person goes on looking
        return _ask(shared.studio, visitor, scenes)

    return read


def _voter(shared: Shared) -> Any:
    @told
    def vote(
        visitor: dict[str, str], scene_id: str, scope: str, asked: Asked | None, event: gr.EventData
    ) -> tuple[Any, ...]:
        scenes = _scenes(shared.studio, visitor, scene_id, scope)
        if asked and asked.pair.token == event.token:
            elapsed = time.monotonic() - asked.shown_at
            # The page's clock starts when both pictures are decoded; it can be no longer than ours.
            seconds = min(max(0.0, float(event.ms) / 1000), elapsed)
            rating = _rating(asked.pair, str(event.choice), rater_key(visitor["id"]), seconds, asked.reference)
            shared.studio.store.add(rating, asked.pair.token, ui_version=UI_VERSION)
        return _ask(shared.studio, visitor, scenes)

    return vote


def _undoer(shared: Shared) -> Any:
    @told
    def undo(
        visitor: dict[str, str], scene_id: str, scope: str, asked: Asked | None, event: gr.EventData
    ) -> tuple[Any, ...]:
        scenes = _scenes(shared.studio, visitor, scene_id, scope)
        only = scene_id if scope == HERE else None
        taken_back = shared.studio.store.undo(rater_key(visitor["id"]), scene_id=only)
        if taken_back is None:
            return _ask(shared.studio, visitor, scenes)
        pair = PairToRate(taken_back.candidate_a, taken_back.candidate_b, taken_back.left_is, new_id())
        if not any(_still_there(scene, pair) for scene in scenes):
            return _ask(shared.studio, visitor, scenes)
        return _show(shared.studio, visitor, scenes, pair)

    return undo


def _scenes(studio: Studio, visitor: dict[str, str], scene_id: str, scope: str) -> list[Scene]:
    if scope == EVERYWHERE:
        return studio.scenes_of(visitor["id"])
    return [studio.open_scene(scene_id, visitor["id"])] if scene_id else []


def _ask(studio: Studio, visitor: dict[str, str], scenes: Sequence[Scene]) -> tuple[Any, ...]:
    pair = next_pair(_frames(scenes), studio.store, rater_key(visitor["id"]))
    if pair is not None:
        return _show(studio, visitor, scenes, pair)
    done = progress(_frames(scenes), studio.store, rater_key(visitor["id"]))
    text = NO_SCENE if not scenes else ALL_RATED if done.total else NO_PAIRS
    return {"empty": text, "done": done.judged, "total": done.total, "undoable": done.judged > 0}, None


def _show(studio: Studio, visitor: dict[str, str], scenes: Sequence[Scene], pair: PairToRate) -> tuple[Any, ...]:
    scene = next(scene for scene in scenes if scene.id == pair.left.scene_id)
    done = progress(_frames(scenes), studio.store, rater_key(visitor["id"]))
    reference = _reference(scene, pair)
    value = {
        "token": pair.token,
        "left": studio.media.url(scene.inside(pair.left.image_path)),
        "right": studio.media.url(scene.inside(pair.right.image_path)),
        "reference": studio.media.url(thumbnail_of(scene, reference)) if reference else "",
        "place": f"{scene.info['name']}, {pair.left.trajectory}, frame {pair.left.frame_index}",
        "done": done.judged,
        "total": done.total,
        "undoable": done.judged > 0,
    }
    return value, Asked(pair, reference, time.monotonic())


def _frames(scenes: Sequence[Scene]) -> list[Frames]:
    """Candidates of every scene; one that cannot be read is left out, and the others can still be rated."""
    found: list[Frames] = []
    for scene in scenes:
        try:
            found.append(candidates_of(scene))
        except Difix3DError as error:
            log.warning("scene %s is not asked about: %s", scene.id, error.message)
    return found


def _still_there(scene: Scene, pair: PairToRate) -> bool:
    """Whether both pictures are candidates of this scene now, with the same pixels."""
    a = pair.candidate_a
    if scene.id != a.scene_id:
        return False
    try:
        now = {each.sha256 for each in candidates_of(scene).get((a.trajectory, a.frame_index), [])}
    except Difix3DError:
        return False
    return {pair.candidate_a.sha256, pair.candidate_b.sha256} <= now


def _reference(scene: Scene, pair: PairToRate) -> str | None:
    """A photo that one of the fixes was made from, and so shows the same place; None where none is there."""
    names = [*pair.candidate_a.references, *pair.candidate_b.references]
    return next((name for name in names if (scene.images_dir / name).is_file()), None)


def _rating(pair: PairToRate, choice: str, rater: str, seconds: float, reference: str | None) -> Rating:
    """A vote in terms of candidates. choice: left | right | tie | both_bad | skip, as the screen had it."""
    right_is = "b" if pair.left_is == "a" else "a"
    sides = {"left": pair.left_is, "right": right_is, "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
    if choice not in sides:
        raise RatingError(f"choice: expected one of {', '.join(sides)}, got {choice[:20]!r}")
    a: Candidate = pair.candidate_a
    return Rating(a, pair.candidate_b, sides[choice], pair.left_is, rater, round(seconds, 3), reference)
