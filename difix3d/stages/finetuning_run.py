"""What every fine-tuning run shares, whatever it trains: its folders, when it judges and saves, what it warns of."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from difix3d.errors import ConfigError
from difix3d.events import Progress, Warned
from difix3d.fixers.listing import about_data, trained_on
from difix3d.training import gate, state
from difix3d.training.loop import StepResult
from difix3d.training.origin import frames_of, licences_of
from difix3d.training.pairs import has_true_target, hold_apart
from difix3d.types import TrainingPair

if TYPE_CHECKING:
    from difix3d.stages.finetune import FinetuneConfig


class _Validates(Protocol):
    @property
    def pairs(self) -> Any: ...

    def run(self) -> dict[str, Any]: ...


def made_with(pair: TrainingPair) -> dict[str, Any]:
    """The settings of the fixer that made its target; {} where nobody says."""
    return pair.provenance.get("settings") or {}


class FinetuningRun(ABC):
    """`read_data`, `fetch`, `load`, `train`, `write`, in this order, within a with block.

    pairs: split -> rows; held_apart: how many photos of scenes that are trained on are in "test" alone; own: approved
    fixes left out because the parent makes them anyway; comparisons: rows that raters compared.
    """

    pairs: dict[str, list[TrainingPair]]
    held_apart: int
    own: int
    comparisons: int
    record: state.Record
    validator: _Validates
    _tracks: bool

    def __init__(self, config: FinetuneConfig):
        self.config = config
        self.out = Path(config.out)
        self.folder = state.folder_beside(self.out)

    @property
    @abstractmethod
    def step(self) -> int:
        """How many are done."""

    @staticmethod
    def figures(result: StepResult) -> dict[str, float]:
        flat = {name: value for name, value in asdict(result).items() if name != "terms"}
        return {**flat, **result.terms}

    def is_validation_due(self) -> bool:
        """Before the first step, after the last, and as often as asked for between; once each."""
        if not self.validator.pairs or self.step in (found["step"] for found in self.record.validations):
            return False
        every = self.config.validate_every
        return self.step in (0, self.config.steps) or (every > 0 and self.step % every == 0)

    def validate(self) -> Progress:
        found = self.validator.run()
        self.record.validations.append(found)
        scores = {name: value for name, value in found["output"].items() if value is not None}
        return Progress(
            "finetune", "validating", self.step, self.config.steps, "steps", figures={"step": self.step, **scores}
        )

    def is_saving_due(self) -> bool:
        every = self.config.save_every
        return every > 0 and self.step % every == 0 and self.step < self.config.steps

    def hold_apart(self) -> None:
        """What is judged by, where anything is to be."""
        self.held_apart = 0
        if self.config.validation_pairs:
            self.pairs, self.held_apart = hold_apart(self.pairs)
        self.pairs.setdefault("test", [])

    def leave_out_own(self, parent_made: Callable[[TrainingPair], bool]) -> int:
        """How many approved fixes the parent would make of the same input, as what they were made with tells: their
        gradient is next to zero, and they are left out. Not told by comparing pictures: an export rounds depth, so what
        a fixer makes of that is not quite the same."""

        def is_own(pair: TrainingPair) -> bool:
            is_approved = pair.worse_image is None and not has_true_target(pair)
            return is_approved and parent_made(pair)

        rows = self.pairs["train"]
        self.pairs["train"] = [pair for pair in rows if not is_own(pair)]
        return len(rows) - len(self.pairs["train"])

    def _warnings_of_pairs(self) -> Iterator[Warned]:
        if self.own:
            yield Warned(
                "finetune",
                f"{self.own} approved fixes are what the parent makes anyway: they teach nothing and are left out.",
            )
        if self.held_apart:
            yield Warned(
                "finetune",
                f"The data has no test scene: {self.held_apart} photos are kept apart to judge by, of scenes that are "
                "trained on.",
            )

    def _warnings_of_what_is_missing(self) -> Iterator[Warned]:
        if self.config.validation_pairs and not self.validator.pairs:
            yield Warned(
                "finetune", "The test split holds no pairs: what training does to other pictures is not measured."
            )
        if self.config.tracker != "none" and not self._tracks:
            yield Warned(
                "finetune",
                f"{self.config.tracker} is not installed, so the run leaves no log: pip install -e '.[train]'",
            )

    def _require_same_run(self, record: state.Record, identity: dict[str, Any]) -> None:
        """ConfigError for a stopped run of other settings, or of more steps than are asked for."""
        state.require_same_run(self.folder, record, identity)
        if len(record.losses) > self.config.steps:
            raise ConfigError(
                f"{self.folder} holds an unfinished training of {len(record.losses)} steps already: ask for at least "
                "as many, or drop it with --restart."
            )

    def _outcome(self) -> dict[str, Any]:
        """Of steps, losses, validation and gate."""
        losses, validation = self.record.losses, state.before_and_after(self.record)
        limits = gate.Limits(self.config.max_psnr_drop, self.config.max_lpips_rise)
        return {
            "steps": len(losses),
            "comparisons": self.comparisons,
            **state.first_and_last(losses),
            "validation": validation,
            "gate": gate.judged(validation, limits),
        }

    def _about_data(self, sha256: str, pairs: int) -> dict[str, Any]:
        """What the checkpoint says of what it was trained on."""
        rows = self.pairs["train"]
        return {
            "name": self.config.data,
            "sha256": sha256,
            "pairs": pairs,
            "licences": licences_of(rows, about_data(self.config.start).get("licences", ())),
            "frames": frames_of(rows, trained_on(self.config.start)),
        }

    def _copy_logs(self, target: Path) -> None:
        """Its curves and pictures, beside the checkpoint."""
        for name in (state.RUNS, state.VALIDATION):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, target / name, copy_function=shutil.copyfile)
