"""Train a Difix checkpoint on an export, and write one that the app lists among its fixers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from difix3d.errors import ConfigError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.stages.base import option


@dataclass(frozen=True)
class FinetuneConfig:
    data: str = field(metadata={"help": "export folder, or a training JSON in Difix's format"})
    start: str = field(metadata={"help": "checkpoint to start from: a folder or a Hub id", "flag": "from"})
    out: str = field(metadata={"help": "folder of the new checkpoint"})
    steps: int = option(50, "training steps (published training: 10000)", minimum=1)
    learning_rate: float = option(2e-5, "AdamW's rate, constant", minimum=0.0)
    batch_size: int = option(1, "pairs per step", minimum=1)
    width: int = option(0, "stretch pictures to this width, a multiple of 8 (0: their own)", minimum=0)
    height: int = option(0, "and this height", minimum=0)
    crop: int = option(0, "then cut a random square of this side, a multiple of 8 (0: none)", minimum=0)
    gram_warmup_steps: int = option(2000, "the Gram loss joins after so many steps", minimum=0)
    seed: int = option(0, "of order, crops and posterior draws")


def finetune(config: FinetuneConfig) -> Iterator[Event]:
    """Yields Progress with {"step", "loss", and its terms} and at last Done with {"steps", "loss_first",
    "loss_last", "seconds", "pairs"}: mean losses of the first and last tenth of the steps.

    The checkpoint is written once, whole, at the end: closing this generator leaves `out` as it was. Raises
    FormatError for the data, CheckpointError for `start`, ConfigError for settings that do not go together.
    """
    from difix3d.training.pairs import PairsDataset, find_json, read_pairs

    started = time.monotonic()
    out = Path(config.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "model_index.json").is_file()):
        raise ConfigError(f"{out} exists and is no checkpoint: name a new folder with --out")
    source = find_json(Path(config.data))
    pairs = read_pairs(source)["train"]
    dataset = PairsDataset(pairs, width=config.width, height=config.height, crop_px=config.crop, seed=config.seed)

    yield Progress("finetune", f"loading {config.start}", 0, config.steps, "steps")
    from difix3d.fixers.difix.checkpoint import licence_of
    from difix3d.fixers.difix.pipeline import DifixPipeline
    from difix3d.losses import LPIPS, find_weights
    from difix3d.training.loop import LoopSettings, train
    from difix3d.training.step import LossWeights

    pipeline = DifixPipeline.from_pretrained(config.start, keep_lora=True)
    lpips = LPIPS.load("vgg") if find_weights("vgg") else None
    if lpips is None:
        yield Warned(
            "finetune",
            "LPIPS weights not found: training with L2 alone, which blurs. Put them into a folder and name it in "
            "DIFIX3D_LPIPS_WEIGHTS.",
        )
    settings = LoopSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weights=LossWeights(gram_warmup_steps=config.gram_warmup_steps),
        seed=config.seed,
    )
    losses: list[float] = []
    training_started = time.monotonic()
    for result in train(pipeline, dataset, settings, lpips):
        losses.append(result.loss)
        per_step = (time.monotonic() - training_started) / result.step
        yield Progress(
            "finetune",
            "training",
            result.step,
            config.steps,
            "steps",
            seconds_left=round(per_step * (config.steps - result.step), 1),
            figures={"step": result.step, "loss": result.loss, **result.terms},
        )

    tenth = max(1, len(losses) // 10)
    figures = {
        "steps": len(losses),
        "pairs": len(pairs),
        "loss_first": sum(losses[:tenth]) / tenth,
        "loss_last": sum(losses[-tenth:]) / tenth,
    }
    pipeline.save_pretrained(
        out,
        {
            "licence": licence_of(config.start),
            "start": {"name": config.start, "revision": pipeline.revision},
            "data": {"name": str(config.data), "sha256": _hash_of_pairs(source, pairs), "pairs": len(pairs)},
            "settings": asdict(config),
            "losses": ["l2", "lpips", "gram"] if lpips else ["l2"],
            "figures": figures,
            "versions": _versions(),
        },
    )
    seconds = round(time.monotonic() - started, 2)
    yield Done("finetune", seconds, {**figures, "seconds": seconds}, (str(out),))


def _hash_of_pairs(source: Path, pairs: list[Any]) -> str:
    """sha256 over the JSON and every picture it names for training, in its order."""
    total = hashlib.sha256(source.read_bytes())
    for pair in pairs:
        for path in (pair.image, pair.target_image, pair.ref_image):
            if path is not None:
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("difix3d", "torch", "diffusers", "transformers", "accelerate")}
