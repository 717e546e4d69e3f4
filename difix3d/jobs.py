"""Run a list of stages somewhere else than in a request: a child process whose events anybody can follow.

    job = start(scene, steps)          # returns at once; the child outlives the page and the server
    scene.events(offset)               # what it says
    cancel(scene, job.id)              # gone within two seconds
    keep(scene, job.id)                # its fit ends now, and the job goes on with what the fit has
    find(scene)                        # the latest job, with its true state
    resumable(scene)                   # the job whose steps are to be started again

`run_inline` is the same work in this process: the command line, tests, and ZeroGPU, where the GPU is lent to the
request. On disk a job is jobs/ID.json (rewritten as its state changes) and jobs/ID.log (its stderr).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difix3d.atomic import write_json
from difix3d.errors import Difix3DError, JobError
from difix3d.events import Event, Failed, Progress
from difix3d.machine import process_start
from difix3d.scene import Scene
from difix3d.stages import SCENE_STAGES, make_config, stage_function
from difix3d.turns import turn

RUNNING, DONE, FAILED, CANCELLED, LOST = "running", "done", "failed", "cancelled", "lost"

LOST_MESSAGE = (
    "The job ended without a word: it may have run out of memory, or the machine restarted. "
    "Finished stages are kept; start it again and it goes on from there."
)
CANCELLED_MESSAGE = "Cancelled. Finished stages are kept."
CRASH_MESSAGE = "Something went wrong inside the program ({error}). Finished stages are kept; the log has the details."
DISK_MESSAGE = "The disk is full. Finished stages are kept: make room, then start it again and it goes on from there."
MAKING = ("reconstruct", "fit")
"""A job with one of these makes the scene; others add to it."""
TURNS = ".turns"
"""Beside the scenes: see difix3d.turns."""
_SPAWN_SECONDS = 20.0
_TERM_SECONDS = 1.0


@dataclass(frozen=True)
class Step:
    """One stage and its settings, JSON-ready."""

    stage: str
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A run of steps in a scene. created: unix time; pid, pid_created (machine.process_start): of its process."""

    id: str
    steps: tuple[Step, ...]
    state: str
    created: float
    error: str = ""
    pid: int | None = None
    pid_created: float | None = None


def start(scene: Scene, steps: Sequence[Step], environment: Mapping[str, str] | None = None) -> Job:
    """Run `steps` in a detached child process. environment: variables that it gets besides ours; what they say is
    not written to disk, as settings are. JobError while another job of this scene runs; ConfigError for a setting that
    cannot be."""
    for step in steps:
        make_config(step.stage, step.config)
    job = Job(uuid.uuid4().hex[:12], tuple(steps), RUNNING, time.time())
    scene.jobs_dir.mkdir(exist_ok=True)
    _claim(scene, job.id)
    _save(scene, job)
    with (scene.jobs_dir / f"{job.id}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "difix3d.jobs", str(scene.root), job.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    # The parent writes the pid: the child may die before it can. Reaping it here keeps it from lingering as a zombie
    # that looks alive.
    job = dataclasses.replace(job, pid=child.pid, pid_created=process_start(child.pid))
    _save(scene, job)
    _children[child.pid] = child
    return job


_children: dict[int, subprocess.Popen[bytes]] = {}


def find(scene: Scene, job_id: str | None = None, having: Collection[str] = ()) -> Job | None:
    """The job of that id, or the latest one (having: of those with a step of one of these stages); its state is checked
    against the process. None where there is none."""
    paths = [scene.jobs_dir / f"{job_id}.json"] if job_id else sorted(scene.jobs_dir.glob("*.json"))
    jobs = [_load(path) for path in paths if path.is_file()]
    if having:
        jobs = [job for job in jobs if any(step.stage in having for step in job.steps)]
    if not jobs:
        return None
    job = max(jobs, key=lambda job: job.created)
    if job.state == RUNNING and not _alive(job):
        # The child may have finished between our two looks.
        job = _load(scene.jobs_dir / f"{job.id}.json")
        if job.state == RUNNING:
            job = _end_of_a_dead_one(scene, job)
    return job


def resumable(scene: Scene) -> Job | None:
    """The latest job that makes the scene (finds its cameras, fits its splats), where it ended before its last step,
    whatever ran since; else the latest job of all, where that did. None where they run, or came to their ends."""
    for job in (find(scene, having=MAKING), find(scene)):
        if job is not None and job.state in (FAILED, CANCELLED, LOST):
            return job
    return None


def cancel(scene: Scene, job_id: str) -> Job:
    """Stop a job's process, hard if need be; within two seconds. JobError for an unknown job."""
    job = find(scene, job_id)
    if job is None:
        raise JobError(f"There is no job {job_id!r} in this scene.")
    if job.state != RUNNING:
        return job
    # Said before it is done: a page that looks in between finds a dead process, and must not call it lost.
    _cancel_mark(scene, job).touch()
    _stop_process(job)
    # A job that finished just before the signal stays finished.
    job = _load(scene.jobs_dir / f"{job.id}.json")
    return _end_of_a_dead_one(scene, job) if job.state == RUNNING else job


def keep(scene: Scene, job_id: str) -> None:
    """End the fit that a job is at: it counts as finished, and the steps after it go on. Without effect on a job that
    is not fitting. JobError for an unknown job."""
    job = find(scene, job_id)
    if job is None:
        raise JobError(f"There is no job {job_id!r} in this scene.")
    if job.state == RUNNING:
        scene.enough_path.touch()


def run_inline(scene: Scene, steps: Sequence[Step], job_id: str = "") -> Iterator[Event]:
    """Run `steps` here, one after the other; every event is logged in the scene, then yielded.

    Errors are raised as they come, those of settings before the first stage; closing the generator closes the stage
    that is running.
    """
    configs = [make_config(step.stage, step.config) for step in steps]
    scene.sweep_partials()
    for step, config in zip(steps, configs):
        function = stage_function(step.stage)
        events = function(scene, config) if step.stage in SCENE_STAGES else function(config)
        with contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                scene.log(event, job_id)
                yield event


def main(scene_root: str, job_id: str) -> int:
    """The child process: run the job, then write how it ended."""
    scene = Scene(scene_root)
    path = scene.jobs_dir / f"{job_id}.json"
    deadline = time.monotonic() + _SPAWN_SECONDS
    while _load(path).pid != os.getpid():  # until the parent has written our pid, so that its write is not the last
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.02)
    job = _load(path)

    def waits(ahead: int) -> None:
        more = f"; {ahead} wait{'s' * (ahead == 1)} before this one" if ahead else ""
        scene.log(Progress(job.steps[0].stage, f"Waiting for the other jobs on this machine{more}"), job.id)

    try:
        with turn(scene.root.parent / TURNS, waits):
            for _ in run_inline(scene, job.steps, job.id):
                pass
    except Difix3DError as error:
        scene.log(Failed(_last_stage(scene, job), error.kind, error.message), job.id)
        _end(scene, job, FAILED, error.message)
        return 2
    except Exception as error:  # the one place where a bug becomes a message; its traceback is in the job's log
        traceback.print_exc()
        message = CRASH_MESSAGE.format(error=f"{type(error).__name__}: {error}"[:300])
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = DISK_MESSAGE
        with contextlib.suppress(OSError):  # the state is worth more than the line
            scene.log(Failed(_last_stage(scene, job), "Crash", message), job.id)
        _end(scene, job, FAILED, message)
        return 1
    _end(scene, job, DONE)
    return 0


