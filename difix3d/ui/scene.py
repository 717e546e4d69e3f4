"""Step 2: the scene: how good it is, the splat to turn, each path before and after, files to take away."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from difix3d import jobs
from difix3d.errors import ConfigError
from difix3d.scene import Scene, folder_name
from difix3d.stages.report import PAGE as REPORT
from difix3d.trajectories import NAMES
from difix3d.ui import fixers
from difix3d.ui.capture import PATHS
from difix3d.ui.live import how_much
from difix3d.ui.shared import QUIET, Shared, empty, facts, told
from difix3d.ui.viewer import compressed_file, how_many, viewer_value
from difix3d.ui.widgets import splat_viewer, wipe

_MOST_TYPED = 80
NO_SCENE = "No scene yet: bring photos or a video under Capture, or try the example."


def build(shared: Shared) -> None:
    """The step's components and events."""
    summary = gr.HTML(empty(NO_SCENE))
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=320):
            heading = gr.HTML(_heading())
            viewer = splat_viewer()
            links = gr.HTML()
        with gr.Column(scale=1, min_width=320):
            gr.HTML("<h3>Before and after</h3><p class='dx-note'>Drag the divider while it plays.</p>")
            path = gr.Dropdown([], label="Path and fixer", filterable=False, elem_id="dx-path")
            before_after = wipe()
            with gr.Accordion("Another path, or another fixer", open=False):
                with gr.Row():
                    trajectory = gr.Dropdown([(PATHS[name], name) for name in NAMES], value=NAMES[0], label="Path")
                    fixer = fixers.chooser(shared)
                about = gr.HTML()
                go = gr.Button("Render and fix it", variant="primary")
    report = gr.HTML()
    with gr.Accordion("Delete this scene", open=False):
        gr.HTML(
            "<p class='dx-note'>Photos, splats, renders, fixes and this scene's dataset go. Votes stay, without their "
            "pictures. Not reached are a dataset of all scenes, downloads, and what was pushed or waits for it.</p>"
        )
        with gr.Row():
            sure = gr.Textbox(label="Write its name to be sure", max_length=_MOST_TYPED)
            delete = gr.Button("Delete", variant="stop")

    opened = [shared.visitor, shared.scene_id]
    shown = [summary, heading, viewer, links, report, path, fixer]
    shared.revision.change(_reader(shared), [*opened, path, fixer], shown, **QUIET)
    for moment in (shared.revision.change, path.change):
        moment(_player(shared), [*opened, path], [before_after], **QUIET)
    for moment in (shared.revision.change, fixer.change):
        moment(_about(shared), [*opened, fixer], [about], **QUIET)
    go.click(_renderer(shared), [*opened, trajectory, fixer], None, **QUIET)
    delete.click(_deleter(shared), [*opened, sure], [*opened, sure], **QUIET)


def _reader(shared: Shared) -> Any:
    @told
    def read(visitor: dict[str, str], scene_id: str, path: str | None, fixer: str | None) -> tuple[Any, ...]:
        fixer_box = fixers.refreshed(shared, fixer)
        if not scene_id:
            nothing = gr.Dropdown(choices=[], value=None)
            return empty(NO_SCENE), _heading(), None, "", "", nothing, fixer_box
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        pairs = [
            (f"{trajectory}, fixed by {label}", f"{trajectory}/{label}") for trajectory, label in fixed_paths(scene)
        ]
        values = [value for _, value in pairs]
        chosen = path if path in values else (values[0] if values else None)
        return (
            _summary(scene),
            _heading(how_many(scene)),
            viewer_value(scene, shared.studio.media),
            _links(shared, scene),
            _report(shared, scene),
            gr.Dropdown(choices=pairs, value=chosen),
            fixer_box,
        )

    return read


def _player(shared: Shared) -> Any:
    @told
    def play(visitor: dict[str, str], scene_id: str, path: str | None) -> dict[str, Any] | None:
        if not scene_id or not path or "/" not in path:
            return None
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        trajectory, label = path.split("/", 1)
        if (trajectory, label) not in fixed_paths(scene):
            return None
        video = scene.video_path(f"{trajectory}-{label}")
        if not video.is_file():
            return None
        return {"video": shared.studio.media.url(video), "labels": ["render", label], "caption": f"{trajectory} path"}

    return play


def _about(shared: Shared) -> Any:
    @told
    def about(visitor: dict[str, str], scene_id: str, fixer: str | None) -> str:
        scene = shared.studio.open_scene(scene_id, visitor["id"]) if scene_id else None
        return fixers.note(shared, scene, fixer)[0]

    return about


def _renderer(shared: Shared) -> Any:
    @told
    def go(visitor: dict[str, str], scene_id: str, trajectory: str, fixer: str) -> None:
        if not scene_id:
            raise ConfigError(NO_SCENE)
        if trajectory not in NAMES:
            raise ConfigError("Choose a path from the list.")
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        if not scene.splats_path.is_file():
            raise ConfigError("This scene has no splats to render yet. Let its job under Capture come that far first.")
        steps = [
            jobs.Step("render", {"trajectory": trajectory}),
            jobs.Step("fix", {"trajectory": trajectory, "fixer": shared.studio.fixer(fixer).name}),
        ]
        shared.studio.start_job(scene, visitor["id"], steps)
        gr.Info("Started. The line above shows how far it is.")

    return go


