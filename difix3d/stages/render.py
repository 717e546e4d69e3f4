"""Render: splats and a path in, frames with alpha and depth out, and a video of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_folder
from difix3d.errors import ConfigError, SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.formats.camera_path import read_camera_path, write_camera_path
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.frames import write_frame
from difix3d.formats.image import to_uint8, write_rgb
from difix3d.formats.ply import read_splats
from difix3d.formats.video import open_video
from difix3d.scene import Scene, safe_name
from difix3d.stages.base import option, stage
from difix3d.trajectories import HELDOUT, MAX_FRAMES, NAMES, TURNTABLE, make_trajectory
from difix3d.types import Camera, Frame, Trajectory

PATHS = (*NAMES, TURNTABLE, HELDOUT)
HELDOUT_FPS = 2.0
"""Photos kept out are far apart: as a slide show each can be looked at."""
MAX_LONG_SIDE_PX = 960
"""Of renders, unless asked for more: what fixers work at. 40 ms to draw, 40 to write, 80 to put into the video."""
_PREVIEW_SECONDS = 2.0
_PREVIEW_LONG_SIDE_PX = 640
_HARDLY_ANYTHING = 0.3


def check_trajectory(trajectory: str) -> None:
    """ConfigError for a name that is none. A FILE.json is read: FormatError for what it holds, SceneError where no
    folder can be called as it is."""
    if _is_file(trajectory):
        read_camera_path(trajectory)
        trajectory_name(trajectory)
    elif trajectory not in PATHS:
        raise ConfigError(
            f"There is no trajectory {trajectory!r}. Choose one of {', '.join(PATHS)}, or give a camera_path FILE.json."
        )


@dataclass(frozen=True)
class RenderConfig:
    """Settings of the render; frames, factor and shift are for paths that are made here (orbit to extrapolate)."""

    trajectory: str = option("extrapolate", f"{', '.join(PATHS)}, or a camera_path FILE.json", check=check_trajectory)
    frames: int = option(48, "how many frames", minimum=1, maximum=MAX_FRAMES)
    fps: float = option(12.0, "frames a second of the video", minimum=1, maximum=120)
    long_side_px: int = option(0, "longer side of the frames; 0: the photos', at most 960", minimum=0, maximum=8192)
    factor: float = option(1.5, "extrapolate: how far out, as a multiple of the captured range", minimum=1, maximum=4)
    shift: float = option(0.2, "shift: how far aside, as a share of the viewing distance", minimum=-1, maximum=1)
    renderer: str = option("auto", "gsplat needs CUDA; auto takes it where it works", choices=("auto", "gsplat", "cpu"))
    mp4: bool = option(False, "also write the video as .mp4 (VP9), for programs that take no WebM")


def trajectory_name(trajectory: str) -> str:
    """What the outputs are called: the trajectory itself, or the file's name without .json. SceneError if unsafe."""
    return safe_name(Path(trajectory).stem if _is_file(trajectory) else trajectory)


def _is_file(trajectory: str) -> bool:
    return trajectory.endswith(".json")


def _inputs(scene: Scene, config: RenderConfig) -> tuple[str, ...]:
    if _is_file(config.trajectory):
        return ("splats.ply", str(Path(config.trajectory).resolve()))
    return ("splats.ply", "sparse", *(("split.json",) if config.trajectory == HELDOUT else ()))


def _outputs(scene: Scene, config: RenderConfig) -> tuple[str, ...]:
    name = trajectory_name(config.trajectory)
    paths = (scene.trajectory_path(name), scene.renders_dir(name), *_videos(scene, name, config))
    return tuple(scene.relative(path) for path in paths)


def _videos(scene: Scene, name: str, config: RenderConfig) -> list[Path]:
    webm = scene.video_path(name)
    return [webm, webm.with_suffix(".mp4")] if config.mp4 else [webm]


