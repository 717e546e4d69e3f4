"""Fit: photos and cameras in, splats out, with some photos kept out to score them by."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from difix3d.atomic import write_json
from difix3d.errors import ConfigError, MissingBackendError, SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, to_uint8, write_rgb
from difix3d.formats.ply import write_splats
from difix3d.scene import Scene
from difix3d.stages.base import option, stage
from difix3d.types import Reconstruction, View

if TYPE_CHECKING:
    from difix3d.splatting.trainer import Photo, Trainer, TrainSettings, Update

MIN_TRAINING_PHOTOS = 3
_FARTHEST = 1e4
"""Cameras from the origin, in typical depths: float32 is then a thousandth of a depth off, half a pixel."""
_NEAREST = 10.0
"""Typical depth in near planes, at least."""
_PREVIEW_SECONDS = 2.0
_PREVIEW_LONG_SIDE_PX = 480


class Preset(NamedTuple):
    """seconds of wall clock, not counting loading and compiling; splats at most; longer photo side in pixels."""

    seconds: float
    max_splats: int
    long_side_px: int


PRESETS = {
    "quick": Preset(30, 50_000, 480),
    "balanced": Preset(120, 120_000, 640),
    "best": Preset(900, 250_000, 960),
}


@dataclass(frozen=True)
class FitConfig:
    """Settings of the fit; 0 takes what the preset says."""

    preset: str = option("quick", "how long and how fine", choices=tuple(PRESETS))
    seconds: float = option(0.0, "time budget in seconds; 0: the preset's", minimum=0)
    steps: int = option(0, "budget in steps, not seconds: on the CPU the same splats every time; 0: none", minimum=0)
    max_splats: int = option(0, "at most so many splats; 0: the preset's", minimum=0, maximum=5_000_000)
    renderer: str = option("auto", "gsplat needs CUDA; auto takes it where it works", choices=("auto", "gsplat", "cpu"))
    holdout: int = option(8, "every N-th photo is kept out and only scored; 0: none", minimum=0)
    train_every: int = option(1, "fit only every K-th of the others; the rest is kept out too", minimum=1)
    sh_degree: int = option(3, "view dependence of colours, at most", minimum=0, maximum=3)
    long_side_px: int = option(0, "fit photos at this size; 0: the preset's", minimum=0, maximum=8192)
    seed: int = option(0, "of the random choices", minimum=0)


def split_names(names: Sequence[str], holdout: int, train_every: int) -> tuple[list[str], list[str]]:
    """(train, heldout), each sorted, together all of `names`.

    Of the sorted names every `holdout`-th is kept out, from the first on (0: none); of the others every
    `train_every`-th is trained on, from the first on, and the rest joins the held-out ones.
    """
    ordered = sorted(names)
    kept_out = set(ordered[::holdout]) if holdout else set()
    train = [name for name in ordered if name not in kept_out][::train_every]
    return train, [name for name in ordered if name not in set(train)]


@stage("fit", inputs=("images", "sparse"), outputs=("splats.ply", "split.json"))
def fit(scene: Scene, config: FitConfig) -> Generator[Event, None, dict[str, Any]]:
    """Fit splats to a reconstructed scene; see FitConfig.

    Figures: splats, steps, seconds (of fitting), psnr and ssim over all held-out photos (None without any), curve:
    [seconds, psnr] pairs over a few of them as the fit went, kept_from: the second whose splats were better on them
    than the last ones and were kept (None: the last ones), and kept_early: whether somebody found it good enough and
    ended it (Scene.enough_path).
    """
    scene.enough_path.unlink(missing_ok=True)  # of an earlier fit
    if not scene.sparse_dir.is_dir():
        raise SceneError(
            f"{scene.root} holds no cameras yet. Run: difix3d reconstruct --scene {scene.root}, or put a COLMAP model "
            "into sparse/0 and its undistorted photos into images, then try again."
        )
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    _check_world(reconstruction)
    train, heldout = _split(reconstruction, config)
    yield Progress("fit", f"Loading {len(train)} photos to fit and {len(heldout)} to score", 0, 0)
    preset = PRESETS[config.preset]
    long_side_px = config.long_side_px or preset.long_side_px
    # Beside the renderer's preparations, so that there is something to see within a few seconds.
    pool = ThreadPoolExecutor(1)
    try:
        loading = pool.submit(lambda: {view.name: photo_of(view, long_side_px) for view in (*train, *heldout)})
        renderer = yield from _ready_renderer(config)
        photos = loading.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    from difix3d.splatting.trainer import Trainer, TrainSettings

    settings = TrainSettings(
        seconds=config.seconds or (0.0 if config.steps else preset.seconds),
        max_steps=config.steps,
        max_splats=config.max_splats or preset.max_splats,
        sh_degree=config.sh_degree,
        renderer=renderer,
        stop_early=config.preset != "quick",
        seed=config.seed,
    )
    yield Progress("fit", "Placing the first splats", 0, 0)
    heldout_photos = [photos[view.name] for view in heldout]
    trainer = Trainer(
        settings,
        [photos[view.name] for view in train],
        heldout_photos,
        reconstruction.points,
        reconstruction.colors,
    )
    shown = heldout_photos[len(heldout) // 2] if heldout else photos[train[0].name]
    figures = yield from _train(scene, trainer, settings, shown)
    figures |= yield from _scores(trainer, heldout_photos)
    _save(scene, trainer, train, heldout)
    yield from _preview(scene, trainer, shown)
    yield Artifact("fit", "splats", "splats.ply", f"{figures['splats']:,} splats")
    return figures


def _split(reconstruction: Reconstruction, config: FitConfig) -> tuple[list[View], list[View]]:
    names = [view.name for view in reconstruction.views]
    train, heldout = split_names(names, config.holdout, config.train_every)
    if len(train) < MIN_TRAINING_PHOTOS:
        raise ConfigError(
            f"{len(names)} photos with holdout {config.holdout} and train_every {config.train_every} leave "
            f"{len(train)} to fit to; at least {MIN_TRAINING_PHOTOS} are needed. Keep fewer out, or add photos."
        )
    views = {view.name: view for view in reconstruction.views}
    return [views[name] for name in train], [views[name] for name in heldout]


def _check_world(reconstruction: Reconstruction) -> None:
    """ConfigError where single precision, or the plane before which nothing is drawn, would spoil the fit: a model of
    somebody else's may be in metres from the middle of the earth, or in kilometres."""
    from difix3d.splatting.base import NEAR_PLANE
    from difix3d.splatting.initialise import scene_depth

    cameras = [view.camera for view in reconstruction.views]
    depth = scene_depth(reconstruction.points, cameras)
    reach = max(float(np.linalg.norm(camera.position)) for camera in cameras)
    if reach > _FARTHEST * depth:
        found = f"up to {reach:,.0f} from its origin and see things {depth:.3g} away: single precision rounds that off"
    elif depth < _NEAREST * NEAR_PLANE:
        found = f"{depth:.2g} from what they see; nothing nearer than {NEAR_PLANE:g} is drawn"
    else:
        return
    raise ConfigError(
        f"The cameras in sparse/0 are in a world that no fit can be made in: they are {found}. Take them over with: "
        "difix3d run PHOTOS --known-poses FOLDER_OF_THIS_MODEL --scene NEW_FOLDER, which moves and scales the world."
    )