def _deleter(shared: Shared) -> Any:
    @told
    def delete(visitor: dict[str, str], scene_id: str, sure: str | None) -> tuple[Any, ...]:
        scene = shared.studio.open_scene(scene_id, visitor["id"])
        name = str(scene.info["name"]).strip()[:_MOST_TYPED].strip()  # the command line takes any
        if (sure or "").strip() != name:
            raise ConfigError(f"Write {name!r} to delete it.")
        shared.studio.delete_scene(scene, visitor["id"])
        mine = shared.studio.scenes_of(visitor["id"])
        following = mine[0].id if mine else ""
        return {**visitor, "scene": following}, following, ""

    return delete


def fixed_paths(scene: Scene) -> list[tuple[str, str]]:
    """(trajectory, fixer label) of every trajectory that was fixed as a whole, newest first."""
    listings = sorted(scene.root.glob("fixed/[!.]*/[!.]*/candidates.json"), key=lambda path: -path.stat().st_mtime)
    found = [(path.parent.parent.name, path.parent.name) for path in listings]
    return [pair for pair in found if scene.video_path("-".join(pair)).is_file()]


def _heading(more: str = "") -> str:
    """Over the viewer. more: a sentence for its end."""
    return f"<h3>The splats</h3><p class='dx-note'>Drag to turn, scroll or pinch to come closer. {more}</p>"


def _summary(scene: Scene) -> str:
    rows: list[tuple[str, str, str]] = []
    if found := scene.manifest("reconstruct"):
        figures = found["figures"]
        rows.append(("photos with a camera", f"{figures['registered']} of {figures['photos']}", ""))
        rows.append(("reprojection error", f"{figures['reprojection_px']:.2f}", "px"))
    if fitted := scene.manifest("fit"):
        figures = fitted["figures"]
        rows.append(("splats", f"{figures['splats']:,}", f"in {figures['seconds']:.0f} s"))
    judged = scene.manifest("evaluate")
    if judged:
        raw, fixed = judged["figures"]["raw"], judged["figures"]["fixed"]
        views = judged["figures"]["views"]
        rows.append(("kept-out photos, render", f"{raw['psnr']:.1f} dB", f"SSIM {raw['ssim']:.3f}, {views} photos"))
        figures = judged["figures"]
        at = f"{shown}, {figures['long_side_px']} px" if (shown := how_much(figures.get("strength", 1.0))) else ""
        rows.append(("kept-out photos, fixed", f"{fixed['psnr']:.1f} dB", f"SSIM {fixed['ssim']:.3f}{at}"))
        if raw.get("lpips") is not None:
            change = 100 * (fixed["lpips"] / raw["lpips"] - 1)
            rows.append(("LPIPS, lower is better", f"{raw['lpips']:.3f} to {fixed['lpips']:.3f}", f"{change:+.0f} %"))
    elif fitted and fitted["figures"].get("psnr") is not None:
        rows.append(("kept-out photos", f"{fitted['figures']['psnr']:.1f} dB", f"SSIM {fitted['figures']['ssim']:.3f}"))
    if not rows:
        return empty("Nothing is finished in this scene yet. Capture shows how far it is.")
    left_out = (found or {}).get("figures", {}).get("left_out", [])
    note = ""
    if left_out:
        names = ", ".join(map(str, left_out[:12])) + (f" and {len(left_out) - 12} more" if len(left_out) > 12 else "")
        note = f"<p class='dx-note'>Left out, because their place was not found: {escape(names)}.</p>"
    return facts(rows) + note


def _links(shared: Shared, scene: Scene) -> str:
    if not scene.splats_path.is_file():
        return ""
    name = folder_name(scene.info["name"])
    files: list[tuple[Path, str, str]] = [
        (scene.splats_path, f"{name}.ply", "splats (.ply, opens in any splat viewer)"),
        (compressed_file(scene), f"{name}.spz", "splats (.spz, a tenth of the size)"),
    ]
    if scene.manifest("report"):
        files.append((scene.root / REPORT, f"{name}-report.html", "report: every photo beside its render, worst first"))
    for trajectory, label in fixed_paths(scene)[:3]:
        video = scene.video_path(f"{trajectory}-{label}")
        files.append((video, f"{name}-{video.name}", f"{trajectory}, before and after (video)"))
    url = shared.studio.media.url
    anchors = "".join(
        f"<a href='{url(path, save)}' download='{escape(save)}'>{escape(text)}</a>" for path, save, text in files
    )
    return f"<div class='dx-links'>{anchors}</div>"


def _report(shared: Shared, scene: Scene) -> str:
    sheet = scene.previews_dir / "evaluate.jpg"
    address = shared.studio.media.url_if_there(sheet)
    if not address or not scene.manifest("evaluate"):
        return ""
    return (
        "<h3>Photos that the splats never saw</h3>"
        f"<img class='dx-sheet' src='{address}' alt='Kept-out photos beside render and fix, worst first'>"
    )
