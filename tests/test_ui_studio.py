"""Who may see and change which scene, and that nothing a browser sends leads anywhere else."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from rating_votes import candidate

from difix3d import cli, jobs
from difix3d.errors import ConfigError, JobError, SceneError
from difix3d.events import Progress
from difix3d.jobs import Job, Step
from difix3d.machine import process_start
from difix3d.ratings.identity import canonical_pair
from difix3d.scene import Scene
from difix3d.types import Rating
from difix3d.ui import abandoned, page
from difix3d.ui import studio as studio_module
from difix3d.ui.rating.people import Who
from difix3d.ui.studio import FREE_DISK_BYTES, Studio, owner_key


@pytest.fixture
def uploads(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "one" / "a.jpg", tmp_path / "two" / "a.jpg", tmp_path / "two" / "b.jpg"]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]))
    return paths


def make(tmp_path: Path, public: bool) -> Studio:
    return Studio(tmp_path / "scenes", f"sqlite:///{tmp_path / 'ratings.sqlite'}", public=public)


def running(scene: Scene) -> None:
    """A job file whose process is this one."""
    scene.jobs_dir.mkdir()
    created = process_start(os.getpid())
    jobs._save(scene, Job("one", (Step("ingest", {}),), jobs.RUNNING, 1.0, "", os.getpid(), created))


def test_uploads_are_kept_under_different_names_and_in_order(tmp_path: Path, uploads: list[Path]) -> None:
    studio = make(tmp_path, public=False)
    scene = studio.new_scene("My walk / garden", "ann", uploads)
    assert [Path(path).read_bytes() for path in studio.uploads_of(scene)] == [b"\0", b"\1", b"\2"]
    assert scene.id == "My-walk-garden" and scene.info["name"] == "My walk / garden"
    assert studio.new_scene("My walk / garden", "ann", uploads).id == "My-walk-garden-2"
    uploads[0].unlink()  # a browser's upload does not stay; the scene's copy does
    assert Path(studio.uploads_of(scene)[0]).read_bytes() == b"\0"


def test_on_ones_own_machine_all_scenes_are_ones_own(tmp_path: Path, uploads: list[Path]) -> None:
    studio = make(tmp_path, public=False)
    scene = studio.new_scene("walk", "ann", uploads)
    assert [each.id for each in studio.scenes_of("bob")] == ["walk"]
    assert studio.open_scene("walk", "bob").root == scene.root and studio.may_change(scene, "bob")


def test_strangers_do_not_see_each_others_scenes(tmp_path: Path, uploads: list[Path]) -> None:
    studio = make(tmp_path, public=True)
    anns, bobs = studio.new_scene("walk", "ann", uploads), studio.new_scene("walk", "bob", uploads)
    hosts = Scene.create(studio.scenes_root / "shown", "shown")
    assert {scene.id for scene in studio.scenes_of("ann")} == {anns.id, "shown"}
    with pytest.raises(SceneError, match="There is no scene"):
        studio.open_scene(bobs.id, "ann")
    with pytest.raises(SceneError, match="There is no scene"):
        studio.open_scene(anns.id, "")
    with pytest.raises(SceneError, match="not yours"):
        studio.delete_scene(bobs, "ann")
    for scene in (hosts, bobs):
        with pytest.raises(JobError, match="Make one of your own"):
            studio.start_job(scene, "ann", [Step("ingest", {"capture": studio.uploads_of(bobs)})])
    assert "ann" not in (anns.root / "scene.json").read_text()
    assert anns.info["owner"] == owner_key("ann") != owner_key("bob")


def test_a_visitor_of_a_public_server_has_one_job_at_a_time(tmp_path: Path, uploads: list[Path]) -> None:
    studio = make(tmp_path, public=True)
    first, second = studio.new_scene("one", "ann", uploads), studio.new_scene("two", "ann", uploads)
    running(first)
    with pytest.raises(JobError, match="'one' is still running"):
        studio.start_job(second, "ann", [Step("ingest", {"capture": studio.uploads_of(second)})])
    with pytest.raises(JobError, match="Cancel it first"):
        studio.delete_scene(first, "ann")
    studio.delete_scene(second, "ann")
    assert not second.root.exists()


def test_scenes_that_were_left_make_room_on_a_full_disk_and_no_others(
    tmp_path: Path, uploads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make(tmp_path, public=True)
    names = ("oldest", "older", "rated", "running", "opened", "new")
    scenes = {name: studio.new_scene(name, "ann", uploads) for name in names}
    scenes["hosts"] = Scene.create(studio.scenes_root / "hosts", "hosts")
    pair = canonical_pair(*(candidate(fixer, scene_id=scenes["rated"].id) for fixer in ("render", "lite")))
    studio.store.add(Rating(*pair, "a", "a", "bob", seconds=2.5), "one")
    running(scenes["running"])
    for days, name in enumerate(("older", "rated", "running", "opened", "hosts", "oldest"), start=20):
        for path in (*scenes[name].root.iterdir(), scenes[name].root):
            os.utime(path, (time.time() - days * 86400,) * 2)
    studio.open_scene(scenes["opened"].id, "ann")

    def gone() -> set[str]:
        return {name for name, scene in scenes.items() if not scene.root.exists()}

    room = FREE_DISK_BYTES
    monkeypatch.setattr(abandoned, "free_disk_bytes", lambda place: room * len(gone()))
    monkeypatch.setattr(studio_module, "free_disk_bytes", lambda place: room * len(gone()))
    monkeypatch.setenv(abandoned.VARIABLE, "0")
    with pytest.raises(SceneError, match="GB of disk left"):
        studio.new_scene("walk", "bob", uploads)
    monkeypatch.delenv(abandoned.VARIABLE)
    assert studio.new_scene("walk", "bob", uploads).root.is_dir() and gone() == {"oldest"}, "no more than is needed"
    room = FREE_DISK_BYTES // 100
    with pytest.raises(SceneError, match="GB of disk left"):
        studio.new_scene("walk", "bob", uploads)
    assert gone() == {"oldest", "older"}


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_days_unused_are_a_number(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(abandoned.VARIABLE, said)
    with pytest.raises(ConfigError, match="expected a number of days"):
        abandoned.unused_days()


def test_the_name_of_a_deleted_scene_is_not_given_again(
    tmp_path: Path, uploads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make(tmp_path, public=False)
    for number in ("", "-2", "-3"):
        scene = studio.new_scene("one", "ann", uploads)
        assert scene.id == f"one{number}"
        studio.delete_scene(scene, "ann")
    monkeypatch.setenv("DIFIX3D_SCENES", str(studio.scenes_root))
    assert cli._scene_for([str(uploads[0].parent)], None)[0].id == "one-4"


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", "", ".studio-secret", ".server-secret", "x" * 200])
def test_no_name_from_a_browser_leads_out_of_the_scenes(tmp_path: Path, name: str) -> None:
    Scene.create(tmp_path / "secret", "secret")
    with pytest.raises(SceneError):
        make(tmp_path, public=False).open_scene(name, "ann")


def test_only_fixers_that_are_offered_can_be_chosen(tmp_path: Path, shared: Path) -> None:
    studio = make(tmp_path, public=False)
    assert studio.fixer("reproject").licence == "Apache-2.0" and "NVIDIA" in studio.fixer("difix").licence
    elsewhere = shared / "golden" / "checkpoint_difix_ref"
    with pytest.raises(SceneError, match="Choose one from the list"):
        studio.fixer(str(elsewhere))
    shutil.copytree(elsewhere, studio.checkpoints_root / "mine")
    choice = studio.fixer(str(studio.checkpoints_root / "mine"))
    assert choice.own and choice.label == "mine (trained here)"


def test_published_fixers_are_offered_with_their_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFIX3D_FIXER", raising=False)
    offered = {offer.name: offer for offer in make(tmp_path, public=False).fixers()}
    assert {"reproject", "difix", "nvidia/difix"} <= set(offered)
    assert all("non-commercial" in offered[name].licence for name in ("difix", "nvidia/difix"))


def test_who_stops_a_download_stops_their_own_and_it_lets_go_of_what_it_held(tmp_path: Path) -> None:
    studio, closed = make(tmp_path, public=False), []

    def endless(name: str):
        try:
            while True:
                yield Progress("fix", name)
        finally:
            closed.append(name)

    anns, bobs = studio.stoppable("ann fix", endless("ann")), studio.stoppable("bob fix", endless("bob"))
    next(anns), next(bobs)
    studio.stop("ann fix")
    studio.stop("nobody")
    with pytest.raises(JobError, match="the next time it goes on from there"):
        next(anns)
    assert closed == ["ann"] and next(bobs).message == "bob"


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, uploads: list[Path], monkeypatch) -> None:
    studio = make(tmp_path, public=False)
    monkeypatch.setattr(studio_module, "FREE_DISK_BYTES", 2**60)
    with pytest.raises(SceneError, match="of disk left"):
        studio.new_scene("walk", "ann", uploads)
    assert studio.scenes_of("ann") == []


def test_the_servers_secret_survives_a_restart(tmp_path: Path) -> None:
    first = make(tmp_path, public=False)
    assert first.secret == make(tmp_path, public=False).secret and len(first.secret) == 32
    assert (first.scenes_root / ".server-secret").stat().st_mode & 0o077 == 0


def test_browsers_get_a_key_that_survives_a_restart_and_never_the_servers_secret(tmp_path: Path) -> None:
    studio = make(tmp_path, public=True)
    sent = json.dumps(page.build(studio).get_config_file(), default=str)
    assert studio.secret not in sent and studio.rater_secret not in sent
    assert studio.browser_key in sent and studio.browser_key == make(tmp_path, public=True).browser_key


def test_a_secret_that_was_sent_to_browsers_signs_nothing_any_more_and_raters_stay_who_they_are(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / ".studio-secret").write_text("5" * 32)
    studio = make(tmp_path, public=True)
    assert "5" * 32 != studio.secret not in json.dumps(page.build(studio).get_config_file(), default=str)
    assert studio.browser_key == "5" * 32, "browsers could not read their visitor's id with another one"
    before = "rater-" + hmac.new(b"5" * 32, b"visitor ann", hashlib.sha256).hexdigest()[:24]
    assert Who("ann", {}).rater(studio) == before
