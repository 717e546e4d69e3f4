"""What was tried to make fits better away from their photos, and what it gave: held-out PSNR and SSIM, differences.

    python benchmarks/fit_variants.py [--scenes NAME ...] [--variants opacity ...] [--steps N] [--work DIR] [--json]

    opacity   0.01 times the mean opacity joins the loss (3DGS-MCMC, Kheradmand et al. 2024, section 3.4)
    scale     the same with the mean scale, in scene depths
    exposure  a colour matrix and offset per training photo, learned beside the splats (as in Zip-NeRF and 3DGS' own
              code), with their mean held at "no change"
    noise     transparent splats wander at random, by the learning rate of the means (3DGS-MCMC, section 3.2)
    dropout   a tenth of the splats is left out of each step, the others are that much more opaque (DropGaussian,
              Park et al. 2025)

Fits are limited by steps and the same on every run, so that a busy machine changes nothing. Every fifth photo is kept
out. Every finished fit is a line of DIR/variants.jsonl; run the command again after an interruption and it goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fit
import numpy as np
from benchmark_scene import code_digest

from difix3d import metrics
from difix3d.formats.colmap import Reconstruction, read_reconstruction
from difix3d.scene import Scene
from difix3d.splatting import l1_ssim
from difix3d.splatting.densify import _rotation_columns
from difix3d.splatting.trainer import Photo, Trainer, TrainSettings
from difix3d.stages.fit import photo_of, split_names

import torch  # isort: skip  after difix3d, which says how torch's threads wait

LONG_SIDE_PX, MAX_SPLATS, HOLDOUT = 288, 20_000, 5
SCENES = ("dev/brighton", "dev/saharov", "dev/v_street", "train/caliterra", "train/conch", "train/plush")
Loaded = tuple[Reconstruction, list[Photo], list[Photo]]


class Plain(Trainer):
    """The trainer as it is."""


class Opacity(Trainer):
    def _loss(self, rgb: torch.Tensor, photo: torch.Tensor, index: int) -> torch.Tensor:
        return (
            super()._loss(rgb, photo, index) + 0.01 * torch.sigmoid(self._parameters.tensors["opacity_logits"]).mean()
        )


class Scale(Trainer):
    def _loss(self, rgb: torch.Tensor, photo: torch.Tensor, index: int) -> torch.Tensor:
        size = self._parameters.tensors["log_scales"].exp().mean() / self._parameters.scene_depth
        return super()._loss(rgb, photo, index) + 0.01 * size


class Exposure(Trainer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._same = torch.eye(3, 4)
        self._colours = self._same.repeat(len(self._full), 1, 1).requires_grad_()
        self._colour_steps = torch.optim.Adam([self._colours], lr=1e-3)

    def _loss(self, rgb: torch.Tensor, photo: torch.Tensor, index: int) -> torch.Tensor:
        matrix = self._colours[index]
        return l1_ssim((rgb.reshape(-1, 3) @ matrix[:, :3].T + matrix[:, 3]).reshape(rgb.shape), photo)

    def _step(self, fraction: float) -> torch.Tensor:
        loss = super()._step(fraction)
        self._colour_steps.step()
        self._colour_steps.zero_grad()
        with torch.no_grad():
            self._colours += self._same - self._colours.mean(0)
        return loss


class Noise(Trainer):
    def _step(self, fraction: float) -> torch.Tensor:
        loss = super()._step(fraction)
        tensors = self._parameters.tensors
        rate = next(group["lr"] for group in self._parameters.optimiser.param_groups if group["name"] == "means")
        with torch.no_grad():
            clear = (1 - torch.sigmoid(tensors["opacity_logits"]))[:, None] ** 8
            shape = tensors["means"].shape
            along = torch.randn(shape, generator=self._colour_order) * tensors["log_scales"].exp() * clear
            for axis in range(3):
                columns = _rotation_columns(tensors["quats"], torch.full((shape[0],), axis))
                tensors["means"] += 1000 * rate / self._parameters.scene_depth * columns * along[:, axis : axis + 1]
        return loss


class Dropout(Trainer):
    _SHARE = 0.1

    def _step(self, fraction: float) -> torch.Tensor:
        inputs = self._parameters.inputs
        generator = self._colour_order

        def fewer(sh_degree: int) -> Any:
            means, quats, log_scales, opacity_logits, sh = inputs(sh_degree)
            kept = torch.rand(len(opacity_logits), generator=generator) >= self._SHARE
            opacity = torch.sigmoid(opacity_logits) * kept / (1 - self._SHARE)
            return means, quats, log_scales, torch.logit(opacity.clamp(1e-6, 0.999)), sh

        self._parameters.inputs = fewer  # type: ignore[method-assign]
        try:
            return super()._step(fraction)
        finally:
            self._parameters.inputs = inputs  # type: ignore[method-assign]


VARIANTS: dict[str, type[Trainer]] = {
    "plain": Plain,
    "opacity": Opacity,
    "scale": Scale,
    "exposure": Exposure,
    "noise": Noise,
    "dropout": Dropout,
}


def loaded(scene: Scene) -> Loaded:
    """What SfM found, photos to train on, photos kept out."""
    reconstruction = read_reconstruction(scene.sparse_dir, scene.images_dir)
    photos = {view.name: photo_of(view, LONG_SIDE_PX) for view in reconstruction.views}
    train, heldout = split_names(list(photos), HOLDOUT, 1)
    return reconstruction, [photos[name] for name in train], [photos[name] for name in heldout]


def measured(variant: str, steps: int, scene: Loaded) -> dict[str, float]:
    """Means over the photos kept out. They choose no state here: what is compared is the last one."""
    reconstruction, train, heldout = scene
    settings = TrainSettings(seconds=0, max_steps=steps, max_splats=MAX_SPLATS)
    trainer = VARIANTS[variant](settings, train, [], reconstruction.points, reconstruction.colors)
    for _ in trainer.run():
        pass
    values = []
    for photo in heldout:
        drawn, truth = trainer.render(photo.camera), photo.rgb.astype(np.float32) / np.float32(255)
        values.append((metrics.psnr(drawn, truth), metrics.ssim(drawn, truth)))
    psnr, ssim = np.mean(values, axis=0)
    return {"psnr": round(float(psnr), 3), "ssim": round(float(ssim), 4)}


def table(scenes: Sequence[str], variants: Sequence[str], results: dict[tuple[str, str], dict[str, float]]) -> str:
    """Markdown: the plain trainer's PSNR, then differences from it."""
    lines = [f"| PSNR, dB | {' | '.join(scenes)} | mean | SSIM |", f"| --- |{' ---: |' * (len(scenes) + 2)}"]
    for variant in variants:
        rows = [results[scene, variant] for scene in scenes]
        base = [results[scene, "plain"] for scene in scenes]
        sign, zero = ("", 0) if variant == "plain" else ("+", 1)
        psnrs = [row["psnr"] - zero * plain["psnr"] for row, plain in zip(rows, base)]
        ssim = float(np.mean([row["ssim"] - zero * plain["ssim"] for row, plain in zip(rows, base)]))
        cells = " | ".join(f"{value:{sign}.2f}" for value in (*psnrs, float(np.mean(psnrs))))
        lines.append(f"| {variant} | {cells} | {ssim:{sign}.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=SCENES)
    parser.add_argument("--variants", nargs="+", default=tuple(VARIANTS)[1:], choices=tuple(VARIANTS)[1:])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--work", type=Path, default=fit.WORK, help="kept between runs")
    parser.add_argument("--json", action="store_true", help="also print one JSON object, as the last line")
    arguments = parser.parse_args()

    variants = ("plain", *arguments.variants)
    arguments.work.mkdir(parents=True, exist_ok=True)
    log, code = arguments.work.resolve() / "variants.jsonl", code_digest()
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    known = {tuple(row["run"]): row["result"] for row in rows}
    results: dict[tuple[str, str], dict[str, float]] = {}
    for name in arguments.scenes:
        scene: Loaded | None = None
        for variant in variants:
            run = (name, variant, arguments.steps, code)
            if run not in known:
                scene = scene or loaded(fit.reconstructed(name, log.parent))
                known[run] = measured(variant, arguments.steps, scene)
                with log.open("a") as file:
                    file.write(json.dumps({"run": run, "result": known[run]}) + "\n")
            results[name, variant] = known[run]
    print(table(arguments.scenes, variants, results))
    if arguments.json:
        print(json.dumps([{"scene": name, "variant": variant, **row} for (name, variant), row in results.items()]))


if __name__ == "__main__":
    main()
