"""Old against new: a button that has a tuned checkpoint judged blind against its parent, and what the raters said."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from difix3d import jobs
from difix3d.errors import ConfigError, JobError
from difix3d.fixers.listing import Trained, trained, trained_frames
from difix3d.formats.camera_path import read_camera_path
from difix3d.ratings.campaigns import entered, outcomes
from difix3d.ratings.export_scenes import find_scenes
from difix3d.scene import Scene
from difix3d.trajectories import HELDOUT
from difix3d.ui.rate import EVERYWHERE
from difix3d.ui.shared import LATEST, QUIET, Shared, once_looked_at, told
from difix3d.ui.studio import Studio


def build(shared: Shared, opened: list[Any], looked: gr.State, tab: gr.Tab) -> None:
    """The components and events. opened: visitor, scene and scope of the step; tab: where it is; looked: whether it was
    looked at."""
    with gr.Column(visible=False, elem_id="dx-campaign") as box:
        gr.HTML(
            "<h3>Is it better?</h3><p class='dx-note'>Both fix the same kept-out views, and whoever rates is asked of "
            "these first, without being told which is which.</p>"
        )
        with gr.Row():
            which = gr.Dropdown([], label="Checkpoint", filterable=False, min_width=160, elem_id="dx-campaign-new")
            start = gr.Button("Rate it against its parent", min_width=160, elem_id="dx-campaign-start")
    said = gr.HTML(elem_id="dx-campaign-said")
    shared.revision.change(_choices(shared), [which], [box, which], **QUIET)
    read = _outcomes(shared)
    for moment in (opened[-1].change, tab.select):
        moment(read, opened, [said], **LATEST)
    shared.revision.change(once_looked_at(read, 1), [looked, *opened], [said], **LATEST)
    start.click(_starter(shared), [*opened, which], None, **QUIET)


def trained_html(studio: Studio) -> str:
    """Which checkpoints were trained here, and which of them are not offered, and why."""
    found = trained(studio.checkpoints_root)
    offered = ", ".join(one.name for one in found if not one.held_back)
    notes = [f"Trained here: {escape(offered)}. Choose it under Fix."] if offered else []
    unmeasured = ", ".join(one.name for one in found if not one.measured)
    notes += [f"Not measured at kept-out photos: {escape(unmeasured)}."] if unmeasured else []
    notes += [f"Kept, but not offered: {escape(one.name)}. {escape(one.held_back)}." for one in found if one.held_back]
    return "".join(f"<p class='dx-note'>{note}</p>" for note in notes)


def outcomes_html(studio: Studio, scene_id: str | None) -> str:
    """Who won, of one scene or of all; what is to do where nobody has voted yet."""
    new_is = entered(studio.store)
    if not new_is:
        return ""
    told_of = [
        _outcome_html(one, _trained_on(studio, one))
        for one in outcomes(new_is, studio.store.ratings(scene_id, marks=False))
    ]
    if not told_of:
        return "<p class='dx-note'>No votes on new against old yet: they come first under Rate.</p>"
    return (
        f"<h3>New against old</h3>{''.join(told_of)}"
        "<p class='dx-note'>Each view counts once, a tie is half a win; the band is the 95 % interval (Wilson).</p>"
    )


def _trained_on(studio: Studio, one: dict[str, Any]) -> int:
    """How many of the views one of the two was trained on, as their checkpoints say."""
    both = [str(studio.checkpoints_root / one[side]) for side in ("new", "old")]
    total = 0
    for scene_id, judged in one["views"].items():
        for scene in find_scenes(studio.scenes_root, scene_id):  # none where it was deleted since
            path = scene.trajectory_path(HELDOUT)
            photos = dict(enumerate(read_camera_path(path).view_names)) if path.is_file() else {}
            total += len(trained_frames(both, scene_id, photos) & {*judged})
    return total


def _outcome_html(one: dict[str, Any], trained_on: int) -> str:
    low, high = one["interval"]
    known = f" {trained_on} of {one['frames']} views were trained on, which favours the new one." if trained_on else ""
    return (
        f"<div class='dx-rates'><div><span>{escape(one['new'])} against {escape(one['old'])}</span>"
        f"<span class='dx-range'><i style='left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%'></i>"
        f"<b style='left:{100 * one['win_rate']:.1f}%'></b></span>"
        f"<span>{one['win_rate']:.0%} of {one['frames']} views</span></div></div>"
        f"<p class='dx-note'>{_verdict(one)}{known}</p>"
    )


def _verdict(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    votes = f"{one['votes']} votes: {one['wins']} for new, {one['losses']} for old, {one['ties']} equal."
    if low > 0.5:
        return f"{votes} The new one is better."
    return f"{votes} The old one is better." if high < 0.5 else f"{votes} Not decided yet."


def _candidates(studio: Studio) -> list[Trained]:
    """Checkpoints whose parent is known; on a public server none, since nobody trains there."""
    return [] if studio.public else [one for one in trained(studio.checkpoints_root) if one.parent]


def _choices(shared: Shared) -> Any:
    @told
    def choices(chosen: str | None) -> tuple[Any, Any]:
        found = _candidates(shared.studio)
        names = [(f"{one.name} (from {_short(one.parent)})", one.name) for one in found]
        value = chosen if chosen in [one.name for one in found] else next((one.name for one in found), None)
        return gr.Column(visible=bool(found)), gr.Dropdown(choices=names, value=value)

    return choices


def _short(parent: str) -> str:
    return parent if parent.count("/") <= 1 else parent.rsplit("/", 1)[-1]


def _outcomes(shared: Shared) -> Any:
    @told
    def read(visitor: dict[str, str], scene_id: str, scope: str) -> str:
        if not scene_id:
            return ""
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        everywhere = scope == EVERYWHERE and not shared.studio.public
        return outcomes_html(shared.studio, None if everywhere else scene.id)

    return read


def _starter(shared: Shared) -> Any:
    @told
    def start(visitor: dict[str, str], scene_id: str, scope: str, which: str | None) -> None:
        studio = shared.studio
        if not scene_id:
            raise ConfigError("Open a scene first.")
        scene: Scene = studio.open_scene(scene_id, visitor["id"])
        if studio.public:
            raise JobError("Checkpoints are compared on one's own machine: difix3d campaign --new DIR.")
        one = next((each for each in _candidates(studio) if each.name == which), None)
        if one is None:
            raise ConfigError("Choose a checkpoint that was trained here.")
        scenes = studio.scenes_root if scope == EVERYWHERE else scene.root
        settings = {"new": str(one.folder), "old": one.parent, "scenes": str(scenes)}
        studio.start_job(scene, visitor["id"], [jobs.Step("campaign", settings)])
        gr.Info("Both are fixing. When the line above says it is done, rate: these pairs come first.")

    return start
