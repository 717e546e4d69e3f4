"""Evaluate: how far renders and their fixes are from photos that the fit has not seen; says of how many the fixer was
trained on."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difix3d.errors import SceneError
from difix3d.events import Artifact, Event, Progress, Warned
from difix3d.fixers import DEFAULT_FIXER
from difix3d.fixers.listing import trained_frames
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.perceptual_weights import how_to_get
from difix3d.scene import Scene
from difix3d.spread import evenly
from difix3d.stages.base import option, stage
from difix3d.stages.fit import PRESETS
from difix3d.stages.fix import check_fixer, fixer_inputs
from difix3d.stages.fixing import FixSession
from difix3d.stages.strengths import VERSION
from difix3d.trajectories import HELDOUT
from difix3d.types import View

METRICS = ("psnr", "ssim", "lpips", "lpips_alex")
SHEET_PATH = "previews/evaluate.jpg"
_SHEET_PHOTOS, _SHEET_WIDTH_PX = 8, 1700
_ROW_PX, _GAP_PX, _BACKGROUND = 300, 6, 24
_FALLBACK_LONG_SIDE_PX = 640


@dataclass(frozen=True)
class EvaluateConfig:
    """What is judged, and at which size."""

    fixer: str = option(DEFAULT_FIXER, "a fixer's name, a checkpoint folder or a Hub id owner/model", check=check_fixer)
    long_side_px: int = option(0, "longer side of the compared pictures; 0: as fitted", minimum=0, maximum=8192)
    seed: int = option(0, "of the random choices of a fixer that makes any", minimum=0)


@dataclass
class _Judged:
    """One held-out photo: its scores before and after, and a small picture of photo, render and fix."""

    name: str
    strength: float
    raw: dict[str, float | None]
    fixed: dict[str, float | None]
    row: NDArray[np.uint8] = field(repr=False)


@stage(
    "evaluate",
    inputs=lambda scene, config: fixer_inputs(scene, config.fixer),
    outputs=(SHEET_PATH,),
    version=VERSION,
)
def evaluate(scene: Scene, config: EvaluateConfig) -> Generator[Event, None, dict[str, Any]]:
    """Render the cameras of the held-out photos, fix the renders with training photos, compare both with the photos.

    Figures: {"raw": {psnr, ssim, lpips, lpips_alex}, "fixed": {...}, "views": n, "fixer", "strength" (how much of a fix
    is shown at that size), "long_side_px"}, means over the photos; a LPIPS whose weights are not here is None, and
    said. SceneError where no photo was kept out.
    """
    name = config.fixer or DEFAULT_FIXER
    yield Progress("evaluate", f"Loading the fixer {name}")
    views = _heldout(scene)
    session = FixSession(scene, name)
    yield from session.fixer.fetch("evaluate")
    known = _known_views(session, views)
    if seen := trained_frames([name], scene.id, dict(enumerate(views))):
        yield Warned(
            "evaluate",
            f"{session.fixer.name} was trained on {len(seen)} of {len(views)} kept-out photos: its figures say nothing "
            "of others.",
        )
    long_side_px = config.long_side_px or fitted_long_side_px(scene)
    yield from session.strengths.measure(long_side_px, "evaluate")
    judged: list[_Judged] = []
    started = time.monotonic()
    for index, view in enumerate(known):
        left = (time.monotonic() - started) / index * (len(known) - index) if index else None
        yield Progress("evaluate", "Comparing with kept-out photos", index, len(known), "photos", left)
        one = _judge(session, view, index, long_side_px, config.seed)
        judged.append(one)
    yield Progress("evaluate", "Comparing with kept-out photos", len(known), len(known), "photos", 0.0)

    raw, fixed = (_means([getattr(one, side) for one in judged]) for side in ("raw", "fixed"))
    if missing := [metric for metric in METRICS if raw[metric] is None]:
        yield Warned(
            "evaluate",
            f"{' and '.join(missing)} left out: the weights are not here. "
            f"{how_to_get('vgg' if 'lpips' in missing else 'alex')}",
        )
    # The old manifest goes first: it vouches for the sheet that is about to be replaced.
    scene.manifest_path("evaluate").unlink(missing_ok=True)
    write_rgb(scene.root / SHEET_PATH, _sheet(judged))
    yield Artifact("evaluate", "report", SHEET_PATH, f"photo | render | {session.fixer.name}, worst render first")
    return {
        "raw": raw,
        "fixed": fixed,
        "views": len(judged),
        "fixer": session.fixer.name,
        "strength": round(float(np.mean([one.strength for one in judged])), 2),
        "long_side_px": long_side_px,
    }


def fitted_long_side_px(scene: Scene) -> int:
    """The size that photos were fitted at; 640 where no fit of ours says."""
    manifest = scene.manifest("fit")
    if not manifest:
        return _FALLBACK_LONG_SIDE_PX
    config = manifest["config"]
    return int(config.get("long_side_px") or PRESETS[config.get("preset", "quick")].long_side_px)


def _heldout(scene: Scene) -> list[str]:
    names = scene.split()["heldout"]
    if not names:
        raise SceneError(
            f"No photo of {scene.id} was kept out of its fit, so there is nothing to judge by. "
            f"Fit again with some kept out: difix3d fit --scene {scene.root} --holdout 8."
        )
    return names


def _known_views(session: FixSession, names: list[str]) -> list[View]:
    reconstruction = session.reconstruction()
    views = {} if reconstruction is None else {view.name: view for view in reconstruction.views}
    if missing := [name for name in names if name not in views]:
        raise SceneError(
            f"split.json of {session.scene.id} keeps out {missing[0]}, which sparse/0 does not have: the cameras were "
            "made anew since the fit. Fit again."
        )
    return [views[name] for name in names]


def _judge(session: FixSession, view: View, index: int, long_side_px: int, seed: int) -> _Judged:
    own = max(view.camera.width, view.camera.height)
    camera = view.camera.resized(min(long_side_px, own))
    assert view.image_path is not None, "read_reconstruction was given images_dir"
    photo = read_rgb(view.image_path, (camera.width, camera.height))
    frame = session.render(HELDOUT, index, camera)
    fixed = session.fix(frame, None, seed)
    row = np.hstack([_small(picture) for picture in (photo, frame.rgb, fixed.rgb)])
    return _Judged(view.name, fixed.strength, _scores(frame.rgb, photo), _scores(fixed.rgb, photo), row)


def _scores(picture: NDArray[np.uint8], photo: NDArray[np.uint8]) -> dict[str, float | None]:
    from difix3d import metrics

    return {
        "psnr": metrics.psnr(picture, photo),
        "ssim": metrics.ssim(picture, photo),
        "lpips": metrics.lpips(picture, photo),
        "lpips_alex": metrics.lpips(picture, photo, net="alex"),
    }


def _means(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for metric in METRICS:
        values = [value for score in scores if (value := score[metric]) is not None]
        means[metric] = round(float(np.mean(values)), 4) if values else None
    return means


def _small(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[_ROW_PX, w, 3] with a margin on the right."""
    from PIL import Image

    width = max(1, round(rgb.shape[1] * _ROW_PX / rgb.shape[0]))
    small = np.asarray(Image.fromarray(rgb).resize((width, _ROW_PX), Image.Resampling.LANCZOS, reducing_gap=2.0))
    return np.pad(small, ((0, 0), (0, _GAP_PX), (0, 0)), constant_values=_BACKGROUND)


def _sheet(judged: list[_Judged]) -> NDArray[np.uint8]:
    """Photo | render | fix of each, the worst render first; of many photos, some from worst to best. Upright pictures
    are narrow: then two or three photos share a row."""
    ordered = evenly(sorted(judged, key=lambda one: (one.raw["psnr"] or 0.0, one.name)), _SHEET_PHOTOS)
    width = max(one.row.shape[1] for one in ordered) + 2 * _GAP_PX
    columns = max(1, min(_SHEET_WIDTH_PX // width, len(ordered)))
    height = _ROW_PX + _GAP_PX
    sheet = np.full((-(-len(ordered) // columns) * height, columns * width, 3), _BACKGROUND, np.uint8)
    for index, one in enumerate(ordered):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + _ROW_PX, left : left + one.row.shape[1]] = one.row
    return sheet
