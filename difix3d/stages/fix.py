"""Fix: rendered frames and photos in, clean frames out, and a video of both side by side."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.fixers import DEFAULT_FIXER, checkpoint_of, load_fixer
from difix3d.formats.image import write_rgb
from difix3d.formats.video import open_video
from difix3d.scene import Scene, hash_file
from difix3d.stages.base import option, stage
from difix3d.stages.fixing import CANDIDATES, FixSession, candidate_of, fixer_label, write_trust
from difix3d.stages.strengths import VERSION
from difix3d.types import Candidate, Trajectory

AUTO, NONE = "auto", "none"
_PREVIEW_SECONDS = 2.0
_PREVIEW_LONG_SIDE_PX = 1280


def check_fixer(name: str) -> None:
    """Raises what load_fixer does for a name that is no fixer's ("" is the default's). Nothing is loaded or fetched."""
    load_fixer(name or DEFAULT_FIXER)


@dataclass(frozen=True)
class FixConfig:
    """Which frames, by what, and with which photos."""

    trajectory: str = option("extrapolate", "the rendered trajectory to fix")
    fixer: str = option(
        DEFAULT_FIXER,
        "a fixer's name, a checkpoint folder or a Hub id owner/model, or guided:FOLDER",
        check=check_fixer,
    )
    references: str = option(AUTO, "auto: those that show the most together; none; or names, as 00001.jpg,00007.jpg")
    seed: int = option(0, "of the random choices of a fixer that makes any", minimum=0)

    @property
    def names(self) -> list[str] | None:
        """The photos asked for; None for auto."""
        if self.references.strip() in (AUTO, ""):
            return None
        if self.references.strip() == NONE:
            return []
        return [name.strip() for name in self.references.split(",") if name.strip()]


def label_of(config: FixConfig) -> str:
    """The folder under fixed/TRAJECTORY/: the fixer, and what of the photos is not as usual."""
    label = fixer_label(config.fixer or DEFAULT_FIXER)
    if config.names is None:
        return label
    return f"{label}-" + (hashlib.sha256(",".join(config.names).encode()).hexdigest()[:6] if config.names else NONE)


def _key(config: FixConfig) -> str:
    return f"{config.trajectory}-{label_of(config)}"


def fixer_inputs(scene: Scene, fixer: str) -> tuple[str, ...]:
    """What a fixer reads: photos, their cameras, splats for depth, and its own checkpoint where that is a folder."""
    checkpoint = checkpoint_of(fixer)
    own = (str(Path(checkpoint).resolve()),) if checkpoint and Path(checkpoint).is_dir() else ()
    return ("images", "sparse", "splats.ply", "split.json", *own)


def _inputs(scene: Scene, config: FixConfig) -> tuple[str, ...]:
    rendered = (scene.renders_dir(config.trajectory), scene.trajectory_path(config.trajectory))
    return (*(scene.relative(path) for path in rendered), *fixer_inputs(scene, config.fixer))


def _outputs(scene: Scene, config: FixConfig) -> tuple[str, ...]:
    paths = (scene.fixed_dir(config.trajectory, label_of(config)), scene.video_path(_key(config)))
    return tuple(scene.relative(path) for path in paths)


@stage("fix", inputs=_inputs, outputs=_outputs, key=_key, version=VERSION)
def fix(scene: Scene, config: FixConfig) -> Generator[Event, None, dict[str, Any]]:
    """Fix every frame of a rendered trajectory; see FixConfig.

    Figures: frames, fixer, seconds_per_frame (the fixer with its references, nothing else), references (how many
    photos were used at least once).
    """
    yield Progress("fix", f"Loading the fixer {config.fixer or DEFAULT_FIXER}")
    session = FixSession(scene, config.fixer or DEFAULT_FIXER)
    yield from session.fixer.fetch("fix")
    trajectory = session.trajectory(config.trajectory)
    names = None if config.names is None else session.checked(config.names)
    count = _rendered(scene, trajectory)
    if names is None and session.fixer.max_references and not session.allowed():
        yield Warned("fix", f"{scene.id} has no photos with cameras, so frames are fixed without references.")

    name, label = trajectory.name, label_of(config)
    folder, video = scene.fixed_dir(name, label), scene.video_path(_key(config))
    width = max(camera.width for camera in trajectory.cameras)
    height = max(camera.height for camera in trajectory.cameras)
    yield from session.strengths.measure(max(width, height))
    candidates: list[Candidate] = []
    used: set[str] = set()
    fixing_s, shown = 0.0, 0.0
    started = time.monotonic()
    yield Progress("fix", f"Fixing {name}", 0, count, "frames")
    with (
        replacing_folder(folder) as temporary,
        open_video(video, (2 * width, height), trajectory.fps) as write,
    ):
        for index in range(count):
            frame = session.frame(name, index)
            began = time.monotonic()
            fixed = session.fix(frame, names, config.seed)
            fixing_s += time.monotonic() - began
            picture = temporary / f"{index:05d}.png"
            write_rgb(picture, fixed.rgb)
            if fixed.trust is not None:
                write_trust(picture, fixed.trust)
            target, sha256 = folder / picture.name, hash_file(picture)
            by = session.fixer, fixed.references, config.seed
            candidates.append(candidate_of(scene, frame, target, sha256, *by, strength=fixed.strength))
            used.update(fixed.references)
            both = np.hstack([_centred(frame.rgb, width, height), _centred(fixed.rgb, width, height)])
            write(both)
            now = time.monotonic()
            left = (now - started) / (index + 1) * (count - index - 1)
            yield Progress("fix", f"Fixing {name}", index + 1, count, "frames", round(left, 1))
            if index == 0 or now - shown > _PREVIEW_SECONDS:
                shown = now
                yield _preview(scene, name, label, both, index, count)
        write_json(temporary / CANDIDATES, [asdict(candidate) for candidate in candidates])
        # The old manifest goes first: it vouches for the frames that are about to be replaced.
        scene.manifest_path("fix", _key(config)).unlink(missing_ok=True)
    caption = f"{name}: render on the left, {session.fixer.name} on the right"
    yield Artifact("fix", "video", scene.relative(video), caption)
    return {
        "frames": count,
        "fixer": session.fixer.name,
        "seconds_per_frame": round(fixing_s / count, 3),
        "references": len(used),
    }


def _rendered(scene: Scene, trajectory: Trajectory) -> int:
    """How many frames there are; SceneError where some are missing."""
    folder = scene.renders_dir(trajectory.name)
    missing = [index for index in range(len(trajectory)) if not (folder / f"{index:05d}.png").is_file()]
    if missing:
        raise SceneError(
            f"{trajectory.name} has {len(trajectory)} cameras but no render of frame {missing[0]} "
            f"({len(missing)} missing in renders/{trajectory.name}). Render it again."
        )
    return len(trajectory)


def _centred(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`rgb` on black where the trajectory's frames differ in size, as held-out photos of two cameras do."""
    if rgb.shape[:2] == (height, width):
        return rgb
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rgb.shape[0]) // 2, (width - rgb.shape[1]) // 2
    canvas[top : top + rgb.shape[0], left : left + rgb.shape[1]] = rgb
    return canvas


def _preview(scene: Scene, name: str, label: str, both: NDArray[np.uint8], index: int, count: int) -> Artifact:
    """previews/fix-NAME-LABEL.jpg: the newest frame before and after, small enough to send often."""
    from PIL import Image

    picture = Image.fromarray(both)
    picture.thumbnail((_PREVIEW_LONG_SIDE_PX, _PREVIEW_LONG_SIDE_PX))
    path = scene.previews_dir / f"fix-{name}-{label}.jpg"
    write_rgb(path, np.asarray(picture))
    return Artifact("fix", "frame", scene.relative(path), f"{name}, frame {index + 1} of {count}: before and after")
