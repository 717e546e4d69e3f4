"""Step 1: photos or a video in, and watch the job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from difix3d import jobs
from difix3d.errors import CaptureError, ConfigError
from difix3d.formats.clip import VIDEO_SUFFIXES
from difix3d.formats.photos import PHOTO_SUFFIXES
from difix3d.presets import DEFAULT_PRESET, DEFAULT_TRAJECTORIES, steps_for_run
from difix3d.scene import Scene
from difix3d.stages.fit import PRESETS, FitConfig
from difix3d.trajectories import NAMES
from difix3d.ui.abandoned import unused_days
from difix3d.ui.shared import QUIET, Shared, told
from difix3d.ui.studio import EXAMPLE
from difix3d.ui.widgets import progress_panel

EXAMPLE_SOURCE = "example: courtyard"
PATHS = {
    "extrapolate": "extrapolate: beyond the photos, where splats break",
    "orbit": "orbit: around what you photographed",
    "spiral": "spiral: a small loop",
    "shift": "shift: beside your own path",
    "interpolate": "interpolate: between your photos",
}
_LONGEST_NAME = 60
UPLOAD_TYPES = sorted({"image", "video", *PHOTO_SUFFIXES, *VIDEO_SUFFIXES})


def build(shared: Shared) -> list[gr.components.Component]:
    """The step's components and events; returns those that the page's timer fills with `live`."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            files = gr.File(
                label="Photos or one video of a place or thing",
                file_count="multiple",
                file_types=UPLOAD_TYPES,
                height=170,
            )
            gr.HTML(
                "<p class='dx-note'>Walk slowly around the subject: 20 to 60 overlapping photos, or a video of 20 to "
                "60 seconds. Turning on the spot does not work. Location and other Exif data are dropped."
                f"{_kept_for(shared)}</p>"
            )
            preset = gr.Radio(_preset_choices(), value=DEFAULT_PRESET, label="How finely")
            with gr.Accordion("More settings", open=False):
                name = gr.Textbox(label="Name of the scene", placeholder="from the file", max_length=_LONGEST_NAME)
                paths = gr.CheckboxGroup(
                    [(PATHS[each], each) for each in NAMES],
                    value=list(DEFAULT_TRAJECTORIES),
                    label="New paths to render",
                )
                holdout = gr.Slider(
                    0, 20, value=FitConfig().holdout, step=1, label="Keep every N-th photo out, to judge by (0: none)"
                )
            with gr.Row():
                start = gr.Button("Start", variant="primary", size="lg", min_width=120, elem_id="dx-start")
                if (EXAMPLE / "images").is_dir():
                    example = gr.Button("Try the example", size="lg", min_width=150, elem_id="dx-example")
        with gr.Column(scale=3, min_width=320):
            idle = gr.HTML(_welcome())
            with gr.Row():
                small: dict[str, Any] = {"size": "sm", "visible": False, "min_width": 130}
                keep = gr.Button("Good enough, keep it", variant="primary", elem_id="dx-keep", **small)
                cancel = gr.Button("Cancel", elem_id="dx-cancel", **small)
                resume = gr.Button("Go on from here", variant="primary", elem_id="dx-resume", **small)
            panel = progress_panel()

    opened = [shared.visitor, shared.scene_id]
    start.click(
        _starter(shared), [shared.visitor, files, preset, name, paths, holdout], [*opened, files, name], **QUIET
    )
    if (EXAMPLE / "images").is_dir():
        example.click(_example_starter(shared), [shared.visitor, preset, paths, holdout], opened, **QUIET)
    keep.click(_on_job(shared, jobs.keep), opened, None, **QUIET)
    cancel.click(_on_job(shared, jobs.cancel), opened, None, **QUIET)
    resume.click(_resumer(shared), opened, None, **QUIET)
    return [panel, idle, keep, cancel, resume]


def _kept_for(shared: Shared) -> str:
    days = unused_days() if shared.studio.public else 0
    return f" A scene that you have not opened for {days:g} days may be deleted when this server is full." * (days > 0)


