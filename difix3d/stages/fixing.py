"""What fixing one frame needs of a scene: the frame, its references, and a place for the result.

Used by the stages `fix` and `evaluate`, and by the app for one frame at a time with the model kept loaded.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import ConfigError, SceneError
from difix3d.fixers import checkpoint_of, load_fixer, pace
from difix3d.fixers.base import Fixer, Trusting
from difix3d.fixers.sound import no_depth
from difix3d.fixers.strength import shown
from difix3d.formats.camera_path import read_camera_path
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.frames import read_frame
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.formats.ply import read_splats
from difix3d.kept import Kept
from difix3d.references import RankedReference, choose_references, rank_references
from difix3d.scene import Scene, folder_name, hash_file
from difix3d.stages.strengths import VERSION, Strengths
from difix3d.types import Camera, Candidate, Frame, Reconstruction, Reference, Splats, Trajectory, View

CANDIDATES = "candidates.json"
_KEPT_REFERENCES = 32
"""Photos with depth kept in memory: at 960x640, 4 MB each."""
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class FixedFrame:
    """rgb: [H, W, 3] uint8; trust: [H, W] in [0, 1], None where the fixer does not say; references: names of the
    photos used, best first; strength: how much of the fix rgb shows (strengths.Strengths)."""

    rgb: NDArray[np.uint8]
    trust: NDArray[np.float32] | None
    references: tuple[str, ...]
    strength: float


class FixSession:
    """A scene and a loaded fixer. Splats, cameras and references are loaded at first need and kept.

    fixer: a Fixer, or what load_fixer takes. Calls from several threads wait for each other.
    """

    def __init__(self, scene: Scene, fixer: Fixer | str, *, renderer: str = "auto"):
        self.scene = scene
        self.fixer = load_fixer(fixer) if isinstance(fixer, str) else fixer
        self._renderer = renderer
        self._lock = threading.RLock()
        self._splats: Splats | None = None
        self._reconstruction: Reconstruction | None = None
        self._references: Kept[Reference] = Kept(_KEPT_REFERENCES)
        self.strengths = Strengths(self)

    # What there is

    def trajectory(self, name: str) -> Trajectory:
        """The cameras that renders/NAME was rendered at. SceneError where there are none."""
        path = self.scene.trajectory_path(name)
        if not path.is_file():
            rendered = sorted(path.stem for path in path.parent.glob("*.json")) if path.parent.is_dir() else []
            there = f"There are: {', '.join(rendered)}." if rendered else "None is rendered yet."
            raise SceneError(
                f"{self.scene.id} has no trajectory {name!r}. {there} "
                f"Render it (difix3d render --scene {self.scene.root} --trajectory {name}), or put your own renders "
                f"into renders/{name}/00000.png and their cameras into trajectories/{name}.json."
            )
        return read_camera_path(path)

    def frame(self, trajectory: str, index: int) -> Frame:
        """One rendered frame. Its depth is the surface's where the scene has splats and the fixer wants depth, else
        what lies beside the picture. SceneError for a frame that is not there."""
        cameras = self.trajectory(trajectory).cameras
        folder = self.scene.renders_dir(trajectory)
        if not 0 <= index < len(cameras) or not (folder / f"{index:05d}.png").is_file():
            raise SceneError(
                f"{self.scene.id} has no render of frame {index} of {trajectory} ({len(cameras)} cameras). "
                "Render the trajectory again."
            )
        frame = read_frame(folder, trajectory, index, cameras[index])
        depth = self._surface_depth(frame.camera)
        return frame if depth is None else replace(frame, depth=depth)

    def render(self, trajectory: str, index: int, camera: Camera) -> Frame:
        """The splats at `camera` as a frame that is on no disk. SceneError without splats."""
        from difix3d.formats.image import to_uint8
        from difix3d.splatting import render_view

        splats = self.splats()
        if splats is None:
            raise SceneError(f"{self.scene.id} has no splats.ply to render. Fit first.")
        rgb, alpha, depth = render_view(splats, camera, renderer=self._renderer)
        surface = self._surface_depth(camera)
        return Frame(trajectory, index, camera, to_uint8(rgb), alpha, depth if surface is None else surface)

    def splats(self) -> Splats | None:
        """None where the scene has none: a user's own renders."""
        with self._lock:
            if self._splats is None and self.scene.splats_path.is_file():
                self._splats = read_splats(self.scene.splats_path)
            return self._splats

    def reconstruction(self) -> Reconstruction | None:
        """The photos' cameras; None where the scene has none."""
        with self._lock:
            if self._reconstruction is None and self.scene.sparse_dir.is_dir():
                self._reconstruction = read_reconstruction(self.scene.sparse_dir, self.scene.images_dir)
            return self._reconstruction

    def allowed(self) -> list[str]:
        """The photos that may be references: those the fit saw; all where there was no fit."""
        reconstruction = self.reconstruction()
        if reconstruction is None:
            return []
        registered = [view.name for view in reconstruction.views]
        split = self.scene.split()
        if not split["train"] and not split["heldout"]:
            return registered
        known = set(registered)
        return [name for name in split["train"] if name in known]

    def ranked(self, frame: Frame) -> list[RankedReference]:
        """The photos that may be references of `frame`, the most helpful first."""
        reconstruction, names = self.reconstruction(), self.allowed()
        if reconstruction is None or not names:
            return []
        return rank_references(frame.camera, reconstruction, names, depth=_known_depth(frame))

    def chosen(self, frame: Frame) -> list[RankedReference]:
        """The photos that the fixer is given where nobody names any: those that together show the most of `frame`."""
        reconstruction, names, most = self.reconstruction(), self.allowed(), self.fixer.max_references
        if reconstruction is None or not names or not most:
            return []
        return choose_references(frame.camera, reconstruction, names, most=most, depth=_known_depth(frame))

    # Fixing

    def fix(self, frame: Frame, references: Sequence[str] | None = None, seed: int = 0) -> FixedFrame:
        """references: names, best first; None: `chosen`.

        ConfigError for a photo that is not there or was kept out of the fit; FixerError for a render without the depth
        that the fixer needs.
        """
        with self._lock:
            fixed, trust, names = self.fix_fully(frame, references, seed)
            strength = self.strengths.of(frame.camera) if names else 1.0  # without photos nothing is mixed in
            return FixedFrame(shown(frame.rgb, fixed, strength), trust, names, strength)

    def fix_fully(
        self, frame: Frame, references: Sequence[str] | None = None, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None, tuple[str, ...]]:
        """(rgb, trust, references) as `fix`, at full strength."""
        with self._lock:
            if references is None:
                names = [one.name for one in self.chosen(frame)]
            else:
                names = self.checked(references)[: self.fixer.max_references]
            if names:
                self._require_depth(frame)
            photos = [self.reference(name, frame.camera) for name in names]
            self.fixer.load()
            began = time.monotonic()
            trust = None
            if isinstance(self.fixer, Trusting):
                fixed, trust = self.fixer.fix_with_trust(frame, photos)
            else:
                fixed = self.fixer.fix(frame, photos, seed=seed)
            if photos or not self.fixer.max_references:  # without its photos it has less to do than usual
                width, height = frame.camera.width, frame.camera.height
                pace.record(self.fixer.name, self.fixer.device(), width, height, time.monotonic() - began)
            return fixed, trust, tuple(names)

    def _require_depth(self, frame: Frame) -> None:
        """FixerError where somebody's own render has no depth and the fixer carries photos by it. Splats that show
        nothing from there are no error: then nothing can be fixed."""
        if self.fixer.needs_depth and not (frame.depth > 0).any() and self.splats() is None:
            raise no_depth(frame, self.fixer.name)

    def checked(self, references: Sequence[str]) -> list[str]:
        """`references` without repeats; ConfigError for one that may not be used."""
        allowed = self.allowed()
        for name in references:
            if name in allowed:
                continue
            if name in self.scene.split()["heldout"]:
                raise ConfigError(
                    f"Photo {name} was kept out of the fit to judge by, so it cannot be a reference. "
                    f"Choose from: {_some(allowed)}."
                )
            raise ConfigError(f"There is no photo {name!r} to take as a reference. Choose from: {_some(allowed)}.")
        return list(dict.fromkeys(references))

    def reference(self, name: str, target: Camera) -> Reference:
        """The photo at about the target's size (never enlarged), with depth where the fixer wants it and splats are."""
        reconstruction = self.reconstruction()
        assert reconstruction is not None, "names come from `allowed`"
        view = reconstruction.view(name)
        camera = _at_size(view.camera, max(target.width, target.height))
        key = (name, camera.width, camera.height)

        def read() -> Reference:
            rgb = read_rgb(_image_path(view), (camera.width, camera.height))
            return Reference(name, camera, rgb, self._surface_depth(camera))

        with self._lock:  # nobody renders a photo's depth that another thread is rendering
            return self._references.get(key, read)

    def _surface_depth(self, camera: Camera) -> NDArray[np.float32] | None:
        if not self.fixer.needs_depth or (splats := self.splats()) is None:
            return None
        from difix3d.splatting.surface import surface_depth

        return surface_depth(splats, camera, renderer=self._renderer)


