"""How far outputs are from their targets on pairs that are not trained on, in figures and pictures.

The figures are those of inference: pictures as they are (or stretched, where training stretches them), never cropped,
through the pipeline's own call with the posterior's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image

from difix3d import metrics
from difix3d.atomic import replacing_file
from difix3d.fixers.difix.images import to_rgb
from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.spread import evenly
from difix3d.training.dataset import open_picture
from difix3d.training.framing import Framing
from difix3d.training.loop import Trainer
from difix3d.training.processes import everywhere
from difix3d.types import TrainingPair

METRICS = ("psnr", "ssim", "lpips")
SHOWN = 4
_ROW_PX, _GAP_PX, _BACKGROUND = 256, 4, 24
_MOST_DB = 100.0
"""Of equal pictures, whose PSNR has no end: a mean, and JSON, need one."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Judged:
    """One pair: scores of its image and of what the model made of it; strip: [_ROW_PX, W, 3] uint8, input |
    reference | output | target, None where nobody is to look at it."""

    input: Scores
    output: Scores
    strip: NDArray[np.uint8] | None = field(repr=False, default=None)


class Validator:
    """Judges a trainer's weights (their average, where one is kept) on the same pairs each time.

    pairs: at most `most` of them are used, evenly spread, and each process judges some. folder: of the pictures.
    """

    def __init__(self, trainer: Trainer, pairs: Sequence[TrainingPair], framing: Framing, most: int, folder: Path):
        self.pairs = evenly(pairs, most)
        self._trainer, self._framing, self._folder = trainer, framing, folder

    def run(self) -> dict[str, Any]:
        """{"step", "pairs", "input", "output"}: see `means`. Writes step-NNNNNN.png, and tells the tracker."""
        trainer, run = self._trainer, self._trainer.accelerator
        share = list(enumerate(self.pairs))[run.process_index :: run.num_processes]
        with trainer.averaged():
            judged = everywhere(
                lambda: [_judge(trainer.pipeline, pair, self._framing, index < SHOWN) for index, pair in share]
            )
        judged = gather_object(judged)
        found = means(judged)
        if run.is_main_process:
            self._folder.mkdir(parents=True, exist_ok=True)
            pictures = sheet(judged)
            with replacing_file(self._folder / f"step-{trainer.step:06d}.png") as path:
                Image.fromarray(pictures).save(path)
            scores = {f"validation/{metric}": value for metric, value in found["output"].items() if value is not None}
            run.log(scores, step=trainer.step)
            for tracker in run.trackers:
                tracker.log_images({"validation": pictures[None]}, step=trainer.step, dataformats="NHWC")
        return {"step": trainer.step, **found}


def means(judged: Sequence[Judged]) -> dict[str, Any]:
    """{"pairs", "input": {psnr, ssim, lpips}, "output": {...}}; a metric whose weights are not here is None."""

    def mean(side: str, metric: str) -> float | None:
        values = [value for one in judged if (value := getattr(one, side)[metric]) is not None]
        return round(float(np.mean(values)), 4) if values else None

    sides = {side: {metric: mean(side, metric) for metric in METRICS} for side in ("input", "output")}
    return {"pairs": len(judged), **sides}


def sheet(judged: Sequence[Judged]) -> NDArray[np.uint8]:
    """The strips below each other, [H, W, 3] uint8."""
    strips = [one.strip for one in judged if one.strip is not None]
    width = max(strip.shape[1] for strip in strips)
    rows = [
        np.pad(strip, ((0, _GAP_PX), (0, width - strip.shape[1]), (0, 0)), constant_values=_BACKGROUND)
        for strip in strips
    ]
    return np.concatenate(rows)


def _judge(pipeline: DifixPipeline, pair: TrainingPair, framing: Framing, shown: bool) -> Judged:
    image = _opened(pair.image)
    size = framing.stretched(image.size) if framing.width else image.size
    degraded, target, *references = (
        picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)
        for picture in (image, *map(_opened, (pair.target_image, *pair.references)))
    )
    output = pipeline(degraded, [references] if references else None, prompt=pair.prompt).images[0]
    strip = strip_of([degraded, references[0] if references else None, output, target]) if shown else None
    return Judged(scores_of(degraded, target), scores_of(output, target), strip)


def scores_of(picture: Image.Image, target: Image.Image) -> Scores:
    ours, theirs = np.asarray(picture), np.asarray(target)
    return {
        "psnr": min(metrics.psnr(ours, theirs), _MOST_DB),
        "ssim": metrics.ssim(ours, theirs),
        "lpips": metrics.lpips(ours, theirs),
    }


def strip_of(pictures: Sequence[Image.Image | None]) -> NDArray[np.uint8]:
    """A missing picture is a grey place as wide as the first."""
    width, height = next(picture.size for picture in pictures if picture is not None)
    size = (max(1, round(width * _ROW_PX / height)), _ROW_PX)
    places = [
        np.full((size[1], size[0], 3), _BACKGROUND, np.uint8)
        if picture is None
        else np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
        for picture in pictures
    ]
    return np.concatenate([np.pad(place, ((0, 0), (0, _GAP_PX), (0, 0))) for place in places], axis=1)


def _opened(path: Path) -> Image.Image:
    return to_rgb(open_picture(path))
