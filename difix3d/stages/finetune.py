"""Train Difix or lite on an export, and write a checkpoint that the app lists among its fixers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.errors import ConfigError
from difix3d.events import Done, Event, Progress, Warned
from difix3d.stages.base import option

if TYPE_CHECKING:
    from difix3d.stages.finetuning import Finetuning
    from difix3d.stages.finetuning_lite import LiteFinetuning


@dataclass(frozen=True)
class FinetuneConfig:
    """Which data and parent; the recipe; what is kept and measured on the way."""

    data: str = field(metadata={"help": "export folder, folder of pairs, or a training JSON in Difix's format"})
    start: str = field(metadata={"help": "lite, or a checkpoint: a folder or a Hub id", "flag": "from"})
    out: str = field(metadata={"help": "folder of the new checkpoint"})
    steps: int = option(50, "training steps (published training: 10000)", minimum=1)
    learning_rate: float = option(0.0, "AdamW's, constant (0: 2e-5; 1e-4 for LoRA and for lite)", minimum=0.0)
    warmup_steps: int = option(0, "the rate first rises linearly over so many steps (lite: 20)", minimum=0)
    batch_size: int = option(0, "pairs at once, on each device (0: 1; 4 for lite)", minimum=0)
    accumulation: int = option(1, "batches of one step, on each device", minimum=1)
    width: int = option(0, "stretch pictures to this width, a multiple of 8 (0: their own)", minimum=0)
    height: int = option(0, "and this height", minimum=0)
    crop: int = option(0, "then cut a random square of this side, a multiple of 8 (0: none; 160 for lite)", minimum=0)
    l2_weight: float = option(1.0, "of the squared error, among the losses", minimum=0.0)
    lpips_weight: float = option(1.0, "of LPIPS (0: left out)", minimum=0.0)
    gram_weight: float = option(1.0, "of the Gram loss (0: left out)", minimum=0.0)
    gram_warmup_steps: int = option(2000, "the Gram loss joins after so many steps", minimum=0)
    preference_weight: float = option(1.0, "of what raters preferred, in comparisons.json (0: left out)", minimum=0.0)
    preference_beta: float = option(50.0, "how soon a preferred picture is near enough", minimum=1e-3)
    proximity_weight: float = option(0.5, "keeps what is learned from comparisons near the parent", minimum=0.0)
    gradient_norm: float = option(1.0, "gradients are cut to this norm", minimum=1e-6)
    lora_rank: int = option(16, "of low-rank updates of Difix's U-Net (0: train all of it, as published)", minimum=0)
    ema_decay: float = option(
        0.0, "write a moving average of the weights (0: none; 0.98 for lite)", minimum=0.0, maximum=0.99999
    )
    gradient_checkpointing: bool = option(False, "save memory: a third more computing, the same result")
    precision: str = option("auto", "of the arithmetic; weights are fp32 in any case", choices=("auto", "fp32", "bf16"))
    save_every: int = option(500, "steps between saved states, from which a stopped run goes on (0: none)", minimum=0)
    restart: bool = option(False, "drop the saved state of a stopped run and begin anew")
    validate_every: int = option(0, "steps between validations (0: before and after only)", minimum=0)
    validation_pairs: int = option(8, "test pairs to judge by, evenly spread (0: none)", minimum=0)
    max_psnr_drop: float = option(0.1, "dB at test pairs; a worse checkpoint is kept, not offered", minimum=0.0)
    max_lpips_rise: float = option(0.005, "likewise", minimum=0.0)
    tracker: str = option("tensorboard", "where figures and pictures go on the way", choices=("tensorboard", "none"))
    seed: int = option(0, "of order, crops and posterior draws", minimum=0)


def finetune(config: FinetuneConfig) -> Iterator[Event]:
    """Yields Progress "training" with {"step", "loss", its terms, "learning_rate", "gradient_norm"}, Progress
    "validating" with {"step", "psnr", "ssim", "lpips"}, and at last Done with {"steps", "pairs", "loss_first",
    "loss_last", "validation", "seconds"}: mean losses of the first and last tenth of the steps; None, or means over
    test pairs as {"pairs", "input", "before", "after"}; "gate" says whether it passed the limits (training/gate.py):
    one that did not is Warned of, kept, and not offered among the fixers.

    The checkpoint is written once, whole, at the end: closing this generator leaves `out` as it was. A stopped run
    goes on from its last saved state, in OUT.training, and ends with the same weights. Raises FormatError for the
    data, CheckpointError for `start` and for a full disk, ConfigError for settings that do not go together or are not
    those of the stopped run, FixerError where training diverges.
    """
    out = Path(config.out)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not _is_checkpoint(out)):
        raise ConfigError(f"{out} exists and is no checkpoint: name a new folder with --out")
    started = time.monotonic()
    with _run(config) as run:
        run.read_data()
        yield from run.fetch()
        yield Progress("finetune", f"loading {config.start}", 0, config.steps, "steps")
        run.load()
        yield from run.warnings()
        if first := run.step:
            yield Progress("finetune", f"going on after step {first}", first, config.steps, "steps")
        if run.is_validation_due():
            yield run.validate()
        training_started = time.monotonic()
        for result in run.train():
            per_step = (time.monotonic() - training_started) / (result.step - first)
            yield Progress(
                "finetune",
                "training",
                result.step,
                config.steps,
                "steps",
                seconds_left=round(per_step * (config.steps - result.step), 1),
                figures=run.figures(result),
            )
            if run.is_validation_due():
                yield run.validate()
            if run.is_saving_due():
                run.save()
        summary = run.write()
    if summary["gate"]["problems"]:
        from difix3d.training.gate import sentence

        photos = len({pair.target_image for pair in run.validator.pairs})
        yield Warned("finetune", sentence(summary["gate"], photos, out.name))
    seconds = round(time.monotonic() - started, 2)
    yield Done("finetune", seconds, {**summary, "seconds": seconds}, (str(out),))


def _run(config: FinetuneConfig) -> Finetuning | LiteFinetuning:
    """By what it starts from, with the settings that suit that."""
    from difix3d.fixers.lite.checkpoint import weights_of

    if weights_of(config.start) is not None:
        from difix3d.stages.finetuning_lite import LiteFinetuning

        return LiteFinetuning(_suited(config, _LITE))
    from difix3d.stages.finetuning import Finetuning

    return Finetuning(_suited(config, _DIFIX_LORA if config.lora_rank else _DIFIX))


_DIFIX = {"learning_rate": 2e-5, "batch_size": 1}
"""As published, for all of the U-Net."""
_DIFIX_LORA = {"learning_rate": 1e-4, "batch_size": 1}
"""diffusers' own rate for LoRA: new updates start at zero, and at 2e-5 they hardly move."""
_LITE = {"learning_rate": 1e-4, "batch_size": 4, "crop": 160, "warmup_steps": 20}
"""AdamW's first steps move every weight by the whole rate: without a rise, 1e-3 made not-a-number of a gradient."""


def _suited(config: FinetuneConfig, suiting: dict[str, Any]) -> FinetuneConfig:
    return replace(config, **{name: value for name, value in suiting.items() if not getattr(config, name)})


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model_index.json", "lite.safetensors"))
