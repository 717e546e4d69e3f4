"""Start the server: flags and environment in, the page out."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

from difix3d import jobs
from difix3d.errors import ConfigError
from difix3d.presets import steps_for_run
from difix3d.scene import Scene
from difix3d.stages.ingest import files_in_folder
from difix3d.ui import live, widgets
from difix3d.ui.page import build
from difix3d.ui.rating import routes as rating_routes
from difix3d.ui.results import step as results
from difix3d.ui.studio import EXAMPLE, Studio

MAX_UPLOAD = "1gb"
"""For one file; a minute of 4K video of a phone is 400 MB."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

log = logging.getLogger(__name__)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of app.py."""
    on_space = bool(os.environ.get("SPACE_ID"))
    parser = argparse.ArgumentParser(prog="app.py", description="Difix3D Studio in the browser.")
    parser.add_argument("start", nargs="?", default="", help="a capture to begin with, or a scene folder to open")
    parser.add_argument("--scenes", default=os.environ.get("DIFIX3D_SCENES", "scenes"), help="folder of scenes")
    parser.add_argument("--ratings-db", default="", help="SQLAlchemy URL (default: $DIFIX3D_RATINGS_DB)")
    parser.add_argument("--fixer", default="", help="the fixer that is chosen at first")
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_space else "127.0.0.1")
    parser.add_argument("--host", default=host, help=f"address to listen on (default: {host})")
    port = int(os.environ.get("GRADIO_SERVER_PORT") or 7860)
    parser.add_argument("--port", type=int, default=port, help=f"default: {port}")
    parser.add_argument("--share", action="store_true", help="a public address through Gradio's tunnel")
    options = parser.parse_args(argv)
    options.public = on_space or options.share or options.host not in _LOOPBACK
    return options


def make_studio(options: argparse.Namespace) -> Studio:
    """The studio of these flags, with the scene named on the command line begun."""
    scenes = Path(options.scenes)
    start = Path(options.start).resolve() if options.start else None
    if start and (start / "scene.json").is_file():
        scenes = start.parent
    studio = Studio(scenes, options.ratings_db, options.fixer, options.public)
    if start is None:
        return studio
    if (start / "scene.json").is_file():
        studio.first_scene = start.name
    else:
        studio.first_scene = _begin(studio, start)
    return studio


def _begin(studio: Studio, capture: Path) -> str:
    """The scene of a capture on this machine, its job running; one that is there already is opened, and gone on with
    where it was not finished: made once more with other settings it would lose what it has."""
    if not capture.exists():
        raise ConfigError(f"{capture}: no such file or folder. Give a video, a folder of photos, or a scene folder.")
    if capture == EXAMPLE / "images":
        from difix3d.ui.capture import EXAMPLE_SOURCE as source
    else:
        source = str(capture)
    known = [scene for scene in studio.scenes_of("") if scene.info.get("source") == source]
    if known:
        scene = known[0]
        job, unfinished = jobs.find(scene), jobs.resumable(scene)
        if (job is not None and job.state == jobs.RUNNING) or (unfinished is None and scene.splats_path.is_file()):
            return scene.id
        steps = unfinished.steps if unfinished is not None else _steps(studio, scene)
    else:
        files = files_in_folder(capture) if capture.is_dir() else [capture]  # as difix3d run FOLDER takes them
        name = capture.parent.name if capture.name in ("images", "photos", "input") else capture.stem
        scene = studio.new_scene(name, "", files, source)
        steps = _steps(studio, scene)
    jobs.start(scene, steps)
    return scene.id


def _steps(studio: Studio, scene: Scene) -> tuple[jobs.Step, ...]:
    return tuple(steps_for_run(studio.uploads_of(scene), fixer=studio.default_fixer))


def _require_port(host: str, port: int) -> None:
    """ConfigError where it is taken, before anything is begun."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({error.strerror or error}). Perhaps the app runs already: look "
                f"at http://{host}:{port}, or choose another with --port."
            ) from error


def theme() -> gr.themes.Base:
    """Quiet greys and one colour; fonts that ship with Gradio, so that nothing is fetched from elsewhere."""
    # 700 and not 600: Gradio 6.31 ships a semi-bold without some letters, which browsers then take from another font.
    plex = LocalFont("IBM Plex Sans", weights=(400, 700))
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.stone,
        font=(plex, "ui-sans-serif", "system-ui", "sans-serif"),
    ).set(
        button_large_radius="8px",
        block_radius="10px",
        body_text_color_subdued="*neutral_500",  # Gradio's 400 is too pale to read on white
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
    )


def serve(options: argparse.Namespace, *, block: bool = True) -> tuple[Any, str, Studio]:
    """Launch; returns (the Blocks, the local address, the studio). block: stay until the server is stopped."""
    _require_port(options.host, options.port)
    studio = make_studio(options)
    if os.environ.get("DIFIX3D_DATASET_REPO"):
        from difix3d.ratings.push.transfer import begin_pushing

        studio.pushing = begin_pushing(studio.store, studio.scenes_root, studio.exports_root)
    page = build(studio).queue(max_size=64, default_concurrency_limit=8)
    app, url, _ = page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        prevent_thread_lock=True,
        theme=theme(),
        css=widgets.css() + results.css(),
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,  # it would show a rater which picture was which
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,  # Node would stand before Python, as it does on Spaces, and not know the addresses below
        favicon_path=None,
    )
    studio.media.mount(app)
    rating_routes.mount(app, studio)
    live.mount(app, studio)
    app.add_api_route("/healthz", studio.health, methods=["GET"], include_in_schema=False)
    log.info("serving %s", url)
    if block:
        page.block_thread()
    return page, url, studio