def _claim(scene: Scene, job_id: str) -> None:
    """Make `job_id` the scene's running job, or raise: two tabs may press Start at once."""
    claim = scene.jobs_dir / "running"
    while True:
        try:
            with claim.open("x") as file:
                file.write(job_id)
            return
        except FileExistsError:
            owner = claim.read_text() if claim.is_file() else ""
            job = find(scene, owner) if owner else None
            if job is not None and job.state == RUNNING:
                raise JobError("A job is running in this scene already. Wait for it, or cancel it first.") from None
            if job is None and claim.is_file() and time.time() - claim.stat().st_mtime < _SPAWN_SECONDS:
                raise JobError("A job is just being started in this scene. Look again in a moment.") from None
            claim.unlink(missing_ok=True)


def _end_of_a_dead_one(scene: Scene, job: Job) -> Job:
    """The job, whose process is gone without having said how: cancelled, or lost. Of several that find it at once,
    one writes it down."""
    if _cancel_mark(scene, job).exists():
        state, kind, message = CANCELLED, "Cancelled", CANCELLED_MESSAGE
    else:
        state, kind, message = LOST, "Lost", LOST_MESSAGE
    try:
        (scene.jobs_dir / f"{job.id}.ended").open("x").close()
    except FileExistsError:
        return dataclasses.replace(job, state=state, error=message)
    stage = _last_stage(scene, job)
    job = _end(scene, job, state, message)
    scene.log(Failed(stage, kind, message), job.id)
    return job


def _cancel_mark(scene: Scene, job: Job) -> Path:
    return scene.jobs_dir / f"{job.id}.cancel"


def _end(scene: Scene, job: Job, state: str, error: str = "") -> Job:
    job = dataclasses.replace(job, state=state, error=error)
    _save(scene, job)
    claim = scene.jobs_dir / "running"
    if claim.is_file() and claim.read_text() == job.id:
        claim.unlink(missing_ok=True)
    return job


def _save(scene: Scene, job: Job) -> None:
    write_json(scene.jobs_dir / f"{job.id}.json", dataclasses.asdict(job))


def _load(path: Path) -> Job:
    data = json.loads(path.read_text())
    data["steps"] = tuple(Step(**step) for step in data["steps"])
    return Job(**data)


def _last_stage(scene: Scene, job: Job) -> str:
    """The stage that the job's last event was of: where it ended."""
    stage, finished = job.steps[0].stage, 0
    for _, _, job_id, event in scene.events():
        if job_id == job.id:
            stage = event.stage
            finished += type(event).__name__ == "Done"
    return job.steps[finished].stage if finished < len(job.steps) else stage


def _alive(job: Job) -> bool:
    """Whether the job's process runs; a reused pid has another creation time."""
    import psutil

    if job.pid is None:
        return time.time() - job.created < _SPAWN_SECONDS
    child = _children.get(job.pid)
    if child is not None and child.poll() is not None:
        return False
    try:
        began = process_start(job.pid)
        same = began is not None and (job.pid_created is None or abs(began - job.pid_created) < 1.0)
        return same and psutil.Process(job.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _stop_process(job: Job) -> None:
    import psutil

    if job.pid is None or not _alive(job):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(job.pid)
        family = [*process.children(recursive=True), process]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.terminate()
        _, stubborn = psutil.wait_procs(family, timeout=_TERM_SECONDS)
        for member in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(stubborn, timeout=_TERM_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
