"""The stages there are, by name. Modules are imported at use: each is light, its backends are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from difix3d.errors import ConfigError
from difix3d.events import Event

SCENE_STAGES = ("ingest", "reconstruct", "fit", "render", "fix", "evaluate", "report")
"""Run on a scene, in this order: `fit(scene, config)`."""

STUDIO_STAGES = ("export", "finetune", "campaign", "pairs", "convert")
"""Run on several scenes or none: `export(config)`."""


def stage_function(name: str) -> Callable[..., Iterator[Event]]:
    """The generator function of a stage. ConfigError for a name that is none."""
    return getattr(_module(name), name)


def config_class(name: str) -> type:
    """The frozen dataclass of a stage's settings."""
    return getattr(_module(name), f"{name.capitalize()}Config")


def make_config(name: str, settings: dict[str, Any]) -> Any:
    """A stage's config from JSON-ready settings; ConfigError names an unknown or impossible one, and a field's own
    check raises what it raises."""
    cls = config_class(name)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for setting, value in settings.items():
        if setting not in fields:
            raise ConfigError(f"{name} has no setting {setting!r}; it has {', '.join(fields)}")
        _check(name, setting, value, fields[setting].metadata)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    try:
        return cls(**settings)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from error


def _check(name: str, setting: str, value: Any, bounds: Any) -> None:
    choices, minimum, maximum = bounds.get("choices"), bounds.get("minimum"), bounds.get("maximum")
    if choices and value not in choices:
        raise ConfigError(f"{name}: {setting} is {value!r}; choose one of {', '.join(map(str, choices))}")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{name}: {setting} is {value}; at least {minimum} is needed")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{name}: {setting} is {value}; at most {maximum} is allowed")
    if check := bounds.get("check"):
        check(value)


def _module(name: str):
    if name not in SCENE_STAGES + STUDIO_STAGES:
        raise ConfigError(f"There is no stage {name!r}. Choose one of {', '.join(SCENE_STAGES + STUDIO_STAGES)}.")
    return import_module(f"difix3d.stages.{name}")