@stage("render", inputs=_inputs, outputs=_outputs, key=lambda config: trajectory_name(config.trajectory))
def render(scene: Scene, config: RenderConfig) -> Generator[Event, None, dict[str, Any]]:
    """Render the scene's splats along a trajectory; see RenderConfig.

    Splats without a fit will do: a scene with sparse/ and a user's own splats.ply, or, for FILE.json, the PLY alone.
    Figures: frames, ms_per_frame (drawing alone), size, mean_alpha (1: no ray left the splats).
    """
    if not scene.splats_path.is_file():
        raise SceneError(
            f"{scene.id} has no splats.ply to render. Fit first (difix3d fit --scene {scene.root}), "
            "or put your own 3DGS PLY there."
        )
    yield Progress("render", "Loading splats")
    trajectory = _sized(_trajectory(scene, config), config)
    splats = read_splats(scene.splats_path)
    from difix3d.splatting import render_view, why_cpu

    if reason := why_cpu(config.renderer):
        yield Warned("render", f"{reason} Rendering on the CPU, which is slower and looks the same.")
    name, count = trajectory.name, len(trajectory)
    size = max(camera.width for camera in trajectory.cameras), max(camera.height for camera in trajectory.cameras)
    drawing_s, alphas = 0.0, []
    started = shown = time.monotonic()
    yield Progress("render", "Preparing the renderer (its first use compiles for half a minute)", 0, count, "frames")
    with (
        replacing_folder(scene.renders_dir(name)) as folder,
        contextlib.ExitStack() as videos,
        ThreadPoolExecutor(1) as coding,  # the video takes longer than drawing does
    ):
        writers = [
            videos.enter_context(open_video(path, size, trajectory.fps)) for path in _videos(scene, name, config)
        ]

        def write(rgb: NDArray[np.uint8]) -> None:
            for writer in writers:
                writer(rgb)

        coded: Future[None] | None = None
        for index, camera in enumerate(trajectory.cameras):
            began = time.monotonic()
            rgb, alpha, depth = render_view(splats, camera, renderer=config.renderer)
            drawing_s += time.monotonic() - began
            frame = Frame(name, index, camera, to_uint8(rgb), alpha, depth)
            write_frame(folder, frame)
            if coded is not None:
                coded.result()
            coded = coding.submit(write, frame.rgb)
            alphas.append(float(alpha.mean()))
            now = time.monotonic()
            left = (now - started) / (index + 1) * (count - index - 1)
            yield Progress("render", f"Rendering {name}", index + 1, count, "frames", round(left, 1))
            if index == 0 or now - shown > _PREVIEW_SECONDS:
                shown = now
                yield _preview(scene, frame, count)
        if coded is not None:
            coded.result()
        # The old manifest goes first: it vouches for the frames that are about to be replaced.
        scene.manifest_path("render", name).unlink(missing_ok=True)
        write_camera_path(scene.trajectory_path(name), trajectory)

    mean_alpha = float(np.mean(alphas))
    if mean_alpha < _HARDLY_ANYTHING:
        yield Warned(
            "render",
            f"{name}: {1 - mean_alpha:.0%} of what these cameras see is empty. Their path may lie outside the scene.",
        )
    yield Artifact("render", "video", scene.relative(scene.video_path(name)), f"{name}, {count} frames")
    return {
        "frames": count,
        "ms_per_frame": round(1000 * drawing_s / count, 1),
        "size": f"{size[0]}x{size[1]}",
        "mean_alpha": round(mean_alpha, 4),
    }


def _trajectory(scene: Scene, config: RenderConfig) -> Trajectory:
    if _is_file(config.trajectory):
        return read_camera_path(config.trajectory)
    check_trajectory(config.trajectory)
    if not scene.sparse_dir.is_dir():
        raise SceneError(
            f"{scene.id} has no cameras (sparse/0), which {config.trajectory} is made from. "
            "Reconstruct first, put a COLMAP model there, or render a camera_path FILE.json."
        )
    reconstruction = read_reconstruction(scene.sparse_dir)
    if config.trajectory == HELDOUT:
        names = scene.split()["heldout"]
        if not names:
            raise SceneError(f"No photo of {scene.id} was kept out of its fit. Fit again with --holdout 8.")
        known = {view.name: view.camera for view in reconstruction.views}
        if missing := [name for name in names if name not in known]:
            raise SceneError(
                f"split.json of {scene.id} keeps out {missing[0]}, which sparse/0 does not have: the cameras were made "
                "anew since the fit. Fit again."
            )
        return Trajectory(HELDOUT, tuple(known[name] for name in names), HELDOUT_FPS, tuple(names))
    return make_trajectory(
        config.trajectory,
        reconstruction,
        frames=config.frames,
        fps=config.fps,
        factor=config.factor,
        shift=config.shift,
    )


def _sized(trajectory: Trajectory, config: RenderConfig) -> Trajectory:
    """The trajectory at the size to render; a camera_path FILE.json brings its own."""

    def sized(camera: Camera) -> Camera:
        own = max(camera.width, camera.height)
        default = own if _is_file(config.trajectory) else min(own, MAX_LONG_SIDE_PX)
        return camera if (config.long_side_px or default) == own else camera.resized(config.long_side_px or default)

    return Trajectory(trajectory.name, tuple(map(sized, trajectory.cameras)), trajectory.fps, trajectory.view_names)


def _preview(scene: Scene, frame: Frame, count: int) -> Artifact:
    """previews/render-NAME.jpg: the newest frame, small enough to send often."""
    from PIL import Image

    picture = Image.fromarray(frame.rgb)
    picture.thumbnail((_PREVIEW_LONG_SIDE_PX, _PREVIEW_LONG_SIDE_PX))
    path = scene.previews_dir / f"render-{frame.trajectory}.jpg"
    write_rgb(path, np.asarray(picture))
    return Artifact("render", "frame", scene.relative(path), f"{frame.trajectory}, frame {frame.index + 1} of {count}")
