"""How much of a fix a scene shows: measured at kept-out photos, kept beside the scene, never by the photo judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fitted_scene import HELDOUT, render_trajectory, write_fitted_scene

from difix3d.atomic import write_json
from difix3d.events import Progress
from difix3d.fixers import load_fixer
from difix3d.fixers.lite.fixer import WEIGHTS
from difix3d.fixers.strength import shown
from difix3d.formats.image import write_rgb
from difix3d.formats.ply import read_splats, write_splats
from difix3d.scene import Scene
from difix3d.stages.choosing import Chooser
from difix3d.stages.evaluate import EvaluateConfig, evaluate
from difix3d.stages.fix import FixConfig, fix
from difix3d.stages.fixing import CANDIDATES, FixSession, store_candidate
from difix3d.stages.strengths import MEASURING
from difix3d.trajectories import HELDOUT as KEPT_OUT
from difix3d.types import Camera, Frame
from difix3d.ui.fix import describe

SIDE = 96
"""Of the scene's photos and renders, the longer one."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("strengths") / "scene")
    render_trajectory(scene)  # at the cameras of the kept-out photos
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def camera_of(session: FixSession, name: str) -> Camera:
    reconstruction = session.reconstruction()
    assert reconstruction is not None
    return reconstruction.view(name).camera


def elsewhere(session: FixSession) -> Frame:
    """A frame where no kept-out photo was taken."""
    return session.render("path", 0, camera_of(session, "00002.png"))


def kept_out(session: FixSession, index: int) -> Frame:
    return session.render(KEPT_OUT, index, camera_of(session, HELDOUT[index]))


def truth_lies_at(scene: Scene, shares: list[float]) -> None:
    """Kept-out photos that lie so far on the way from the render to the fix."""
    session = FixSession(scene, "reproject")
    for index, share in enumerate(shares):
        frame = kept_out(session, index)
        write_rgb(scene.images_dir / HELDOUT[index], shown(frame.rgb, session.fix_fully(frame)[0], share))


def expected(*shares: float) -> float:
    """The error of the renders that `truth_lies_at` makes is share^2 |f - r|^2."""
    return 1.7 * sum(1 / share for share in shares) / sum(1 / share**2 for share in shares)


def measurements(session: FixSession, side_px: int = SIDE) -> int:
    return len(list(session.strengths.measure(side_px)))


def test_kept_out_photos_say_how_much_and_none_says_it_of_itself(scene: Scene) -> None:
    shares = [0.2, 0.3, 0.4]
    truth_lies_at(scene, shares)
    session = FixSession(scene, "reproject")
    assert session.strengths.of(elsewhere(session).camera) == pytest.approx(expected(*shares), abs=0.02)
    for index in range(3):
        others = [share for other, share in enumerate(shares) if other != index]
        assert session.strengths.of(kept_out(session, index).camera) == pytest.approx(expected(*others), abs=0.02)
        # Whatever the path is called, and wherever the frame stands in it.
        walked = session.frame("walk", index)
        assert session.strengths.of(walked.camera) == session.strengths.of(kept_out(session, index).camera)


def test_fixes_and_previews_are_shown_so_and_say_it(scene: Scene) -> None:
    truth_lies_at(scene, [0.3] * 3)
    session = FixSession(scene, "reproject")
    frame = session.frame("walk", 0)
    full, trust, names = session.fix_fully(frame)
    chooser = Chooser(session)
    early = chooser.preview("walk", 0, names)
    assert early.strength == 1.0 and np.array_equal(early.rgb, full)  # a preview waits for no measurement

    found = session.fix(frame)
    fixed, strength = found.rgb, found.strength
    assert 0.4 < strength < 0.6 and strength == session.strengths.of(frame.camera)
    assert np.array_equal(fixed, shown(frame.rgb, full, strength)) and not np.array_equal(fixed, full)
    assert trust is not None and found.trust is not None and np.array_equal(trust, found.trust)
    assert session.fix(frame, []).strength == 1.0  # the render itself
    preview = chooser.preview("walk", 0, names)
    assert np.array_equal(preview.rgb, fixed) and preview.strength == strength

    weaker = store_candidate(scene, frame, fixed, session.fixer, names, strength=strength)
    whole = store_candidate(scene, frame, full, session.fixer, names, strength=1.0)
    assert weaker.extra["shown"] == strength and "shown" not in whole.extra
    assert weaker.image_path != whole.image_path
    assert describe(scene, weaker) == f"{describe(scene, whole)}, at {100 * strength:.0f} %"


def test_the_stage_measures_first_and_says_so(scene: Scene) -> None:
    truth_lies_at(scene, [0.2, 0.3, 0.4])
    events = list(fix(scene, FixConfig(trajectory="walk", fixer="reproject")))
    told = [event.message for event in events if isinstance(event, Progress)]
    assert told.index(MEASURING) < told.index("Fixing walk")
    entries = json.loads((scene.fixed_dir("walk", "reproject") / CANDIDATES).read_text())
    shares = [entry["extra"]["shown"] for entry in entries]
    assert shares == pytest.approx([expected(0.3, 0.4), expected(0.2, 0.4), expected(0.2, 0.3)], abs=0.02)


