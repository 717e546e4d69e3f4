"""A fine-tuning run: its data, model, saved state, validations and checkpoint. In each of several processes alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from difix3d.atomic import recover_folder, replacing_folder
from difix3d.errors import ConfigError
from difix3d.events import Event, Warned
from difix3d.fixers.difix.checkpoint import licence_of, references_of
from difix3d.fixers.difix.fixer import makes_the_same
from difix3d.fixers.difix.hub import fetch, is_hub_id
from difix3d.fixers.difix.pipeline import DifixPipeline
from difix3d.fixers.difix.vae import merge_lora
from difix3d.losses import LPIPS
from difix3d.perceptual_weights import find_weights, how_to_get
from difix3d.stages.finetuning_run import FinetuningRun, made_with
from difix3d.training import state
from difix3d.training.card import card
from difix3d.training.dataset import PairsDataset
from difix3d.training.fingerprint import hash_of_pairs, hash_of_weights
from difix3d.training.framing import Framing
from difix3d.training.loop import LoopSettings, StepResult, Trainer
from difix3d.training.pairs import find_json, read_pairs
from difix3d.training.preference import PreferenceWeights
from difix3d.training.processes import everywhere, on_main
from difix3d.training.step import LossWeights
from difix3d.training.validation import Validator
from difix3d.types import TrainingPair

if TYPE_CHECKING:
    from difix3d.stages.finetune import FinetuneConfig

_RESULT_STAYS = {"data", "start", "out", "steps", "batch_size", "accumulation", "gradient_checkpointing", "save_every",
                 "restart", "validate_every", "tracker", "max_psnr_drop", "max_lpips_rise"}  # fmt: skip
"""Settings that may change when a stopped run goes on: of data and start their contents are compared, not their names,
and of batches the pairs per step, not how processes share them."""


class Finetuning(FinetuningRun):
    def __init__(self, config: FinetuneConfig):
        super().__init__(config)
        self.framing = Framing(config.width, config.height, config.crop)
        self._perceives = bool(config.lpips_weight or config.gram_weight)
        self._tracks = config.tracker == "tensorboard" and find_spec("tensorboard") is not None
        on_gpu = torch.cuda.is_available()
        self.accelerator = Accelerator(
            mixed_precision={"auto": "bf16" if on_gpu else "no", "fp32": "no", "bf16": "bf16"}[config.precision],
            log_with="tensorboard" if self._tracks else None,
            project_dir=self.folder,
        )

    def __enter__(self) -> Finetuning:
        return self

    def __exit__(self, *error: object) -> None:
        # Not end_training, which takes the process group down too: see difix3d.training.__main__.
        for tracker in self.accelerator.trackers:
            tracker.finish()

    @property
    def step(self) -> int:
        return self.trainer.step

    def read_data(self) -> None:
        """Every row is looked at, before anything large is loaded."""
        self.source = find_json(Path(self.config.data))
        compares = self.config.preference_weight > 0
        self.pairs: dict[str, list[TrainingPair]] = everywhere(
            lambda: read_pairs(self.source, self.framing, comparisons=compares)
        )
        self.hold_apart()
        self.own = self.leave_out_own(lambda pair: _is_made_by(self.config.start, pair))
        self.comparisons = sum(pair.worse_image is not None for pair in self.pairs["train"])
        self.dataset = PairsDataset(self.pairs["train"], self.framing, seed=self.config.seed)

    def fetch(self) -> Iterator[Event]:
        """Bring a parent that is on the Hub to this machine. One process of it downloads, the others wait for that."""
        if is_hub_id(self.config.start) and not Path(self.config.start).exists():
            with self.accelerator.local_main_process_first():
                yield from fetch(self.config.start, stage="finetune")

    def load(self) -> None:
        """The parent, or the saved state of a run that was stopped."""
        config = self.config
        pipeline = everywhere(lambda: DifixPipeline.from_pretrained(config.start, keep_lora=True))
        lpips = LPIPS.load("vgg") if self._perceives and find_weights("vgg") else None
        wanted = {"l2": config.l2_weight, "lpips": lpips and config.lpips_weight, "gram": lpips and config.gram_weight}
        self.losses = tuple(name for name, weight in wanted.items() if weight)
        if not self.losses:
            raise ConfigError(f"No loss is left to train with. Give --l2-weight, or LPIPS: {how_to_get('vgg')}")
        if self.comparisons:
            self.losses = (*self.losses, "preference")
        data, start = on_main(
            self.accelerator, lambda: (hash_of_pairs(self.source, self.pairs), hash_of_weights(pipeline))
        )
        self.trainer = Trainer(pipeline, self.dataset, _loop_settings(config), self.accelerator, lpips)
        self.identity: dict[str, Any] = {
            **{name: value for name, value in asdict(config).items() if name not in _RESULT_STAYS},
            "data": data,
            "start": start,
            "losses": list(self.losses),
            "pairs_per_step": self.trainer.share.step_size,
        }
        self.record = self._stopped_run() or state.Record(self.identity)
        self.validator = Validator(
            self.trainer,
            self.pairs.get("test", []),
            self.framing,
            config.validation_pairs,
            self.folder / state.VALIDATION,
        )
        if self._tracks:
            self.accelerator.init_trackers(state.RUNS)

    def warnings(self) -> Iterator[Warned]:
        yield from self._warnings_of_pairs()
        if 0 < len(self.pairs["train"]) == self.comparisons:
            yield Warned(
                "finetune",
                "There are comparisons and no pairs with a target: nothing holds the model to the truth. Export again "
                "with renders at held-out photos (difix3d render --trajectory heldout).",
            )
        if self._perceives and "lpips" not in self.losses and "gram" not in self.losses:
            yield Warned(
                "finetune",
                f"LPIPS weights (vgg) are not here: training with L2 alone, which blurs. {how_to_get('vgg')}",
            )
        yield from self._warnings_of_what_is_missing()

    def train(self) -> Iterator[StepResult]:
        for result in self.trainer.run():
            self.record.losses.append(result.loss)
            self.accelerator.log(self.figures(result), step=result.step)
            yield result

    def save(self) -> None:
        on_main(self.accelerator, lambda: state.save_state(self.folder, self.trainer, self.record))

    def write(self) -> dict[str, Any]:
        """The checkpoint, its card and its pictures at `out`, all at once; then the saved state goes. Returns the
        figures of the run."""
        figures = self._summary()
        on_main(self.accelerator, lambda: self._write(figures))
        return figures

    def _stopped_run(self) -> state.Record | None:
        def find() -> state.Record | None:
            recover_folder(self.out)
            record = None if self.config.restart else state.read_record(self.folder)
            if record is not None:
                self._require_same_run(record, self.identity)
            else:
                state.clear(self.folder)
                state.require_space(self.folder, self._bytes_to_write())
            return record

        record = on_main(self.accelerator, find)
        if record is not None:
            everywhere(lambda: state.load_state(self.folder, self.trainer, record))
        return record

    def _bytes_to_write(self) -> int:
        """Of the checkpoint and, while a new state replaces the old one, of both."""
        pipeline, saves = self.trainer.pipeline, 0 < self.config.save_every < self.config.steps
        written = sum(
            parameter.numel()
            for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder)
            for parameter in module.parameters()
        )
        return 4 * written + (2 * self.trainer.state_bytes if saves else 0)

    def _summary(self) -> dict[str, Any]:
        return {**self._outcome(), "pairs": len(self.pairs["train"]) - self.comparisons}

    def _write(self, figures: dict[str, Any]) -> None:
        pipeline = self.trainer.pipeline
        about = self._about(figures)
        for tracker in self.accelerator.trackers:
            tracker.finish()  # so that its log is whole before it is copied
        with (
            state.writing("the checkpoint", self.out),
            self.trainer.averaged(),
            replacing_folder(self.out) as target,
        ):
            merge_lora(pipeline.unet)  # save_pretrained does so with the decoder's
            pipeline.save_pretrained(target, about)
            (target / "README.md").write_text(card(about))
            self._copy_logs(target)
        state.clear(self.folder)

    def _about(self, figures: dict[str, Any]) -> dict[str, Any]:
        config, identity = self.config, self.identity
        references = max(len(pair.references) for pair in self.pairs["train"])
        return {
            "licence": licence_of(config.start),
            "references": max(references_of(config.start), references),
            "start": {"name": config.start, "revision": self.trainer.pipeline.revision, "sha256": identity["start"]},
            "data": self._about_data(identity["data"], figures["pairs"]),
            "settings": {**asdict(config), "pairs_per_step": identity["pairs_per_step"]},
            "losses": [name for name in self.losses if name != "gram" or figures["steps"] > config.gram_warmup_steps],
            "figures": figures,
            "versions": {
                name: version(name) for name in ("difix3d", "torch", "diffusers", "transformers", "accelerate")
            },
        }


def _is_made_by(parent: str, pair: TrainingPair) -> bool:
    """Whether the parent makes this target of what the pair holds. An export holds one of the photos at most that a fix
    was made from."""
    made = made_with(pair)
    shown = len(pair.provenance.get("references", pair.references)[: made.get("max_references")])
    return shown == len(pair.references) and makes_the_same(parent, made)


def _loop_settings(config: FinetuneConfig) -> LoopSettings:
    return LoopSettings(
        steps=config.steps,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        gradient_norm=config.gradient_norm,
        weights=LossWeights(config.l2_weight, config.lpips_weight, config.gram_weight, config.gram_warmup_steps),
        preference=PreferenceWeights(
            config.preference_weight, config.preference_beta, config.proximity_weight, config.lpips_weight
        ),
        unet_rank=config.lora_rank,
        ema_decay=config.ema_decay,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
