"""The page's own components: each a small template here, and its behaviour in the .js file of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from difix3d.ui.rating import screen

_HERE = Path(__file__).resolve().parent


def css() -> str:
    """The page's style sheet."""
    return (_HERE / "studio.css").read_text() + screen.css()


def progress_panel(**options: Any) -> gr.HTML:
    """Steps, bars, live pictures and the PSNR curve of a job; value as follow.panel gives it."""
    return _widget("progress", "<div class='dx-progress' hidden></div>", **options)


def status_line(**options: Any) -> gr.HTML:
    """What is running, in one line; value {text, share, state} or None."""
    return _widget(
        "status", "<div class='dx-status' role='status' hidden><span></span><div><i></i></div></div>", **options
    )


def wipe(**options: Any) -> gr.HTML:
    """Before and after with a divider; value {before, after} or {video}, and {labels, caption, trust}, or None.

    trust: address of a grey picture, white where the fix replaced the render, "" or none where nobody knows."""
    template = """
    <figure class='dx-wipe' hidden>
      <div class='dx-wipe-stage'>
        <canvas></canvas>
        <span class='dx-left'></span><span class='dx-right'></span>
        <div class='dx-knob' role='slider' tabindex='0' aria-label='Divider between before and after'
             aria-valuemin='0' aria-valuemax='100' aria-valuenow='50'></div>
        <button type='button' class='dx-play'>Play</button>
      </div>
      <video muted loop playsinline preload='auto'></video>
      <figcaption></figcaption>
      <div class='dx-trust' hidden>
        <label><input type='checkbox'> Show where the fix is trusted</label>
        <p hidden><i></i> Orange: the render stays, no photo supports a change here. Clear: the fix is trusted.
          <span></span></p>
      </div>
    </figure>"""
    return _widget("wipe", template, **options)


def splat_viewer(**options: Any) -> gr.HTML:
    """Splats to turn and come close to; value as viewer.viewer_value gives it."""
    template = """
    <div class='dx-viewer' hidden>
      <canvas tabindex='0' aria-label='Splats in 3D: drag or use the arrow keys to turn'></canvas>
      <p class='dx-viewer-note' role='status'></p>
      <div>
        <button type='button' class='dx-home'>Reset</button>
        <button type='button' class='dx-full'>Full screen</button>
      </div>
    </div>"""
    return _widget("viewer", template, **options)


def picker(**options: Any) -> gr.HTML:
    """Photos to choose references from; value {photos, chosen, most, asked, live, visitor}; `chosen` follows the
    person's presses, and where `live` so does the picture in the wipe with the id `dx-fix-wipe`."""
    template = """
    <div class='dx-picker' hidden>
      <div class='dx-photos' role='group' aria-label='Photos to fix with, best first'></div>
      <p class='dx-picker-said' role='status'></p>
    </div>"""
    return _widget("picker", template, **options)


def compare(example_urls: Mapping[str, str], **options: Any) -> gr.HTML:
    """Blind A/B; value {visitor, scene, revision}: the rest it asks the server for (ui/rating/routes.py).

    example_urls: address of the guide's picture of each artifact tag.
    """
    return gr.HTML(
        None,
        html_template=screen.template(example_urls),
        js_on_load=screen.script(),
        apply_default_css=False,
        **options,
    )


def outbox() -> gr.HTML:
    """Nothing to see: sends the votes that wait in the browser, whatever step is open."""
    return gr.HTML(None, html_template="<i></i>", js_on_load=screen.outbox_script(), visible="hidden")


def _widget(name: str, template: str, **options: Any) -> gr.HTML:
    script = (_HERE / f"{name}.js").read_text()
    return gr.HTML(None, html_template=template, js_on_load=script, apply_default_css=False, **options)