def _known_depth(frame: Frame) -> NDArray[np.float32] | None:
    return frame.depth if (frame.depth > 0).any() else None


def fixer_label(fixer: str) -> str:
    """A folder-safe name for what load_fixer takes: "reproject", "nvidia-difix_ref", a checkpoint folder's name;
    "guided-" before it where it is."""
    checkpoint = checkpoint_of(fixer)
    name = Path(checkpoint).resolve().name if Path(checkpoint).is_dir() else checkpoint
    return folder_name("guided-" * (checkpoint != fixer) + name)[:_LONGEST_LABEL]


def candidate_of(
    scene: Scene,
    frame: Frame,
    path: Path,
    sha256: str,
    fixer: Fixer,
    references: Sequence[str],
    seed: int = 0,
    *,
    strength: float,
) -> Candidate:
    """The record of a fix that is (or will be) at `path` in the scene. Its extra names the render it was made from, and
    how much of the fix is shown (strengths.Strengths) where that is not all."""
    settings = dict(fixer.settings)
    extra = {
        **settings,
        **({"shown": strength} if strength < 1 else {}),
        "licence": fixer.licence,
        "render_sha256": hash_file(scene.renders_dir(frame.trajectory) / f"{frame.index:05d}.png"),
    }
    file = path.relative_to(scene.root).as_posix()
    return Candidate(
        scene.id,
        frame.trajectory,
        frame.index,
        fixer.name,
        file,
        sha256,
        tuple(references),
        settings.get("timestep"),
        seed,
        extra,
    )


