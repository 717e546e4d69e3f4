"""What a running stage says: four small messages for the app, the command line and the log alike.

A stage yields Progress, Artifact and Warned as it goes. The stage runner adds Done at its end; Failed is written
by the job when a Difix3DError (or a crash) ends it. Each becomes one JSON line of a scene's events.jsonl.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Progress:
    """`done` of `total` `unit`s of `message` are finished (total 0: unknown).

    figures: numbers worth plotting, such as {"seconds": 12.1, "psnr": 24.3, "splats": 21000}.
    """

    stage: str
    message: str
    done: float = 0
    total: float = 0
    unit: str = ""
    seconds_left: float | None = None
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A file worth looking at now. path: relative to the scene folder.

    kind: keyframes | sparse | preview | splats | frame | video | report
    """

    stage: str
    kind: str
    path: str
    caption: str = ""


@dataclass(frozen=True)
class Warned:
    """Something a person should know; the stage goes on."""

    stage: str
    message: str


@dataclass(frozen=True)
class Done:
    """The stage is complete; its manifest is on disk. outputs: paths relative to the scene folder."""

    stage: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    skipped: bool = False


@dataclass(frozen=True)
class Failed:
    """The job ended here. kind: the error's class name, or "Crash" or "Cancelled"."""

    stage: str
    kind: str
    message: str


Event = Progress | Artifact | Warned | Done | Failed
_TYPES: dict[str, type] = {cls.__name__: cls for cls in (Progress, Artifact, Warned, Done, Failed)}


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON-ready data, with its type under "event"."""
    return {"event": type(event).__name__, **asdict(event)}


def from_json(data: dict[str, Any]) -> Event:
    """The inverse of to_json; fields that this version does not know are dropped."""
    cls = _TYPES[data["event"]]
    known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
    if "outputs" in known:
        known["outputs"] = tuple(known["outputs"])
    return cls(**known)
