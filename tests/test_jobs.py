"""Jobs are real child processes: they finish, fail in words, are cancelled within two seconds, and may be killed."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from difix3d import jobs
from difix3d.errors import ConfigError, FixerError, JobError
from difix3d.events import Done, Failed
from difix3d.jobs import CANCELLED, DONE, FAILED, LOST, RUNNING, Step
from difix3d.machine import process_start
from difix3d.scene import Scene


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Twelve different noisy photos, big enough that decoding them takes a while."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        noise = rng.integers(0, 255, (2400, 3200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png", compress_level=1)
    return folder


@pytest.fixture
def scene(tmp_path) -> Scene:
    return Scene.create(tmp_path / "scene")


def wait(scene: Scene, job_id: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = jobs.find(scene, job_id)
        if job.state != RUNNING:
            return job
        time.sleep(0.05)
    raise AssertionError(f"job still running after {seconds} s: {(scene.jobs_dir / f'{job_id}.log').read_text()}")


def wait_for_first_event(scene: Scene, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not list(scene.events()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_runs_in_another_process_and_is_followed_by_its_events(scene: Scene, photos: Path) -> None:
    steps = [Step("ingest", {"capture": [str(photos)]})]
    job = jobs.start(scene, steps)
    assert job.pid != os.getpid() and job.state == RUNNING
    with pytest.raises(JobError, match="running in this scene already"):
        jobs.start(scene, steps)
    assert wait(scene, job.id).state == DONE
    *_, last = [event for _, _, job_id, event in scene.events() if job_id == job.id]
    assert isinstance(last, Done) and last.figures["photos"] == 12
    again = jobs.start(scene, steps)
    assert wait(scene, again.id).state == DONE
    *_, last = [event for _, _, job_id, event in scene.events() if job_id == again.id]
    assert last.skipped


def test_bad_input_ends_the_job_in_words(scene: Scene, tmp_path) -> None:
    (tmp_path / "empty.mp4").touch()
    job = jobs.start(scene, [Step("ingest", {"capture": [str(tmp_path / "empty.mp4")]})])
    job = wait(scene, job.id)
    assert job.state == FAILED and "Traceback" not in job.error
    *_, (_, _, _, last) = scene.events()
    assert isinstance(last, Failed) and last.kind == "CaptureError" and last.message == job.error


def test_cancel_stops_the_process_within_two_seconds(scene: Scene, photos: Path) -> None:
    job = jobs.start(scene, [Step("ingest", {"capture": [str(photos)]})])
    wait_for_first_event(scene)
    started = time.monotonic()
    cancelled = jobs.cancel(scene, job.id)
    assert time.monotonic() - started < 2.0
    assert cancelled.state == CANCELLED
    with pytest.raises(ProcessLookupError):
        os.kill(job.pid, 0)
    assert scene.manifest("ingest") is None
    assert jobs.start(scene, job.steps).state == RUNNING  # and the scene is free again
    jobs.cancel(scene, jobs.find(scene).id)


def test_a_killed_job_is_told_as_lost_and_can_be_started_again(scene: Scene, photos: Path) -> None:
    job = jobs.start(scene, [Step("ingest", {"capture": [str(photos)]})])
    wait_for_first_event(scene)
    os.kill(job.pid, signal.SIGKILL)
    assert wait(scene, job.id).state == LOST
    *_, (_, _, _, last) = scene.events()
    assert isinstance(last, Failed) and last.kind == "Lost" and last.stage == "ingest"
    again = jobs.start(scene, job.steps)
    assert wait(scene, again.id).state == DONE


def test_a_clock_that_is_set_anew_loses_no_job_and_a_number_used_again_is_another(
    scene: Scene, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a laptop slept, say: when a process began is then told another time of day."""
    job = jobs.start(scene, [Step("ingest", {"capture": [str(photos)]})])
    plain = psutil.Process.create_time
    with monkeypatch.context() as patched:
        patched.setattr(psutil.Process, "create_time", lambda process: plain(process) + 3600)
        patched.setattr(jobs, "_children", {})  # as after a restart of the server
        assert jobs.find(scene).state == RUNNING
    jobs.cancel(scene, job.id)
    mine = process_start(os.getpid())
    assert mine is not None and process_start(2**22 + 1) is None
    for began, alive in ((mine, True), (mine - 60, False), (None, True)):
        assert jobs._alive(dataclasses.replace(job, pid=os.getpid(), pid_created=began)) is alive


def test_a_full_disk_is_called_so_and_the_job_has_an_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.jobs_dir.mkdir()
    jobs._save(scene, jobs.Job("one", (Step("ingest"),), RUNNING, 1.0, "", os.getpid()))
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_: object) -> Iterator[None]:
        raise full
        yield

    def no_room(*_: object) -> None:
        raise full

    monkeypatch.setattr(jobs, "run_inline", fails)
    monkeypatch.setattr(Scene, "log", no_room)
    assert jobs.main(str(scene.root), "one") == 1
    job = jobs.find(scene, "one")
    assert job.state == FAILED and job.error.startswith("The disk is full")


def test_settings_that_cannot_be_are_told_before_anything_starts(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="no setting 'capture_folder'"):
        jobs.start(scene, [Step("ingest", {"capture_folder": "x"})])
    with pytest.raises(ConfigError, match="no stage 'dance'"):
        jobs.start(scene, [Step("dance")])
    with pytest.raises(FixerError, match="no fixer 'lit'"):
        jobs.start(scene, [Step("ingest"), Step("fix", {"fixer": "lit"})])
    with pytest.raises(ConfigError, match="no trajectory 'orbt'"):
        jobs.start(scene, [Step("ingest"), Step("render", {"trajectory": "orbt"})])
    assert jobs.find(scene) is None


def test_a_jobs_own_environment_reaches_it_and_is_not_written_down(scene: Scene, tmp_path) -> None:
    (tmp_path / "scenes").mkdir()
    secret = tmp_path / "pass-word" / "ratings.sqlite"
    steps = [Step("export", {"out": str(tmp_path / "out"), "scenes": str(tmp_path / "scenes")})]
    job = jobs.start(scene, steps, {"DIFIX3D_RATINGS_DB": f"sqlite:///{secret}"})
    job = wait(scene, job.id)
    assert job.state == FAILED and "Nothing to export" in job.error
    assert secret.is_file(), "the child opened another database"
    assert "pass-word" not in (scene.jobs_dir / f"{job.id}.json").read_text()


def test_a_job_that_is_cancelled_while_others_look_is_not_called_lost(scene: Scene, photos: Path) -> None:
    job = jobs.start(scene, [Step("ingest", {"capture": [str(photos)]})])
    wait_for_first_event(scene)
    seen, stop = set(), threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.add(jobs.find(scene, job.id).state)

    watchers = [threading.Thread(target=look) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    assert jobs.cancel(scene, job.id).state == CANCELLED
    stop.set()
    for watcher in watchers:
        watcher.join()
    assert jobs.find(scene, job.id).state == CANCELLED and seen <= {RUNNING, CANCELLED}
    ends = [event for *_, event in scene.events() if isinstance(event, Failed)]
    assert [event.kind for event in ends] == ["Cancelled"]
