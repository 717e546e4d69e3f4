"""Votes and exports go to a dataset repository: each once, whatever goes wrong between."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import StandInHub, in_a_process
from hub_uploads import Datasets
from huggingface_hub import constants
from rated_scene import make_scene, vote_on

from difix3d.cli import main
from difix3d.errors import RatingError
from difix3d.ratings.candidates import candidates_of
from difix3d.ratings.push.outbox import Outbox
from difix3d.ratings.store import RatingStore
from difix3d.scene import hash_file
from difix3d.stages.export import ExportConfig, export

REPOSITORY = "someone/ratings"


@dataclass
class Pushes:
    """A studio with a scene and three votes, and a Hub."""

    folder: Path
    hub: StandInHub
    patch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.patch.setattr(constants, "ENDPOINT", self.hub.url)
        self.patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        self.patch.setattr(constants, "HF_TOKEN_PATH", str(self.folder / "no token"))
        self.url = f"sqlite:///{self.folder / 'ratings.sqlite'}"
        self.scene = make_scene(self.folder / "scenes", "yard")
        self.store = RatingStore(self.url, self.folder / "scenes")
        for index, choice in enumerate(("fix", "render", "tie")):
            vote_on(self.store, self.scene, choice, "ann", index)

    def push(self, *flags: str, token: str = "hf_writer", to: str = REPOSITORY) -> dict[str, Any]:
        """What `difix3d ratings push --json` says."""
        words = ["push", "--to", to, "--ratings-db", self.url, "--scenes", str(self.folder / "scenes"), "--json"]
        self.patch.setenv("HF_TOKEN", token)
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            main(["ratings", *words, *flags])
        return json.loads(told.getvalue().splitlines()[-1])

    @property
    def repository(self) -> Path:
        return self.hub.datasets.path(REPOSITORY)

    def lines(self) -> list[dict[str, Any]]:
        files = sorted(self.repository.glob("votes/*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def box(self) -> Outbox:
        return Outbox(self.folder / "outbox" / "someone--ratings")


@pytest.fixture
def pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushes]:
    with StandInHub(datasets=Datasets(tmp_path / "hub")).serving() as hub:
        made = Pushes(tmp_path, hub, monkeypatch)
        yield made
        made.store.close()


def test_only_what_is_new_is_pushed_and_nothing_is_changed_there(pushes: Pushes) -> None:
    done = pushes.push()
    assert done["ok"] and done["figures"]["waiting"] == 0, done
    assert pushes.hub.datasets.visibility == {REPOSITORY: "private"}, "nobody publishes by accident"
    assert [line["action"] for line in pushes.lines()] == ["vote"] * 3
    for line in pushes.lines():
        for side in ("candidate_a", "candidate_b"):
            picture = pushes.repository / "images" / f"{line[side]['sha256']}.png"
            assert hash_file(picture) == line[side]["sha256"]
    assert "ann" not in (pushes.repository / "votes").joinpath(pushes.hub.datasets.commits[0][-2][6:]).read_text()
    assert pushes.push()["figures"]["files"] == 0 and len(pushes.hub.datasets.commits) == 1

    first = pushes.lines()[0]
    vote_on(pushes.store, pushes.scene, "fix", "bob", 1)
    pushes.store.undo("bob")
    again = vote_on(pushes.store, pushes.scene, "both_bad", "ann", 0)
    assert again == first["id"], "the same token: the same vote, and nothing new"
    assert pushes.push()["ok"]
    later = pushes.lines()[3:]
    assert [line["action"] for line in later] == ["vote", "retract"]
    assert later[1]["supersedes"] == later[0]["id"] and len({line["id"] for line in pushes.lines()}) == 5
    assert set(pushes.hub.datasets.overwritten) <= {"README.md"}
    assert not any("sqlite" in path for commit in pushes.hub.datasets.commits for path in commit)


def test_what_goes_wrong_is_told_and_nothing_is_lost(pushes: Pushes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # of the client, between its own tries
    told = [
        (pushes.push(token=""), "No token of the Hub: set HF_TOKEN"),
        (pushes.push(token="hf_unknown"), "does not know this token (401)"),
        (pushes.push(token="hf_reader"), "may not write to someone/ratings (403)"),
    ]
    pushes.hub.datasets.fails = 99
    told.append((pushes.push(), "answers 503"))
    for answer, words in told:
        assert answer["ok"] is False and words in answer["error"]["message"], answer
        assert "Nothing is lost" in answer["error"]["message"]
    assert "expected OWNER/NAME" in pushes.push(to="no repository")["error"]["message"]
    assert pushes.box().votes_waiting() == 3
    pushes.hub.datasets.fails = 0
    assert pushes.push()["figures"]["waiting"] == 0
    assert len(pushes.lines()) == 3 and pushes.box().waiting() == []


def test_a_hub_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    away = Pushes(tmp_path, StandInHub(url="http://127.0.0.1:9"), monkeypatch)
    message = away.push()["error"]["message"]
    assert "Could not reach the Hub" in message and "Nothing is lost" in message
    assert away.box().votes_waiting() == 3
    away.store.close()


def test_an_answer_that_was_lost_sends_the_same_again(pushes: Pushes) -> None:
    pushes.hub.datasets.drops = 1
    first = pushes.push()
    assert pushes.hub.datasets.drops == 0 and (first["ok"] or "Could not reach" in first["error"]["message"])
    assert pushes.push()["ok"] and pushes.box().waiting() == []
    assert len(pushes.lines()) == 3 and not set(pushes.hub.datasets.overwritten) - {"README.md"}
    assert len(list(pushes.repository.glob("votes/*"))) == 1


def test_a_program_that_ended_between_writing_and_noting_queues_nothing_twice(pushes: Pushes) -> None:
    box = pushes.box()
    assert box.collect(pushes.store, pushes.folder / "scenes") == 3
    (box.folder / "state.json").unlink()  # as if it had not been written yet
    assert pushes.box().collect(pushes.store, pushes.folder / "scenes") == 0
    vote_on(pushes.store, pushes.scene, "fix", "bob", 0)
    assert pushes.push()["figures"]["waiting"] == 0
    assert len(pushes.lines()) == len({line["id"] for line in pushes.lines()}) == 4


def test_a_rater_who_withdraws_is_taken_out_of_what_waits_and_told_of_what_went(pushes: Pushes) -> None:
    assert pushes.push()["ok"]
    vote_on(pushes.store, pushes.scene, "fix", "bob", 0)
    pushes.box().collect(pushes.store, pushes.folder / "scenes")
    for rater in ("ann", "bob"):
        pushes.store.withdraw(rater)
    assert pushes.push()["ok"]
    lines = pushes.lines()
    assert [line["action"] for line in lines] == ["vote"] * 3 + ["withdrawal"] * 2
    assert {line["user_id"] for line in lines[3:]} == {1, 2}, "bob's vote never went out"


@pytest.mark.parametrize("votes_lost", [1, 3], ids=["as long again by then", "shorter"])
def test_a_backup_that_was_restored_is_pushed_anew_without_those_who_withdrew_since(
    pushes: Pushes, votes_lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    vote_on(pushes.store, pushes.scene, "fix", "dan", 0)
    backup, database = pushes.folder / "backup.sqlite", pushes.folder / "ratings.sqlite"
    pushes.store.backup(backup)
    for index in range(votes_lost):
        vote_on(pushes.store, pushes.scene, "fix", "bob", index)
    pushes.store.withdraw("ann")
    assert pushes.push()["ok"]
    before = pushes.lines()
    assert {line["user_id"] for line in before if line["action"] == "vote"} == {2, 3}
    pushes.store.close()
    backup.replace(database)
    pushes.store = RatingStore(pushes.url, pushes.folder / "scenes")
    vote_on(pushes.store, pushes.scene, "render", "carl", 0)
    with_ann = pushes.folder / "exports" / "yard"
    list(export(ExportConfig(str(with_ann), pushes.url, str(pushes.folder / "scenes"))))
    assert "raters who withdrew since (1)" in pushes.push("--export", str(with_ann))["error"]["message"]
    assert "are those of a backup" in caplog.text

    def log_of(path: Path) -> str:
        return path.name.split("-")[1]

    def of(rater: int) -> list[dict[str, Any]]:
        """Their lines in the log that is there since the backup is."""
        found = [path for path in sorted(pushes.repository.glob("votes/*")) if log_of(path) != first]
        assert len({log_of(path) for path in found}) == 1
        lines = [json.loads(line) for path in found for line in path.read_text().splitlines()]
        return [line for line in lines if line["user_id"] == rater]

    (first,) = {log_of(path) for path in pushes.repository.glob("votes/*")}
    assert pushes.push()["ok"]
    assert of(1) == [], "ann's votes are in the backup, and she took them back"
    assert [line["id"] for line in of(2)] == [line["id"] for line in before if line["user_id"] == 2]
    assert len(of(3)) == 1, "carl has the number that bob had"
    pushes.store.withdraw("carl")
    assert pushes.push()["ok"] and [line["action"] for line in of(3)] == ["vote", "withdrawal"]
    assert pushes.push()["figures"]["files"] == 0


def test_an_export_goes_whole_once_and_datasets_reads_it_from_there(pushes: Pushes) -> None:
    import datasets

    out = pushes.folder / "exports" / "yard"
    list(export(ExportConfig(str(out), pushes.url, str(pushes.folder / "scenes"))))
    assert pushes.push("--export", str(out))["ok"] and pushes.push("--export", str(out))["figures"]["files"] == 0
    (folder,) = (pushes.repository / "exports").iterdir()
    here, there = ({path.name for path in each.rglob("*") if path.is_file()} for each in (out, folder))
    assert here == there
    assert json.loads((folder / "difix.json").read_text()) == json.loads((out / "difix.json").read_text())
    read = datasets.load_dataset(str(pushes.repository), cache_dir=str(pushes.folder / "cache"))
    assert len(read["train"]) == 3 and isinstance(read["train"].features["image_0"], datasets.Image)
    assert "is no export" in pushes.push("--export", str(pushes.folder))["error"]["message"]


def test_an_export_with_votes_of_a_rater_who_withdrew_does_not_go_out(pushes: Pushes) -> None:
    def exported(name: str) -> Path:
        out = pushes.folder / "exports" / name
        list(export(ExportConfig(str(out), pushes.url, str(pushes.folder / "scenes"))))
        return out

    def there() -> int:
        return len(list(pushes.repository.glob("exports/*")))

    without_bob = exported("before bob")
    vote_on(pushes.store, pushes.scene, "fix", "bob", 0)
    with_bob = exported("with bob")
    pushes.box().collect(pushes.store, pushes.folder / "scenes")
    pushes.store.withdraw("bob")
    message = pushes.push("--export", str(with_bob))["error"]["message"]
    assert "raters who withdrew since (2)" in message and "Export again" in message, message
    assert pushes.box().waiting() and there() == 0
    assert pushes.push("--export", str(without_bob))["ok"] and there() == 1, "nothing of theirs is in there"
    exported("with bob")
    assert pushes.push("--export", str(with_bob))["ok"] and there() == 2
    assert all(line["user_id"] == 1 or line["action"] == "withdrawal" for line in pushes.lines())


def test_an_export_that_was_taken_out_of_what_waits_is_refused_and_not_called_queued(pushes: Pushes) -> None:
    out = pushes.folder / "exports" / "yard"
    list(export(ExportConfig(str(out), pushes.url, str(pushes.folder / "scenes"))))
    box = pushes.box()
    assert box.queue_export(pushes.store, out)
    pushes.store.withdraw("ann")
    box.collect(pushes.store, pushes.folder / "scenes")
    assert not list(box.files.glob("exports/*"))
    with pytest.raises(RatingError, match="Export again"):
        box.queue_export(pushes.store, out)


def test_the_scheduler_passes_over_an_export_with_withdrawn_votes(pushes: Pushes) -> None:
    from difix3d.ratings.push.transfer import VoteScheduler

    for name, rater in (("a withdrawn", "bob"), ("b standing", "ann")):
        scenes = pushes.folder / name
        scene = make_scene(scenes, name.split()[1])
        vote_on(pushes.store, scene, "fix", rater, 0)
        list(export(ExportConfig(str(pushes.folder / "exports" / name), pushes.url, str(scene.root))))
    pushes.store.withdraw("bob")
    pushes.patch.setenv("HF_TOKEN", "hf_writer")
    scheduler = VoteScheduler(pushes.store, pushes.folder / "scenes", REPOSITORY, pushes.folder / "exports", every=60)
    scheduler.stop()
    scheduler.push_to_hub()
    assert scheduler.told == "" and scheduler.pushed.waiting == 0
    (folder,) = pushes.repository.glob("exports/*")
    assert {json.loads(line)["user_id"] for line in (folder / "ratings.jsonl").read_text().splitlines()} == {1}
    assert {line["user_id"] for line in pushes.lines() if line["action"] == "vote"} == {1}


def test_the_scheduler_pushes_by_itself_begins_without_the_hub_and_goes_on_after_a_restart(pushes: Pushes) -> None:
    code = f"""