def store_candidate(
    scene: Scene,
    frame: Frame,
    rgb: NDArray[np.uint8],
    fixer: Fixer,
    references: Sequence[str],
    *,
    strength: float,
    seed: int = 0,
    trust: NDArray[np.float32] | None = None,
) -> Candidate:
    """Keep an interactive fix of a rendered frame as a further candidate, in a folder of its own, its trust beside it.

    The folder's name is made of everything that decides the pixels (frame, render, fixer, its settings and the version
    of what it makes, references, seed, strength), so asking for the same again returns the same candidate; two people
    asking at once harm nothing. SceneError where the frame was rendered anew since it was read.
    """
    render = scene.renders_dir(frame.trajectory) / f"{frame.index:05d}.png"
    render_sha256 = hash_file(render)
    if not np.array_equal(read_rgb(render), frame.rgb):
        raise SceneError(
            f"Frame {frame.index} of {frame.trajectory} was rendered again while it was being fixed. Fix it once more."
        )
    asked = [frame.index, render_sha256, fixer.name, fixer.settings, VERSION, list(references), seed]
    if strength < 1:
        asked.append(strength)
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:10]
    folder = scene.fixed_dir(frame.trajectory, f"{folder_name(Path(fixer.name).name)[:_LONGEST_LABEL]}-{digest}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Who comes second waits, and finds the first one's: renaming two folders to one name at once is an error.
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if (folder / CANDIDATES).is_file():
            (entry,) = json.loads((folder / CANDIDATES).read_text())
            return Candidate(**{**entry, "references": tuple(entry["references"])})
        name = f"{frame.index:05d}.png"
        with replacing_folder(folder) as temporary:
            write_rgb(temporary / name, rgb)
            if trust is not None:
                write_trust(temporary / name, trust)
            sha256 = hash_file(temporary / name)
            candidate = candidate_of(scene, frame, folder / name, sha256, fixer, references, seed, strength=strength)
            write_json(temporary / CANDIDATES, [asdict(candidate)])
        return candidate


def trust_path(picture: Path) -> Path:
    """Where the trust of a fix lies, if its fixer told: beside the picture, 8-bit grey."""
    return picture.with_name(f"{picture.stem}_trust.png")


def write_trust(picture: Path, trust: NDArray[np.float32]) -> None:
    """Beside `picture`: [H, W] in [0, 1] as 0 (the render stayed) to 255."""
    Image.fromarray((np.clip(trust, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)).save(trust_path(picture))


def _at_size(camera: Camera, long_side_px: int) -> Camera:
    own = max(camera.width, camera.height)
    return camera if own <= long_side_px else camera.resized(long_side_px)


def _image_path(view: View) -> Path:
    assert view.image_path is not None, "read_reconstruction was given images_dir"
    return view.image_path


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
