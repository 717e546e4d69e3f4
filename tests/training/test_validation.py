"""Figures and pictures of a validation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from difix3d import metrics
from difix3d.training.framing import Framing
from difix3d.training.pairs import read_pairs
from difix3d.training.validation import METRICS, Validator

pytestmark = pytest.mark.shared


def test_it_measures_what_inference_gives(make_trainer, goldens, export, tmp_path) -> None:
    trainer, pairs = make_trainer(), read_pairs(export)["test"]
    found = Validator(trainer, pairs, Framing(), 8, tmp_path).run()
    image, target, reference = (
        Image.open(path) for path in (pairs[0].image, pairs[0].target_image, pairs[0].references[0])
    )
    fixed = goldens.pipeline("difix_ref")(image, reference).images[0]
    for side, picture in (("input", image), ("output", fixed)):
        for metric in METRICS:
            expected = getattr(metrics, metric)(np.asarray(picture.convert("RGB")), np.asarray(target.convert("RGB")))
            assert found[side][metric] == pytest.approx(expected, abs=2e-3)
    assert found["step"] == 0 and found["pairs"] == 1


def test_its_pictures_are_input_reference_output_and_target(make_trainer, export, tmp_path) -> None:
    rows = read_pairs(export)
    pairs = [*rows["test"], *rows["train"]]
    Validator(make_trainer(), pairs, Framing(), 8, tmp_path).run()
    with Image.open(tmp_path / "step-000000.png") as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(float)
    strip, height = sheet[:256], 256
    with Image.open(pairs[0].target_image) as opened:
        width = round(opened.width * height / opened.height)
        target = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)).astype(float)
    places = [strip[:, start : start + width] for start in (place * (width + 4) for place in range(4))]
    assert np.array_equal(places[3], target) and np.array_equal(places[1], target)  # it is its own reference there
    assert not np.array_equal(places[0], places[2])
    assert sheet.shape[0] == len(pairs) * (height + 4)


def test_the_average_is_what_is_judged(make_trainer, export, tmp_path) -> None:
    trainer, pairs = make_trainer(ema_decay=0.999, learning_rate=1e-2, steps=3), read_pairs(export)["test"]
    validator = Validator(trainer, pairs, Framing(), 8, tmp_path)
    list(trainer.run())
    found = validator.run()
    with trainer.averaged():
        fixed = trainer.pipeline(Image.open(pairs[0].image), Image.open(pairs[0].references[0])).images[0]
    target = np.asarray(Image.open(pairs[0].target_image).convert("RGB"))
    assert found["output"]["psnr"] == pytest.approx(metrics.psnr(np.asarray(fixed), target), abs=1e-3)
    assert trainer.pipeline(Image.open(pairs[0].image), Image.open(pairs[0].references[0])).images[0] != fixed