def photo_of(view: View, long_side_px: int) -> Photo:
    """A view's picture at the size it is fitted at; never enlarged."""
    from difix3d.splatting.trainer import Photo

    assert view.image_path is not None, "read_reconstruction was given images_dir"
    camera = view.camera.resized(min(long_side_px, max(view.camera.width, view.camera.height)))
    rgb = read_rgb(view.image_path, (camera.width, camera.height))
    return Photo(view.name, camera, np.array(rgb))  # writable, so that the trainer need not copy it


def _ready_renderer(config: FitConfig) -> Generator[Event, None, str]:
    """ "gsplat" or "cpu"; the latter with its kernels compiled, so that no budget is spent on that."""
    from difix3d.splatting.gsplat_cuda import cuda_is_visible, require_gsplat

    if config.renderer == "gsplat" or (config.renderer == "auto" and cuda_is_visible()):
        yield Progress("fit", "Preparing gsplat (the first time it compiles for some minutes)", 0, 0)
        try:
            require_gsplat()
            return "gsplat"
        except MissingBackendError as error:
            yield Warned("fit", f"{error.message} Fitting on the CPU instead, which takes longer for the same quality.")
    from difix3d.splatting import warm_up

    # In a thread, so that cancelling does not wait for a compiler.
    pool = ThreadPoolExecutor(1)
    try:
        compiling = pool.submit(warm_up)
        while not compiling.done():
            yield Progress("fit", "Compiling the splat kernels (once per machine)", 0, 0)
            wait_for([compiling], timeout=0.4)
        compiling.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return "cpu"


