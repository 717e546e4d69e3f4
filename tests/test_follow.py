"""What the progress panel shows is what the job's events say, also when they come in pieces."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from difix3d import jobs
from difix3d.events import Artifact, Done, Failed, Progress, Warned
from difix3d.formats.image import write_rgb
from difix3d.jobs import Job, Step
from difix3d.machine import process_start
from difix3d.scene import Scene
from difix3d.ui.follow import Follower, panel

STEPS = (Step("ingest", {}), Step("fit", {}), Step("render", {"trajectory": "orbit"}))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene.create(tmp_path / "court")


def begin(scene: Scene, job_id: str = "one", created: float = 1.0, state: str = jobs.DONE) -> None:
    scene.jobs_dir.mkdir(exist_ok=True)
    jobs._save(scene, Job(job_id, STEPS, state, created))


def look(follower: Follower, scene: Scene) -> dict:
    job, followed = follower.look(scene)
    return panel(job, followed, scene, lambda path: f"media/{path.name}")


def test_steps_bars_pictures_and_curve(scene: Scene) -> None:
    begin(scene)
    write_rgb(scene.previews_dir / "fit.jpg", np.zeros((8, 8, 3), np.uint8))
    scene.log(Progress("ingest", "Reading photos", 3, 9, "photos", 2.0), "one")
    scene.log(Warned("ingest", "Skipped a.jpg: empty"), "one")
    follower = Follower()
    now = look(follower, scene)
    assert [row["state"] for row in now["rows"]] == ["running", "waiting", "waiting"]
    assert now["rows"][0]["done"] == 3 and now["rows"][0]["seconds_left"] == 2.0
    assert now["rows"][2]["label"] == "Render a new path: orbit"

    scene.log(Done("ingest", 4.5), "one")
    for second in (1.0, 2.0):
        figures = {"seconds": second, "psnr": 20 + second, "splats": 100}
        scene.log(Progress("fit", "Fitting", second, 30, "s", 3.0, figures), "one")
    scene.log(Artifact("fit", "preview", "previews/fit.jpg", "now"), "one")
    scene.log(Progress("fit", "other job", 9, 9), "another")
    now = look(follower, scene)
    assert now == look(Follower(), scene)  # in pieces or at once
    assert [row["state"] for row in now["rows"]] == ["done", "running", "waiting"]
    assert not now["fitting"]  # the job has ended
    assert now["rows"][0]["seconds"] == 4.5 and now["curve"] == [[1.0, 21.0], [2.0, 22.0]] and now["splats"] == 100
    assert now["pictures"] == [{"kind": "preview", "url": "media/fit.jpg", "caption": "now"}]
    assert now["warnings"] == ["Skipped a.jpg: empty"]


@pytest.mark.parametrize(("kind", "state"), [("Cancelled", "stopped"), ("CaptureError", "failed")])
def test_how_a_job_ended(scene: Scene, kind: str, state: str) -> None:
    begin(scene)
    scene.log(Done("ingest", 1.0, skipped=True), "one")
    scene.log(Failed("fit", kind, "why"), "one")
    now = look(Follower(), scene)
    assert [row["state"] for row in now["rows"]] == ["done", state, "waiting"] and now["error"] == "why"
    assert now["rows"][0]["skipped"]


def test_a_new_job_replaces_the_old_one(scene: Scene) -> None:
    follower = Follower()
    assert follower.look(scene) is None
    begin(scene)
    scene.log(Failed("ingest", "Crash", "old"), "one")
    assert look(follower, scene)["error"] == "old"
    begin(scene, "two", created=2.0)
    scene.log(Progress("ingest", "Reading", 1, 2), "two")
    now = look(follower, scene)
    assert now["job"] == "two" and now["error"] == "" and now["rows"][0]["state"] == "running"


def test_a_picture_outside_the_scene_is_refused(scene: Scene) -> None:
    begin(scene)
    scene.log(Artifact("fit", "preview", "../../secret.png"), "one")
    with pytest.raises(Exception, match="out of the scene"):
        look(Follower(), scene)


def test_a_job_that_made_the_scene_can_be_gone_on_with_whatever_ran_since(scene: Scene) -> None:
    follower = Follower()
    begin(scene, "one", 1.0, jobs.CANCELLED)
    assert look(follower, scene)["resumable"]
    export = Job("two", (Step("export", {}),), jobs.DONE, 2.0)
    jobs._save(scene, export)
    assert look(follower, scene)["resumable"] and jobs.resumable(scene).id == "one"
    jobs._save(scene, dataclasses.replace(export, state=jobs.FAILED))
    assert jobs.resumable(scene).id == "one"
    created = process_start(os.getpid())
    jobs._save(scene, dataclasses.replace(export, state=jobs.RUNNING, pid=os.getpid(), pid_created=created))
    assert not look(follower, scene)["resumable"]  # one job at a time
    begin(scene, "three", 3.0, jobs.DONE)
    assert not look(follower, scene)["resumable"] and jobs.resumable(scene) is None
    jobs._save(scene, Job("four", (Step("finetune", {}),), jobs.CANCELLED, 4.0))
    assert look(follower, scene)["resumable"] and jobs.resumable(scene).id == "four"


def test_only_a_running_fit_with_splats_can_be_kept(scene: Scene) -> None:
    scene.jobs_dir.mkdir()
    created = process_start(os.getpid())
    jobs._save(scene, Job("one", STEPS, jobs.RUNNING, 1.0, "", os.getpid(), created))
    follower = Follower()
    fitting = []
    for event in (
        Done("ingest", 1.0),
        Progress("fit", "Loading photos"),
        Progress("fit", "Fitting", 1.0, 30, "s", 29.0, {"splats": 100}),
        Done("fit", 30.0),
        Progress("render", "Rendering", 1, 2),
    ):
        scene.log(event, "one")
        fitting.append(look(follower, scene)["fitting"])
    assert fitting == [False, False, True, False, False]
