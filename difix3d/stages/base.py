"""What makes a generator a stage: skipped when nothing changed, and its manifest written last.

    @stage("fit", inputs=("images", "sparse"), outputs=("splats.ply", "split.json"))
    def fit(scene, config) -> Iterator[Event]: ...

A stage yields events, saves its outputs atomically, and may `return` a dict of figures. The wrapper yields Done.
Closing the generator (cancel) leaves the previous state, and so the previous manifest or none.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import difix3d
from difix3d.atomic import write_json
from difix3d.events import Done, Event, Warned
from difix3d.scene import Scene


class StageConfig(Protocol):
    """A frozen dataclass: command-line flags, form in the app and saved manifest at once."""

    __dataclass_fields__: Any


Names = tuple[str, ...] | Callable[[Scene, Any], tuple[str, ...]]
StageBody = Callable[[Scene, Any], Generator[Event, None, dict[str, Any] | None]]


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A config field: its default, its help text, and optionally choices=(...), minimum=, maximum=, check=.

    check is called with a value and raises where that cannot be. It is quick: settings are checked before a job starts.
    """
    if isinstance(default, list):
        raise TypeError("use a tuple: configs are frozen")
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


def stage(
    name: str,
    inputs: Names,
    outputs: Names,
    key: Callable[[Any], str] = lambda config: "",
    version: int = 1,
) -> Callable[[StageBody], Callable[[Scene, Any], Iterator[Event]]]:
    """Turn a generator into a stage.

    inputs, outputs: names inside the scene, or a function of (scene, config) that gives them.
    key: distinguishes manifests of one stage run several ways (a trajectory, a fixer).
    version: raised where the same inputs come to give other outputs; what was made before is made anew then.
    """

    def decorate(body: StageBody) -> Callable[[Scene, Any], Iterator[Event]]:
        @functools.wraps(body)
        def run(scene: Scene, config: Any) -> Iterator[Event]:
            manifest_path = scene.manifest_path(name, key(config))
            input_names = inputs(scene, config) if callable(inputs) else inputs
            output_names = outputs(scene, config) if callable(outputs) else outputs
            settings = _jsonable(dataclasses.asdict(config))
            hashes = scene.hash_inputs(list(input_names))

            previous = scene.manifest(name, key(config))
            if (
                previous
                and previous["config"] == settings
                and previous["inputs"] == hashes
                and previous.get("version", 1) == version
                and all((scene.root / output).exists() for output in previous["outputs"])
            ):
                yield Done(name, previous["seconds"], previous["figures"], tuple(previous["outputs"]), skipped=True)
                return

            started = time.monotonic()
            warnings: list[str] = []
            body_events = body(scene, config)
            try:
                while True:
                    event = next(body_events)
                    if isinstance(event, Warned):
                        warnings.append(event.message)
                    yield event
            except StopIteration as end:
                figures = _jsonable(end.value or {})
            finally:
                body_events.close()

            seconds = round(time.monotonic() - started, 2)
            write_json(
                manifest_path,
                {
                    "stage": name,
                    "version": version,
                    "config": settings,
                    "inputs": hashes,
                    "outputs": list(output_names),
                    "figures": figures,
                    "seconds": seconds,
                    "warnings": warnings,
                    "versions": {"difix3d": difix3d.__version__, "python": platform.python_version()},
                },
            )
            yield Done(name, seconds, figures, tuple(output_names))

        return run

    return decorate


def _jsonable(value: Any) -> Any:
    """Tuples become lists and numpy numbers become Python's, as a JSON round trip would have it."""
    if isinstance(value, dict):
        return {str(name): _jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        return value.item()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return str(value)