def _train(
    scene: Scene, trainer: Trainer, settings: TrainSettings, shown: Photo
) -> Generator[Event, None, dict[str, Any]]:
    curve: list[list[float]] = []
    started = time.monotonic()
    yield from _preview(scene, trainer, shown)
    next_preview = _PREVIEW_SECONDS
    kept_early = False
    with contextlib.closing(trainer.run()) as updates:
        for update in updates:
            yield _progress(update, settings, curve)
            if update.seconds >= next_preview:
                yield from _preview(scene, trainer, shown)
                next_preview = update.seconds + _PREVIEW_SECONDS
            if kept_early := scene.enough_path.exists():
                break
    if kept_early:
        for update in trainer.go_back():
            yield _progress(update, settings, curve)
    seconds = round(time.monotonic() - started, 2)
    return {
        "splats": trainer.count,
        "steps": trainer.steps,
        "seconds": seconds,
        "curve": curve,
        "kept_from": None if trainer.kept_from is None else round(trainer.kept_from, 1),
        "kept_early": kept_early,
    }


def _progress(update: Update, settings: TrainSettings, curve: list[list[float]]) -> Progress:
    """What a person sees of an update; a score is added to the curve."""
    figures = {"seconds": round(update.seconds, 2), "splats": update.splats, "step": update.step}
    if update.psnr is not None:
        figures["psnr"] = round(update.psnr, 3)
        curve.append([figures["seconds"], figures["psnr"]])
    left = None if update.left is None else round(update.left, 1)
    if settings.seconds:
        return Progress("fit", "Fitting splats", round(update.seconds, 1), settings.seconds, "s", left, figures)
    return Progress("fit", "Fitting splats", update.step, settings.max_steps, "steps", left, figures)


def _preview(scene: Scene, trainer: Trainer, photo: Photo) -> Generator[Event, None, None]:
    """previews/fit.jpg: the photo's camera as rendered now, and the photo beside it."""
    camera = photo.camera.resized(min(_PREVIEW_LONG_SIDE_PX, max(photo.camera.width, photo.camera.height)))
    truth = photo.rgb
    if truth.shape[:2] != (camera.height, camera.width):
        from PIL import Image

        truth = np.asarray(Image.fromarray(truth).resize((camera.width, camera.height), reducing_gap=2.0))
    path = scene.previews_dir / "fit.jpg"
    write_rgb(path, np.hstack([to_uint8(trainer.render(camera)), truth]))
    yield Artifact("fit", "preview", scene.relative(path), f"Splats and photo {photo.name}")


def _scores(trainer: Trainer, heldout: Sequence[Photo]) -> Generator[Event, None, dict[str, Any]]:
    """Mean PSNR and SSIM over all held-out photos."""
    from difix3d.metrics import psnr, ssim

    psnrs, ssims = [], []
    for index, photo in enumerate(heldout):
        yield Progress("fit", "Scoring held-out photos", index, len(heldout), "photos")
        rendered, truth = to_uint8(trainer.render(photo.camera)), photo.rgb
        psnrs.append(psnr(rendered, truth))
        ssims.append(ssim(rendered, truth))
    if not heldout:
        return {"psnr": None, "ssim": None}
    return {"psnr": round(float(np.mean(psnrs)), 3), "ssim": round(float(np.mean(ssims)), 4)}


def _save(scene: Scene, trainer: Trainer, train: Sequence[View], heldout: Sequence[View]) -> None:
    # The old manifest goes first: it vouches for the splats that are about to be replaced.
    scene.manifest_path("fit").unlink(missing_ok=True)
    write_splats(scene.splats_path, trainer.splats())
    write_json(scene.split_path, {"train": [view.name for view in train], "heldout": [view.name for view in heldout]})
