"""The page's own components: each a small template here, and its behaviour in the .js file of the same name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

_HERE = Path(__file__).resolve().parent


def css() -> str:
    """The page's style sheet."""
    return (_HERE / "studio.css").read_text()


def progress_panel(**options: Any) -> gr.HTML:
    """Steps, bars, live pictures and the PSNR curve of a job; value as follow.panel gives it."""
    return _widget("progress", "<div class='dx-progress' hidden></div>", **options)


def status_line(**options: Any) -> gr.HTML:
    """What is running, in one line; value {text, share, state} or None."""
    return _widget(
        "status", "<div class='dx-status' role='status' hidden><span></span><div><i></i></div></div>", **options
    )


def wipe(**options: Any) -> gr.HTML:
    """Before and after with a divider; value {before, after} or {video}, and {labels, caption}, or None."""
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
    """Photos to choose references from; value {photos, chosen, most}; `chosen` follows the person's presses."""
    return _widget("picker", "<div class='dx-picker' hidden></div>", **options)


def compare(**options: Any) -> gr.HTML:
    """Blind A/B; value as ui/rate.py gives it; events `vote` and `undo`."""
    pane = """
        <div class='dx-pane'><img alt='Picture {0}' draggable='false'><div class='dx-under'></div><em>{0}</em></div>"""
    buttons = "".join(
        f"<button type='button' data-choice='{choice}'>{label} <kbd>{key}</kbd></button>"
        for choice, label, key in (
            ("left", "A is better", "1"),
            ("right", "B is better", "2"),
            ("tie", "Equally good", "3"),
            ("both_bad", "Both bad", "4"),
            ("skip", "Skip", "S"),
        )
    )
    template = f"""
    <div class='dx-compare'>
      <div class='dx-asking' hidden>
        <div class='dx-panes'>{pane.format("A")}{pane.format("B")}</div>
        <div class='dx-under-panes'>
          <figure class='dx-reference'><img alt='A photo taken nearby'>
            <figcaption>photo taken nearby</figcaption></figure>
          <div class='dx-question'>
            <p><strong>Which picture would you rather see as a photo of this place?</strong>
               <span class='dx-place'></span> <span class='dx-zoom'></span></p>
            <div class='dx-votes'>{buttons}
              <button type='button' data-flip='1'>Hold to swap <kbd>F</kbd></button>
            </div>
          </div>
        </div>
      </div>
      <div class='dx-nothing'><p></p></div>
      <div class='dx-tally'>
        <button type='button' data-undo='1' disabled>Undo <kbd>Z</kbd></button>
        <span class='dx-count'></span><div class='dx-count-bar' hidden><i></i></div>
      </div>
    </div>"""
    return _widget("compare", template, **options)


def _widget(name: str, template: str, **options: Any) -> gr.HTML:
    script = (_HERE / f"{name}.js").read_text()
    return gr.HTML(None, html_template=template, js_on_load=script, apply_default_css=False, **options)
