"""The fixers there are. `load_fixer` takes a name of the table, a checkpoint folder or a Hub id, the latter two also
after "guided:"."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from difix3d.errors import FixerError
from difix3d.fixers.base import Fixer

FIXERS: dict[str, str] = {
    "lite": "difix3d.fixers.lite.fixer:LiteFixer",
    "reproject": "difix3d.fixers.reproject:ReprojectFixer",
    "difix": "difix3d.fixers.difix.fixer:DifixFixer",
    "difix-guided": "difix3d.fixers.difix.guided:GuidedDifixFixer",
}
"""name -> "module:Class". The class is called with no arguments, or with a checkpoint where one was named."""

DEFAULT_FIXER = "lite"
"""On a GPU too: the published weights of Difix are 5 GB and non-commercial, so a person chooses them knowingly."""

GUIDED = "guided:"
"""Before a checkpoint of Difix: it starts from photos carried into the frame, not from the raw render."""


def load_fixer(name: str) -> Fixer:
    """The fixer called `name`: one of FIXERS, a checkpoint folder of Difix or lite, or a Hub id "owner/model".
    "guided:" may stand before a folder or id of Difix: see fixers/difix/guided.py.

    Raises FixerError for a name that is none of these, CheckpointError for a checkpoint that does not fit.
    """
    if name in FIXERS:
        return _class_of(name)()
    checkpoint = checkpoint_of(name)
    if name != checkpoint and (Path(checkpoint) / "lite.safetensors").is_file():
        raise FixerError(f"{checkpoint} is of lite, which starts from photos anyway. Name it without {GUIDED!r}.")
    if checkpoint and name != checkpoint and (Path(checkpoint).is_dir() or checkpoint.count("/") == 1):
        return _class_of("difix-guided")(checkpoint)
    if (Path(name) / "lite.safetensors").is_file():
        return import_module("difix3d.fixers.lite.checkpoint").TunedLite(name)
    if Path(name).is_dir() or name.count("/") == 1:
        return _class_of("difix")(name)
    raise FixerError(
        f"There is no fixer {name!r}. Choose one of {', '.join(FIXERS)}, a checkpoint folder, or a Hub id owner/model."
    )


def checkpoint_of(name: str) -> str:
    """The checkpoint that `name` speaks of, be it guided or not."""
    return name.removeprefix(GUIDED)


def _class_of(name: str):
    module, _, cls = FIXERS[name].partition(":")
    return getattr(import_module(module), cls)
