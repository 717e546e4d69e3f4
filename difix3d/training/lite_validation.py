"""How far lite's fixes are from photos that are not trained on: validation.py's figures and pictures, by lite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from difix3d.atomic import replacing_file
from difix3d.fixers.lite.fixer import run
from difix3d.fixers.lite.network import LiteNetwork
from difix3d.training.lite_data import PreparedPlanes, picture_at
from difix3d.training.lite_tuning import LiteTuner
from difix3d.training.validation import SHOWN, Judged, means, scores_of, sheet, strip_of
from difix3d.types import TrainingPair


class LiteValidator:
    """Judges a tuner's network on the same pairs each time: whole frames, with all of their photos."""

    def __init__(self, tuner: LiteTuner, pairs: Sequence[TrainingPair], planes: PreparedPlanes, folder: Path):
        self.pairs = list(pairs)
        self._tuner, self._planes, self._folder = tuner, planes, folder

    def run(self) -> dict[str, Any]:
        """{"step", "pairs", "input", "output"}: see validation.means. Writes step-NNNNNN.png."""
        with self._tuner.averaged() as network:
            judged = [self._judge(network, pair, index < SHOWN) for index, pair in enumerate(self.pairs)]
        self._folder.mkdir(parents=True, exist_ok=True)
        with replacing_file(self._folder / f"step-{self._tuner.step:06d}.png") as path:
            Image.fromarray(sheet(judged)).save(path)
        return {"step": self._tuner.step, **means(judged)}

    def _judge(self, network: LiteNetwork, pair: TrainingPair, shown: bool) -> Judged:
        own, photos = self._planes.planes(pair)
        fixed, _ = run(network, own, photos)
        size = (fixed.shape[1], fixed.shape[0])
        named = [pair.image, pair.target_image, *pair.references[:1]]
        render, target, *reference = (Image.fromarray(picture_at(path, size)) for path in named)
        output = Image.fromarray(fixed)
        strip = strip_of([render, reference[0] if reference else None, output, target]) if shown else None
        return Judged(scores_of(render, target), scores_of(output, target), strip)
