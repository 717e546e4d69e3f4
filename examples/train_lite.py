"""Train the fixer `lite` again, from captures to the weights that ship with the project.

    difix3d pairs --scenes SCENES... --out PAIRS
    python examples/train_lite.py PAIRS... --out WORK

Carries each pair's photos into its render once and tells where each of them is off (WORK/prepared), then trains and
writes WORK/lite.safetensors, which difix3d/fixers/lite/lite.safetensors is a copy of. May be stopped at any time and
called again: it goes on. With --from it begins where other weights ended. A GPU is taken where there is one.
`make lite` calls both with what the weights that ship were made by.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import torch

from difix3d.atomic import replacing_file
from difix3d.fixers.lite.fixer import LiteFixer
from difix3d.fixers.lite.planes import planes_of
from difix3d.losses import LPIPS
from difix3d.pairs.read import load_pair, read_rows
from difix3d.training.lite_crops import Crops, write_pair
from difix3d.training.lite_data import inputs_digest
from difix3d.training.lite_errors import errors_of
from difix3d.training.lite_loop import LiteSettings, LiteTrainer
from difix3d.training.lite_terms import LiteWeights

_MINUTES_BETWEEN_SAVES = 3.0


def prepare(pairs: Path, out: Path) -> list[Path]:
    """The prepared pairs of `pairs` in the folder `out`, made where they are not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lpips = LPIPS.load("vgg").to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    files = []
    for row in read_rows(pairs, split="train"):
        digest = inputs_digest(pairs, row)[:12]  # a pair that was made anew keeps its id
        path = out / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', row.id)}-{digest}.npy"
        if not path.is_file():
            frame, references, target = load_pair(pairs, row, LiteFixer.max_references)
            with replacing_file(path) as temporary:
                planes = planes_of(frame, references)
                write_pair(temporary, target, *planes, errors_of(target, *planes, lpips))
        files.append(path)
    return files


def _folder_of(pairs: Path) -> str:
    """Its own for each folder of pairs, whose rows may have the names of another's."""
    return hashlib.sha256(str(pairs.resolve()).encode()).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("pairs", type=Path, nargs="+", help="folders that difix3d pairs made")
    parser.add_argument("--out", type=Path, required=True, metavar="WORK")
    parser.add_argument("--from", type=Path, dest="start", help="weights to begin from; without, from chance")
    parser.add_argument("--steps", type=int, default=LiteSettings.steps)
    parser.add_argument("--learning-rate", type=float, default=LiteSettings.learning_rate)
    parser.add_argument("--perceptual-weight", type=float, default=LiteWeights.perceptual, help="of LPIPS of the blend")
    parser.add_argument("--choice-weight", type=float, default=LiteWeights.choice, help="of LPIPS of its parts")
    parser.add_argument("--seed", type=int, default=LiteSettings.seed)
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many, to go on later; 0: to the end")
    arguments = parser.parse_args()
    settings = LiteSettings(
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        loss=LiteWeights(perceptual=arguments.perceptual_weight, choice=arguments.choice_weight),
        seed=arguments.seed,
    )
    prepared = arguments.out / "prepared"
    files = [file for pairs in arguments.pairs for file in prepare(pairs, prepared / _folder_of(pairs))]
    crops = Crops(files, settings.size_px, settings.batch, settings.seed)
    trainer = LiteTrainer(settings, crops, start=arguments.start)
    state = arguments.out / "state.pt"
    if state.is_file():
        trainer.load(state)
    print(f"{len(files)} pairs, from step {trainer.step} of {settings.steps}", flush=True)
    left = arguments.minutes
    while trainer.step < settings.steps and (left > 0 or not arguments.minutes):
        piece = min(_MINUTES_BETWEEN_SAVES, left) if arguments.minutes else _MINUTES_BETWEEN_SAVES
        for update in trainer.run(piece):
            parts = ", ".join(f"{name} {value:.4f}" for name, value in update.parts.items())
            print(f"step {update.step}: {parts}", flush=True)
        trainer.save(state)
        trainer.export(arguments.out / "lite.safetensors")
        left -= piece


if __name__ == "__main__":
    main()
