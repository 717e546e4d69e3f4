"""What a scene's newest job is doing, folded from its events: the state behind the progress panel.

Every tab of every visitor asks once a second, so what was folded is kept and only new lines are read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from difix3d import jobs
from difix3d.events import Artifact, Done, Event, Failed, Progress, Warned
from difix3d.scene import Scene
from difix3d.trajectories import HELDOUT

LABELS = {
    "ingest": "Read the photos",
    "reconstruct": "Find the cameras",
    "fit": "Fit the splats",
    "render": "Render a new path",
    "fix": "Fix the frames",
    "evaluate": "Compare with kept-out photos",
    "report": "Write the report",
    "export": "Write the dataset",
    "finetune": "Fine-tune",
    "campaign": "Old against new",
}
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
_MAX_CURVE = 240


@dataclass
class Row:
    """One step of the job, as the panel shows it."""

    stage: str
    label: str
    state: str = WAITING
    message: str = ""
    done: float = 0
    total: float = 0
    unit: str = ""
    seconds_left: float | None = None
    seconds: float | None = None
    skipped: bool = False


@dataclass
class Followed:
    """A job, step by step. pictures: kind -> path in the scene; curve: [seconds, PSNR] of the fit."""

    job_id: str
    rows: list[Row]
    current: int = 0
    offset: int = 0
    warnings: list[str] = field(default_factory=list)
    pictures: dict[str, tuple[str, str]] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    splats: int = 0
    error: str = ""

    @property
    def fitting(self) -> bool:
        """Whether splats are being fitted: there is something to keep by now."""
        row = self.rows[min(self.current, len(self.rows) - 1)]
        return row.stage == "fit" and row.state == RUNNING and self.splats > 0

    def take(self, event: Event) -> None:
        """Fold one event of this job."""
        row = self.rows[min(self.current, len(self.rows) - 1)]
        if isinstance(event, Progress):
            row.state, row.message = RUNNING, event.message
            row.done, row.total, row.unit, row.seconds_left = event.done, event.total, event.unit, event.seconds_left
            self._plot(event)
        elif isinstance(event, Artifact):
            self.pictures[event.kind] = (event.path, event.caption)
        elif isinstance(event, Warned):
            self.warnings.append(event.message)
        elif isinstance(event, Done):
            row.state, row.seconds, row.skipped, row.message = DONE, event.seconds, event.skipped, ""
            self.current += 1
        elif isinstance(event, Failed):
            row.state = STOPPED if event.kind == "Cancelled" else FAILED
            self.error = event.message

    def _plot(self, event: Progress) -> None:
        if "splats" in event.figures:
            self.splats = int(event.figures["splats"])
        if event.stage == "fit" and "psnr" in event.figures:
            self.curve.append([event.figures["seconds"], event.figures["psnr"]])
            del self.curve[:-_MAX_CURVE]


class Follower:
    """Keeps what was folded of each scene's newest job."""

    def __init__(self) -> None:
        self._followed: dict[str, Followed] = {}
        self._lock = threading.Lock()

    def look(self, scene: Scene) -> tuple[jobs.Job, Followed] | None:
        """The newest job and where it is; None where nothing ran yet."""
        job = jobs.find(scene)
        if job is None:
            return None
        key = str(scene.root)
        with self._lock:
            followed = self._followed.get(key)
            if followed is None or followed.job_id != job.id:
                followed = self._followed[key] = Followed(job.id, [_row(step) for step in job.steps])
            for offset, _, job_id, event in scene.events(followed.offset):
                followed.offset = offset
                if job_id == job.id:
                    followed.take(event)
            return job, followed


def _row(step: jobs.Step) -> Row:
    label = LABELS[step.stage]
    trajectory = step.config.get("trajectory")
    if trajectory == HELDOUT and step.stage == "render":
        return Row(step.stage, "Render where kept-out photos were taken")
    return Row(step.stage, f"{label}: {trajectory}" if trajectory else label)


def panel(job: jobs.Job, followed: Followed, scene: Scene, url: Any) -> dict[str, Any]:
    """JSON for the panel. url: gives a file's address."""
    pictures = []
    for kind, (relative, caption) in followed.pictures.items():
        path = scene.inside(relative)
        if path.suffix in (".jpg", ".png") and path.is_file():
            pictures.append({"kind": kind, "url": url(path), "caption": caption})
    return {
        "job": job.id,
        "state": job.state,
        "error": followed.error or job.error,
        "rows": [vars(row) for row in followed.rows],
        "warnings": followed.warnings[-6:],
        "more_warnings": max(0, len(followed.warnings) - 6),
        "pictures": pictures,
        "curve": followed.curve,
        "splats": followed.splats,
        "fitting": job.state == jobs.RUNNING and followed.fitting,
        "resumable": job.state != jobs.RUNNING and jobs.resumable(scene) is not None,
    }