def test_what_is_judged_is_what_is_shown(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difix3d.metrics.lpips", lambda a, b, net="vgg": None)
    truth_lies_at(scene, [0.3] * 3)
    figures = list(evaluate(scene, EvaluateConfig(fixer="reproject", long_side_px=SIDE)))[-1].figures
    assert figures["strength"] == pytest.approx(expected(0.3, 0.3), abs=0.02)
    assert figures["fixed"]["psnr"] > figures["raw"]["psnr"]  # at full strength it would be 7 dB below


def test_it_is_measured_once_and_anew_after_another_fit(scene: Scene) -> None:
    first = FixSession(scene, "reproject")
    assert measurements(first) == 3 and not measurements(first)
    path = scene.strength_path("reproject", SIDE)
    kept = json.loads(path.read_text())
    assert [one["photo"] for one in kept["photos"]] == list(HELDOUT)
    assert not measurements(FixSession(scene, "reproject"))  # from the disk
    assert measurements(FixSession(scene, "lite")) == 3  # another fixer
    assert measurements(FixSession(scene, "reproject"), 48) == 3  # frames of another size
    assert not measurements(FixSession(scene, "reproject"), 200)  # larger ones than photos: as these

    splats = read_splats(scene.splats_path)
    write_splats(scene.splats_path, type(splats)(*(part[:-50] for part in vars(splats).values())))
    assert measurements(FixSession(scene, "reproject")) == 3
    assert json.loads(path.read_text())["of"] != kept["of"]


def test_stopped_it_goes_on_where_it_was(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    session, compared = FixSession(scene, "reproject"), []
    original = session.fix_fully
    monkeypatch.setattr(session, "fix_fully", lambda frame: compared.append(frame.index) or original(frame))
    events = session.strengths.measure(SIDE)
    next(events), next(events)
    events.close()
    assert compared == [0] and not scene.strengths_dir.exists()
    assert measurements(session) == 3 and compared == [0, 1, 2]


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"of": "OF"}', '{"of": "OF", "photos": [{"photo": "a"}]}'])
def test_figures_that_cannot_be_read_are_measured_anew(scene: Scene, broken: str) -> None:
    path = scene.strength_path("reproject", SIDE)
    assert measurements(FixSession(scene, "reproject")) == 3
    path.write_text(broken.replace("OF", json.loads(path.read_text())["of"]))
    assert measurements(FixSession(scene, "reproject")) == 3
    assert not measurements(FixSession(scene, "reproject"))


def test_photos_that_cannot_be_read_or_fixed_have_no_say(scene: Scene) -> None:
    truth_lies_at(scene, [0.2, 0.3, 0.4])
    (scene.images_dir / HELDOUT[1]).write_bytes(b"no picture")
    session = FixSession(scene, "reproject")
    assert session.fix(session.frame("walk", 1)).rgb.shape == (72, 96, 3)
    assert session.strengths.of(elsewhere(session).camera) == pytest.approx(expected(0.2, 0.4), abs=0.02)


def test_photos_that_the_fixer_was_trained_on_have_no_say(scene: Scene, tmp_path: Path) -> None:
    tuned = tmp_path / "mine"
    tuned.mkdir()
    shutil.copyfile(WEIGHTS, tuned / WEIGHTS.name)

    def compared(*seen: str) -> list[str]:
        write_json(tuned / "difix3d.json", {"data": {"frames": {scene.id: list(seen)}}})
        session = FixSession(scene, load_fixer(str(tuned)))
        list(session.strengths.measure(SIDE))
        path = scene.strength_path("mine", SIDE)
        found = [one["photo"] for one in json.loads(path.read_text())["photos"]]
        path.unlink()
        return found

    assert compared() == list(HELDOUT)
    assert compared(HELDOUT[0], f"{KEPT_OUT}/2") == [HELDOUT[1]]
    assert compared(*HELDOUT) == list(HELDOUT)  # nothing better is left


def test_without_kept_out_photos_or_splats_fixes_are_shown_whole(scene: Scene) -> None:
    write_json(scene.split_path, {"train": [f"{index:05d}.png" for index in range(12)], "heldout": []})
    session = FixSession(scene, "reproject")
    assert session.strengths.of(elsewhere(session).camera) == 1.0
    scene.split_path.unlink()
    scene.splats_path.unlink()
    session = FixSession(scene, "reproject")
    assert session.strengths.of(session.frame("walk", 0).camera) == 1.0
    assert not scene.strengths_dir.exists()


def test_the_only_kept_out_photo_is_not_judged_by_itself(scene: Scene) -> None:
    truth_lies_at(scene, [0.3])
    write_json(scene.split_path, {**scene.split(), "heldout": [HELDOUT[0]]})
    session = FixSession(scene, "reproject")
    assert session.strengths.of(kept_out(session, 0).camera) == 1.0
    assert session.strengths.of(elsewhere(session).camera) < 0.6


def test_a_scene_that_is_deleted_meanwhile_stays_deleted(scene: Scene) -> None:
    session = FixSession(scene, "reproject")
    events = session.strengths.measure(SIDE)
    next(events)
    session.splats(), session.reconstruction()
    shutil.rmtree(scene.root)
    list(events)
    assert not scene.root.exists()