import os, sys, time
from pathlib import Path
sys.path.append({str(Path(__file__).parents[1])!r})
from rated_scene import vote_on
from difix3d.ratings.push.transfer import begin_pushing
from difix3d.ratings.store import RatingStore
from difix3d.scene import Scene
folder = Path({str(pushes.folder)!r})
store = RatingStore({pushes.url!r}, folder / "scenes")
pushing = begin_pushing(store, folder / "scenes", folder / "exports")
def wait(enough):
    deadline = time.monotonic() + 40
    while not enough(pushing.status()):
        assert time.monotonic() < deadline, pushing.status()
        time.sleep(0.05)
"""
    settings = {"HF_TOKEN": "hf_writer", "HF_HUB_DISABLE_XET": "1", "DIFIX3D_DATASET_REPO": REPOSITORY}
    settings["DIFIX3D_PUSH_MINUTES"] = "0.01"

    def run(rest: str) -> None:
        done = in_a_process(code + rest, pushes.folder / "home", pushes.hub.url, **settings)
        assert done.returncode == 0, done.stderr

    pushes.hub.datasets.may_write = set()
    run("wait(lambda status: '401' in status['told'])\nos._exit(0)")
    pushes.hub.datasets.may_write = {"hf_writer"}
    vote = "vote_on(store, Scene(folder / 'scenes' / 'yard'), 'fix', 'bob', {})\n"
    sent = "wait(lambda status: pushing.scheduler and pushing.scheduler.pushed.files and not status['waiting'])\n"
    # Killed after the first push, with a vote that nobody pushed yet; then started again, and ended well.
    run(sent + vote.format(0) + "os._exit(0)")
    run(sent + vote.format(1))
    assert len(pushes.lines()) == len({line["id"] for line in pushes.lines()}) == 5
    assert not set(pushes.hub.datasets.overwritten) - {"README.md"}
    frames = candidates_of(pushes.scene)
    assert len(list((pushes.repository / "images").iterdir())) == len(
        {each.sha256 for key in frames if key[0] == "orbit" for each in frames[key][:2]}
    )
