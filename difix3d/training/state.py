"""An unfinished training, kept in a folder beside the checkpoint that it is to become.

OUT.training/state/       weights, adam and average as safetensors, record.json: replaced as one, every so many steps
OUT.training/validation/  OUT.training/runs/       pictures and the tracker's log, which go into the checkpoint
OUT.training/planes/      of lite: its photos carried into the frames (lite_data.py)

There is no random state among them, because there is none in training (see loop.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from difix3d.atomic import recover_folder, replacing_folder, write_json
from difix3d.errors import CheckpointError, ConfigError
from difix3d.machine import free_disk_bytes

STATE, VALIDATION, RUNS, PLANES = "state", "validation", "runs", "planes"
_RECORD = "record.json"
_LESS = "train less: --lora-rank 16 keeps a small state, --save-every 0 none"


class Trainer(Protocol):
    """What is saved of a training: tensors by kind and name, and how many steps they are of."""

    def tensors(self) -> dict[str, dict[str, Tensor]]: ...

    def load(self, tensors: dict[str, dict[str, Tensor]], step: int) -> None: ...


@dataclass
class Record:
    """What a run knows beside its tensors. run: everything that decides its result, JSON-ready; losses: of each step;
    validations: see validation.py."""

    run: dict[str, Any]
    losses: list[float] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)


def first_and_last(losses: list[float]) -> dict[str, float]:
    """Means over the first and the last tenth of the steps."""
    tenth = max(1, len(losses) // 10)
    return {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}


def before_and_after(record: Record) -> dict[str, Any] | None:
    """{"pairs", "input", "before", "after"} of the first and the last validation; None where there was none."""
    if not record.validations:
        return None
    first, last = record.validations[0], record.validations[-1]
    return {"pairs": first["pairs"], "input": first["input"], "before": first["output"], "after": last["output"]}


def folder_beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def clear(training: Path, *, keep_planes: bool = False) -> None:
    """Remove what this project puts there, and the folder where nothing else is in it."""
    for name in (STATE, f".{STATE}.old", VALIDATION, RUNS, *(() if keep_planes else (PLANES,))):
        shutil.rmtree(training / name, ignore_errors=True)
    with suppress(OSError):
        training.rmdir()


def save_state(training: Path, trainer: Trainer, record: Record) -> None:
    """Atomic, and on the disk when it returns. CheckpointError where it cannot be written."""
    folder = training / STATE
    with writing("the training state", training), replacing_folder(folder) as target:
        for kind, tensors in trainer.tensors().items():
            save_file(tensors, target / f"{kind}.safetensors")
        write_json(target / _RECORD, dataclasses.asdict(record))
        for path in target.iterdir():
            with path.open("rb") as written:
                os.fsync(written.fileno())


def read_record(training: Path) -> Record | None:
    """The record of the saved state; None where there is none. CheckpointError where it cannot be read."""
    folder = training / STATE
    recover_folder(folder)
    if not folder.is_dir():
        return None
    try:
        return Record(**json.loads((folder / _RECORD).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} is no training state ({error}). Begin anew with --restart.") from error


def load_state(training: Path, trainer: Trainer, record: Record) -> None:
    """Put the saved tensors into `trainer`, which then stands at the record's step."""
    folder = training / STATE
    try:
        tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
        trainer.load(tensors, len(record.losses))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"The training state in {folder} is damaged ({error}). Begin anew with --restart."
        ) from error


def require_same_run(training: Path, record: Record, run: dict[str, Any]) -> None:
    """ConfigError names what is not as it was when the state was saved."""
    changed = [
        f"{name} was {record.run.get(name)!r} and is {run.get(name)!r}"
        for name in sorted(record.run.keys() | run.keys())
        if record.run.get(name) != run.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{training} holds an unfinished training, {len(record.losses)} steps long, that is not this one: "
            f"{'; '.join(changed)}. Ask for the same to go on with it, name another --out, or drop it with --restart."
        )


def require_space(folder: Path, needed_bytes: int, less: str = _LESS) -> None:
    """CheckpointError where the disk of `folder` cannot hold so much more. less: what people may do to need
    less, as the end of a sentence."""
    free = free_disk_bytes(folder)
    if free < needed_bytes:
        raise CheckpointError(
            f"Training writes {needed_bytes / 2**30:.1f} GiB to {folder}, and {free / 2**30:.1f} GiB are free there. "
            f"Make room, name another --out, or {less}."
        )


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Failed writes as CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        free = free_disk_bytes(folder)
        raise CheckpointError(
            f"Could not write {what} to {folder} ({error}); {free / 2**30:.2f} GiB are free there. Make room and run "
            "the same command again: it goes on from the last saved step."
        ) from error
