"""A fine-tuning run of lite: the same steps as stages/finetuning.py, in one process and without a Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from difix3d.atomic import recover_folder, replacing_folder, write_json
from difix3d.errors import ConfigError, FormatError
from difix3d.events import Event, Progress, Warned
from difix3d.fixers.lite import fixer as lite
from difix3d.fixers.lite.checkpoint import ABOUT, NAME, TunedLite, sha256_of, weights_of
from difix3d.fixers.lite.network import MULTIPLE
from difix3d.losses import LPIPS
from difix3d.pairs.read import FRAMES, SIDECAR
from difix3d.perceptual_weights import find_weights, how_to_get
from difix3d.spread import evenly
from difix3d.stages.finetuning_run import FinetuningRun, made_with
from difix3d.training import state
from difix3d.training.card import card
from difix3d.training.fingerprint import hash_of_pairs
from difix3d.training.framing import Framing
from difix3d.training.lite_data import LiteCrops, PreparedPlanes
from difix3d.training.lite_terms import LiteWeights
from difix3d.training.lite_tuning import LiteTuner, TuningSettings
from difix3d.training.lite_validation import LiteValidator
from difix3d.training.loop import StepResult
from difix3d.training.pairs import find_json, has_true_target, read_pairs
from difix3d.training.preference import PreferenceWeights
from difix3d.types import TrainingPair

if TYPE_CHECKING:
    from difix3d.stages.finetune import FinetuneConfig

RESULT_STAYS = {"data", "start", "out", "save_every", "restart", "validate_every", "tracker",
                "max_psnr_drop", "max_lpips_rise"}  # fmt: skip
_FEWER = "train on fewer frames: each keeps its photos, carried into it, until the training ends"
_EMA_DECAY = 0.98
_NOT_FOR_LITE = {"accumulation": 1, "width": 0, "height": 0, "gram_weight": None, "gram_warmup_steps": None,
                 "lora_rank": None, "gradient_checkpointing": False, "precision": "auto"}  # fmt: skip
"""Settings that lite has no use for -> what they must be, None where any default will do."""


class LiteFinetuning(FinetuningRun):
    def __init__(self, config: FinetuneConfig):
        super().__init__(config)
        for name, needed in _NOT_FOR_LITE.items():
            if needed is not None and getattr(config, name) != needed:
                raise ConfigError(f"{name} is {getattr(config, name)!r}: lite is trained without it, leave it out")
        if config.crop % MULTIPLE:
            raise ConfigError(f"crop: lite needs a multiple of {MULTIPLE}, got {config.crop}")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("lite is small and is trained by one process: difix3d finetune, without a launcher")
        weights = weights_of(config.start)
        assert weights is not None, "finetune chose this by the start"
        self._weights = weights
        self._writer: Any = None

    def __enter__(self) -> LiteFinetuning:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()

    @property
    def step(self) -> int:
        return self.tuner.step

    def read_data(self) -> None:
        """Every row is looked at, before anything large is loaded."""
        self.source = find_json(Path(self.config.data))
        self.planes = PreparedPlanes(self.source.parent, self.folder / state.PLANES)
        found = read_pairs(self.source, Framing(), comparisons=self.config.preference_weight > 0)
        self.pairs: dict[str, list[TrainingPair]] = {
            split: [pair for pair in rows if self.planes.has(pair)] for split, rows in found.items()
        }
        self.without_inputs = sum(map(len, found.values())) - sum(map(len, self.pairs.values()))
        self.hold_apart()
        if self.held_apart:
            apart = {pair.target_image for pair in self.pairs["test"]}
            self.planes.leave_out_photos(apart, self.pairs["train"])
        if not any(has_true_target(pair) for pair in self.pairs["train"]):
            raise FormatError(
                f"{self.source}: no row has a photo as its target and depth and cameras in {FRAMES} or {SIDECAR}. lite "
                "is always held to the truth: render at held-out photos (difix3d render --trajectory heldout) and "
                "export again."
            )

    def _is_made_by(self, weights: str, pair: TrainingPair) -> bool:
        """Whether these weights make this target, whole and not in part, of the photos that the row holds."""
        made = made_with(pair)
        used = tuple(pair.provenance.get("references", ()))
        return made.get("weights") == weights and "shown" not in made and used == self.planes.photos_of(pair)

    def fetch(self) -> Iterator[Event]:
        """Carry the photos into every frame, once."""
        self._used = [*self.pairs["train"], *self._judged()]
        with state.writing("the planes of its pairs", self.folder):
            state.require_space(self.folder, self.planes.bytes_to_write(self._used), _FEWER)
            for done, total in self.planes.prepare(self._used):
                yield Progress("finetune", "carrying photos into the frames", done, total, "frames")

    def _judged(self) -> list[TrainingPair]:
        return evenly(self.pairs["test"], self.config.validation_pairs)

    def load(self) -> None:
        """The parent, or the saved state of a run that was stopped."""
        config = self.config
        parent = lite.LiteFixer() if config.start == NAME else TunedLite(config.start)
        parent.load()
        assert parent.network is not None
        self.licence = parent.licence
        self.lpips = LPIPS.load("vgg") if config.lpips_weight and find_weights("vgg") else None
        self.own = self.leave_out_own(lambda pair: self._is_made_by(parent.settings["weights"], pair))
        targets = [pair for pair in self.pairs["train"] if pair.worse_image is None]
        compared = [pair for pair in self.pairs["train"] if pair.worse_image is not None]
        self.comparisons, self.approved = len(compared), sum(not has_true_target(pair) for pair in targets)
        self.photos = len(targets) - self.approved
        crops = [LiteCrops(rows, self.planes, config.crop, config.seed) for rows in (targets, compared)]
        self.tuner = LiteTuner(parent.network, crops[0], crops[1] if compared else None, _settings(config), self.lpips)
        self.losses = ("l1", "blocks", "trust", *(("lpips",) if self.lpips else ()))
        self.losses += ("preference", "proximity") if compared else ()
        kept = {name: value for name, value in asdict(config).items() if name not in RESULT_STAYS}
        data = self.planes.digest(hash_of_pairs(self.source, self.pairs), self._used)
        self.identity = {**kept, "data": data, "start": sha256_of(self._weights), "losses": list(self.losses)}
        self.record = self._stopped_run() or state.Record(self.identity)
        self.planes.drop_others(self._used)  # not before: another run that was stopped here needs its own
        self.validator = LiteValidator(self.tuner, self._judged(), self.planes, self.folder / state.VALIDATION)
        self._tracks = config.tracker == "tensorboard" and find_spec("tensorboard") is not None
        if self._tracks:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / state.RUNS), purge_step=self.step + 1)

    def warnings(self) -> Iterator[Warned]:
        if self.without_inputs:
            yield Warned(
                "finetune",
                f"{self.without_inputs} rows have no depth and cameras in the data and are left out: scenes without "
                "splats, or renders that were made again since they were rated.",
            )
        yield from self._warnings_of_pairs()
        if self.config.lpips_weight and self.lpips is None:
            yield Warned("finetune", f"LPIPS weights (vgg) are not here: training blurs. {how_to_get('vgg')}")
        yield from self._warnings_of_what_is_missing()

    def train(self) -> Iterator[StepResult]:
        for result in self.tuner.run():
            self.record.losses.append(result.loss)
            if self._writer is not None:
                for name, value in self.figures(result).items():
                    self._writer.add_scalar(name, value, result.step)
            yield result

    def validate(self) -> Progress:
        told = super().validate()
        if self._writer is not None:
            for name, value in self.record.validations[-1]["output"].items():
                if value is not None:
                    self._writer.add_scalar(f"validation/{name}", value, self.step)
        return told

    def save(self) -> None:
        state.save_state(self.folder, self.tuner, self.record)

    def write(self) -> dict[str, Any]:
        """The checkpoint, its card and its pictures at `out`, all at once; then the saved state goes. Returns the
        figures of the run."""
        figures = self._summary()
        about = self._about(figures)
        if self._writer is not None:
            self._writer.flush()
        with (
            state.writing("the checkpoint", self.out),
            self.tuner.averaged() as network,
            replacing_folder(self.out) as target,
        ):
            tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
            save_file(tensors, target / lite.WEIGHTS.name)
            write_json(target / ABOUT, about)
            (target / "README.md").write_text(card(about))
            self._copy_logs(target)
        state.clear(self.folder)
        return figures

    def _stopped_run(self) -> state.Record | None:
        recover_folder(self.out)
        record = None if self.config.restart else state.read_record(self.folder)
        if record is None:
            state.clear(self.folder, keep_planes=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            state.require_space(self.folder, 4 * self.tuner.state_bytes, _FEWER)
            return None
        self._require_same_run(record, self.identity)
        state.load_state(self.folder, self.tuner, record)
        return record

    def _summary(self) -> dict[str, Any]:
        return {
            **self._outcome(),
            "pairs": self.photos + self.approved,
            "photos": self.photos,
            "approved": self.approved,
        }

    def _about(self, figures: dict[str, Any]) -> dict[str, Any]:
        config, identity = self.config, self.identity
        names = ("difix3d", "torch")
        return {
            "kind": NAME,
            "licence": self.licence,
            "references": lite.LiteFixer.max_references,
            "start": {"name": config.start, "revision": None, "sha256": identity["start"]},
            "data": self._about_data(identity["data"], figures["pairs"]),
            "settings": asdict(config),
            "losses": list(self.losses),
            "figures": figures,
            "versions": {name: version(name) for name in names},
        }


def _settings(config: FinetuneConfig) -> TuningSettings:
    return TuningSettings(
        steps=config.steps,
        batch=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        gradient_norm=config.gradient_norm,
        ema_decay=config.ema_decay or _EMA_DECAY,
        loss=LiteWeights(perceptual=config.lpips_weight),
        preference=PreferenceWeights(
            config.preference_weight, config.preference_beta, config.proximity_weight, config.lpips_weight
        ),
        seed=config.seed,
    )
