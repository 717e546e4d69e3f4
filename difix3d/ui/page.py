"""The page: six steps as tabs, the open scene above them, and a clock that follows its job."""

from __future__ import annotations

import json
import secrets
from typing import Any

import gradio as gr

from difix3d import jobs
from difix3d.errors import SceneError
from difix3d.scene import Scene
from difix3d.ui import capture, dataset, fix, rate, scene
from difix3d.ui.follow import Followed, Follower, panel
from difix3d.ui.results import step as results
from difix3d.ui.shared import QUIET, Shared, told
from difix3d.ui.studio import Studio
from difix3d.ui.widgets import outbox, status_line

_HEADER = (
    "<h1>Difix3D <span>Studio</span></h1>"
    "<p>Your video becomes a 3D scene; broken views are repaired from your photos; your eye is the judge.</p>"
)
_STORAGE_KEY = "difix3d-studio"
_GONE = "The scene that was open here is gone: it was deleted. Choose another one, or make a new one under Capture."


def build(studio: Studio) -> gr.Blocks:
    """The whole page for one studio."""
    follower = Follower()
    with gr.Blocks(title="Difix3D Studio", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        visitor = gr.BrowserState({"id": "", "scene": ""}, storage_key=_STORAGE_KEY, secret=studio.browser_key)
        scene_id, revision, seen = gr.State(""), gr.State(""), gr.State("")
        filters = gr.State({})
        shared = Shared(studio, visitor, scene_id, revision, filters)

        gr.HTML(_HEADER, elem_id="dx-header", apply_default_css=False)
        with gr.Row(equal_height=True):
            chooser = gr.Dropdown(
                [],
                label="Scene",
                visible=False,
                scale=1,
                min_width=220,
                elem_id="dx-scene",
                filterable=False,
                container=False,
            )
            with gr.Column(scale=3, min_width=300):
                status = status_line()
        with gr.Tabs(overflow_behavior="wrap", elem_id="dx-tabs"):
            with gr.Tab("Capture", render_children=True):
                live = capture.build(shared)
            with gr.Tab("Scene"):
                scene.build(shared)
            with gr.Tab("Fix"):
                fix.build(shared)
            with gr.Tab("Rate"):
                rate.build(shared)
            with gr.Tab("Results") as looked_at:
                results.build(shared, looked_at)
            with gr.Tab("Dataset") as counted_at:
                dataset.build(shared, counted_at)
        outbox()
        clock = gr.Timer(1.0)

        tick = _ticker(studio, follower)
        watched = [*live, status, scene_id, revision, seen]
        page.load(_opener(studio), [visitor], [visitor, scene_id], **QUIET)
        scene_id.change(_lister(studio), [visitor, scene_id], [chooser], **QUIET)
        scene_id.change(tick, [visitor, scene_id, revision, gr.State("")], watched, **QUIET)
        chooser.input(_chooser(studio), [visitor, chooser], [visitor, scene_id], **QUIET)
        clock.tick(tick, [visitor, scene_id, revision, seen], watched, **QUIET)
    return page


def _opener(studio: Studio) -> Any:
    """A new visitor gets an id; one who comes back gets the scene they had open."""

    @told
    def opened(visitor: dict[str, str] | None, request: gr.Request) -> tuple[Any, ...]:
        visitor = dict(visitor or {})
        visitor["id"] = visitor.get("id") or secrets.token_urlsafe(24)
        wanted = [request.query_params.get("scene", ""), visitor.get("scene", ""), studio.first_scene]
        for name in filter(None, wanted):
            try:
                visitor["scene"] = studio.open_scene(name, visitor["id"]).id
                return visitor, visitor["scene"]
            except SceneError:
                continue
        mine = studio.scenes_of(visitor["id"])
        visitor["scene"] = mine[0].id if mine else ""
        return visitor, visitor["scene"]

    return opened


def _lister(studio: Studio) -> Any:
    @told
    def listed(visitor: dict[str, str], scene_id: str) -> Any:
        choices = [(each.info["name"] or each.id, each.id) for each in studio.scenes_of(visitor["id"])]
        names = [name for name, _ in choices]
        choices = [(name if names.count(name) == 1 else f"{name} ({key})", key) for name, key in choices]
        return gr.Dropdown(choices=choices, value=scene_id or None, visible=bool(choices))

    return listed


def _chooser(studio: Studio) -> Any:
    @told
    def chosen(visitor: dict[str, str], name: str | None) -> tuple[Any, ...]:
        if not name:
            return visitor, ""
        found = studio.open_scene(name, visitor["id"])
        return {**visitor, "scene": found.id}, found.id

    return chosen


def _ticker(studio: Studio, follower: Follower) -> Any:
    """What the clock changes. Nothing is sent while nothing changed."""

    def tick(visitor: dict[str, str], scene_id: str, revision: str, seen: str) -> tuple[Any, ...]:
        value: dict[str, Any] | None = None
        status: dict[str, Any] | None = None
        gone, found = False, None
        if scene_id:
            try:
                found = studio.open_scene(scene_id, visitor["id"])
            except SceneError:  # deleted in another tab
                gr.Info(_GONE, title="")
                gone, scene_id = True, ""
        now = f"{scene_id}:"
        if found is not None:
            now += _stamp(found)
            if looked := follower.look(found):
                job, followed = looked
                now += f":{job.id}" if job.state != jobs.RUNNING else ""
                value = panel(job, followed, found, studio.media.url)
                status = _status(job, followed, found)
        looks = json.dumps([value, status, now], sort_keys=True)
        if looks == seen:
            return tuple(gr.skip() for _ in range(9))
        left = "" if gone else gr.skip()
        return (*capture.live(value), status, left, now if now != revision else gr.skip(), looks)

    return tick


def _stamp(found: Scene) -> str:
    """Changes when a stage of the scene completes, or a frame was fixed by hand."""
    written = [*found.root.glob("stages/*.json"), *found.root.glob("fixed/[!.]*/[!.]*/candidates.json")]
    times = [path.stat().st_mtime_ns for path in written]
    return f"{len(times)}-{max(times, default=0)}"


def _status(job: jobs.Job, followed: Followed, found: Scene) -> dict[str, Any] | None:
    rows = followed.rows
    name = found.info["name"]
    if job.state == jobs.RUNNING:
        row = rows[min(followed.current, len(rows) - 1)]
        part = row.done / row.total if row.total else 0.0
        text = f"{name}: {row.label.lower()} (step {min(followed.current + 1, len(rows))} of {len(rows)})"
        if row.seconds_left is not None:
            text += f", about {row.seconds_left:.0f} s left"
        return {"text": text, "share": (followed.current + min(part, 1.0)) / len(rows), "state": job.state}
    if job.state == jobs.DONE:
        return None
    return {"text": f"{name}: {followed.error or job.error}", "share": 1.0, "state": job.state}