def live(panel: dict[str, Any] | None) -> tuple[Any, ...]:
    """Values for what `build` returned. panel: of follow.panel, None where nothing ran yet."""
    state = panel["state"] if panel else ""
    return (
        panel,
        gr.HTML(visible=not state),
        gr.Button(visible=bool(panel and panel["fitting"])),
        gr.Button(visible=state == jobs.RUNNING),
        gr.Button(visible=bool(panel and panel["resumable"])),
    )


def _starter(shared: Shared) -> Any:
    @told
    def start(
        visitor: dict[str, str], files: list[str] | None, preset: str, name: str | None, paths: list[str], holdout: int
    ) -> tuple[Any, ...]:
        if not files:
            raise CaptureError("Choose photos or a video first, or try the example.")
        studio = shared.studio
        with studio.begun_scene((name or "").strip() or _name_of(files), visitor["id"], files) as scene:
            steps = _steps(studio.uploads_of(scene), preset, paths, holdout, studio.default_fixer)
            studio.start_job(scene, visitor["id"], steps)
        return {**visitor, "scene": scene.id}, scene.id, None, ""

    return start


def _example_starter(shared: Shared) -> Any:
    @told
    def start(visitor: dict[str, str], preset: str, paths: list[str], holdout: int) -> tuple[Any, ...]:
        studio = shared.studio
        photos = sorted((EXAMPLE / "images").glob("*.jpg"))
        mine = [
            scene
            for scene in studio.scenes_of(visitor["id"])
            if scene.info.get("source") == EXAMPLE_SOURCE and studio.may_change(scene, visitor["id"])
        ]
        begun = studio.begun_scene("courtyard", visitor["id"], photos, EXAMPLE_SOURCE)
        with contextlib.nullcontext(mine[0]) if mine else begun as scene:
            scene.update_info(licence="Apache-2.0")
            job = jobs.find(scene)
            if job is None or job.state != jobs.RUNNING:
                steps = _steps(studio.uploads_of(scene), preset, paths, holdout, studio.default_fixer)
                studio.start_job(scene, visitor["id"], steps)
        return {**visitor, "scene": scene.id}, scene.id

    return start


def _on_job(shared: Shared, act: Callable[[Scene, str], Any]) -> Any:
    """A handler that does `act` to the open scene's newest job, where it is the visitor's to change."""

    @told
    def handle(visitor: dict[str, str], scene_id: str) -> None:
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        job = jobs.find(scene)
        if job is not None and shared.studio.may_change(scene, visitor["id"]):
            act(scene, job.id)

    return handle


def _resumer(shared: Shared) -> Any:
    @told
    def resume(visitor: dict[str, str], scene_id: str) -> None:
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        job = jobs.resumable(scene)
        if job is None:
            raise ConfigError("Nothing in this scene waits to go on. Press Start to make another one.")
        shared.studio.start_job(scene, visitor["id"], job.steps)

    return resume


def _steps(capture: list[str], preset: str, paths: list[str], holdout: int, fixer: str) -> list[jobs.Step]:
    return steps_for_run(
        capture, preset=preset, trajectories=paths or DEFAULT_TRAJECTORIES, fixer=fixer, holdout=int(holdout)
    )


def _name_of(files: list[str]) -> str:
    first = Path(files[0])
    if len(files) == 1 and first.suffix.lower() in VIDEO_SUFFIXES:
        return first.stem.strip()[:_LONGEST_NAME].strip() or "video"
    return f"photos {datetime.now():%d %b %H.%M}"


def _preset_choices() -> list[tuple[str, str]]:
    def label(name: str) -> str:
        preset = PRESETS[name]
        seconds = f"{preset.seconds:.0f} s of fitting" if preset.seconds < 600 else "until it stops improving"
        return f"{name}: {seconds}, {preset.long_side_px} px"

    return [(label(name), name) for name in PRESETS]


def _welcome() -> str:
    return (
        "<div class='dx-empty'><p><strong>From your photos to a scene you can move through.</strong></p>"
        "<p>Cameras are found, splats fitted, a path beyond your photos rendered, and each frame repaired from the "
        "photos that saw the same place: some two minutes on two processor cores. You can close the tab meanwhile.</p>"
        "</div>"
    )
