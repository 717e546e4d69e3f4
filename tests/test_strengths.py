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
from difix3d.fixers.strength import shown
from difix3d.formats.image import write_rgb
from difix3d.formats.ply import read_splats, write_splats
from difix3d.scene import Scene
from difix3d.stages.choosing import Chooser
from difix3d.stages.fix import FixConfig, fix
from difix3d.stages.fixing import CANDIDATES, FixSession, store_candidate
from difix3d.trajectories import HELDOUT as KEPT_OUT
from difix3d.ui.fix import describe


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = write_fitted_scene(tmp_path_factory.mktemp("strengths") / "scene")
    render_trajectory(scene)
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "scene")
    return Scene(tmp_path / "scene")


def truth_lies_at(scene: Scene, shares: list[float]) -> None:
    """Kept-out photos that lie so far on the way from the render to the fix."""
    session = FixSession(scene, "reproject")
    reconstruction = session.reconstruction()
    assert reconstruction is not None
    for index, (name, share) in enumerate(zip(HELDOUT, shares)):
        frame = session.render(KEPT_OUT, index, reconstruction.view(name).camera)
        fixed = session.fix_fully(frame)[0]
        write_rgb(scene.images_dir / name, shown(frame.rgb, fixed, share))


def kept_out(session: FixSession, index: int):
    reconstruction = session.reconstruction()
    assert reconstruction is not None
    return session.render(KEPT_OUT, index, reconstruction.view(HELDOUT[index]).camera)


def test_kept_out_photos_say_how_much_and_none_says_it_of_itself(scene: Scene) -> None:
    shares = [0.2, 0.3, 0.4]
    truth_lies_at(scene, shares)
    session = FixSession(scene, "reproject")

    def expected(*shares: float) -> float:  # the error of such a render is share^2 |f - r|^2
        return 1.7 * sum(1 / share for share in shares) / sum(1 / share**2 for share in shares)

    assert session.strength(session.frame("walk", 0)) == pytest.approx(expected(*shares), abs=0.02)
    for index in range(3):
        others = [share for other, share in enumerate(shares) if other != index]
        assert session.strength(kept_out(session, index)) == pytest.approx(expected(*others), abs=0.02)


def test_fixes_and_previews_are_shown_so_and_say_it(scene: Scene) -> None:
    truth_lies_at(scene, [0.3] * 3)
    session = FixSession(scene, "reproject")
    frame = session.frame("walk", 0)
    full, trust, names = session.fix_fully(frame)
    strength = session.strength(frame)
    assert 0.4 < strength < 0.6
    fixed, same_trust, _ = session.fix_with_trust(frame)
    assert np.array_equal(fixed, shown(frame.rgb, full, strength)) and not np.array_equal(fixed, full)
    assert trust is not None and same_trust is not None and np.array_equal(trust, same_trust)
    assert np.array_equal(Chooser(session).preview("walk", 0, names).rgb, fixed)

    weaker = store_candidate(scene, frame, fixed, session.fixer, names, strength=strength)
    whole = store_candidate(scene, frame, full, session.fixer, names)
    assert weaker.extra["strength"] == strength and "strength" not in whole.extra
    assert weaker.image_path != whole.image_path
    assert describe(scene, weaker) == f"{describe(scene, whole)}, at {100 * strength:.0f} %"


def test_the_stage_measures_first_and_says_so(scene: Scene) -> None:
    truth_lies_at(scene, [0.3] * 3)
    events = list(fix(scene, FixConfig(trajectory="walk", fixer="reproject")))
    told = [event.message for event in events if isinstance(event, Progress)]
    assert told.index("Measuring on kept-out photos how much of a fix to show") < told.index("Fixing walk")
    entries = json.loads((scene.fixed_dir("walk", "reproject") / CANDIDATES).read_text())
    assert {entry["extra"]["strength"] for entry in entries} == {FixSession(scene, "reproject").strength(_walk(scene))}


def _walk(scene: Scene):
    return FixSession(scene, "reproject").frame("walk", 0)


def test_it_is_measured_once_and_anew_after_another_fit(scene: Scene) -> None:
    first = FixSession(scene, "reproject")
    assert len(list(first.measure())) == 3 and not list(first.measure())
    path = scene.strength_path("reproject")
    kept = json.loads(path.read_text())
    assert [one["photo"] for one in kept["photos"]] == list(HELDOUT)
    assert not list(FixSession(scene, "reproject").measure())  # from the disk
    assert len(list(FixSession(scene, "lite").measure())) == 3  # another fixer

    splats = read_splats(scene.splats_path)
    write_splats(scene.splats_path, type(splats)(*(part[:-50] for part in vars(splats).values())))
    assert len(list(FixSession(scene, "reproject").measure())) == 3
    assert json.loads(path.read_text())["of"] != kept["of"]


@pytest.mark.parametrize("broken", ["", "[]", '{"of": 1}', '{"of": "x", "photos": [{"photo": "a"}]}'])
def test_figures_that_cannot_be_read_are_measured_anew(scene: Scene, broken: str) -> None:
    path = scene.strength_path("reproject")
    path.parent.mkdir()
    path.write_text(broken)
    assert len(list(FixSession(scene, "reproject").measure())) == 3


def test_without_kept_out_photos_or_splats_fixes_are_shown_whole(scene: Scene) -> None:
    write_json(scene.split_path, {"train": [f"{index:05d}.png" for index in range(12)], "heldout": []})
    session = FixSession(scene, "reproject")
    assert session.strength(session.frame("walk", 0)) == 1.0
    scene.split_path.unlink()
    scene.splats_path.unlink()
    session = FixSession(scene, "reproject")
    assert session.strength(session.frame("walk", 0)) == 1.0
    assert not scene.strength_path("reproject").parent.exists()


def test_the_only_kept_out_photo_is_not_judged_by_itself(scene: Scene) -> None:
    truth_lies_at(scene, [0.3])
    write_json(scene.split_path, {**scene.split(), "heldout": [HELDOUT[0]]})
    session = FixSession(scene, "reproject")
    assert session.strength(kept_out(session, 0)) == 1.0
    assert session.strength(session.frame("walk", 0)) < 0.6
