"""Difix from the photos: what it is given, what it falls back to, and that its fixes are candidates of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import walls
from fitted_scene import render_trajectory, write_fitted_scene

from difix3d.errors import FixerError
from difix3d.fixers import load_fixer
from difix3d.fixers.difix.fixer import DifixFixer
from difix3d.fixers.difix.guided import GuidedDifixFixer
from difix3d.fixers.photometric import gaussian
from difix3d.fixers.reproject import ReprojectFixer
from difix3d.ratings.arms import arm_of
from difix3d.ratings.candidates import candidates_of
from difix3d.stages.fix import fixer_inputs
from difix3d.stages.fixing import FixSession, fixer_label, store_candidate
from difix3d.types import Frame, Reference

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> str:
    return str(shared / "golden" / "checkpoint_difix_ref")


@pytest.fixture(scope="module")
def guided(checkpoint: str) -> GuidedDifixFixer:
    return GuidedDifixFixer(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def frame() -> Frame:
    camera = walls.camera_at(0.0, width=96, height=72)
    seen = walls.see(camera)
    soft = (gaussian(seen.rgb, 2.0) * 255 + 0.5).astype(np.uint8)
    return Frame("test", 0, camera, soft, np.ones_like(seen.depth), seen.depth)


def reference_at(x: float) -> Reference:
    camera = walls.camera_at(x, width=96, height=72)
    seen = walls.see(camera)
    return Reference(f"{x}.png", camera, seen.photo, seen.depth)


def test_it_repairs_what_reproject_makes_and_sees_one_photo(guided, checkpoint: str, frame: Frame) -> None:
    photos = [reference_at(0.2), reference_at(-0.25)]
    fixed = guided.fix(frame, photos)
    composite = replace(frame, rgb=ReprojectFixer().fix(frame, photos))
    plain = DifixFixer(checkpoint, device="cpu")
    assert np.array_equal(fixed, plain.fix(composite, photos[:1]))
    assert not np.array_equal(fixed, plain.fix(frame, photos[:1]))
    assert not np.array_equal(fixed, guided.fix(frame, photos[:1])), "the second photo counts too"


def test_without_depth_or_photos_it_is_difix(guided, checkpoint: str, frame: Frame) -> None:
    plain, photo = DifixFixer(checkpoint, device="cpu"), reference_at(0.2)
    flat = replace(frame, depth=np.zeros_like(frame.depth))
    assert np.array_equal(guided.fix(flat, [photo]), plain.fix(frame, [photo]))
    assert np.array_equal(guided.fix(frame, []), plain.fix(frame, []))


def test_weights_are_in_memory_once(guided, checkpoint: str) -> None:
    plain, again = DifixFixer(checkpoint, device="cpu"), load_fixer(f"guided:{checkpoint}")
    guided.load()
    plain.load()
    again.load()
    assert plain._pipeline is guided.difix._pipeline is again.difix._pipeline


def test_it_is_chosen_by_name(checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIFIX3D_FIXER", checkpoint)
    assert load_fixer("difix-guided").name == load_fixer(f"guided:{checkpoint}").name == "guided:checkpoint_difix_ref"
    assert load_fixer("guided:nvidia/difix").difix.checkpoint == "nvidia/difix"
    for wrong in ("guided:", "guided:lite", "guided:nothing"):
        with pytest.raises(FixerError, match="There is no fixer"):
            load_fixer(wrong)
    (tmp_path / "lite.safetensors").touch()
    with pytest.raises(FixerError, match="without 'guided:'"):
        load_fixer(f"guided:{tmp_path}")


def test_it_is_a_candidate_of_its_own(checkpoint: str, tmp_path: Path) -> None:
    """Beside plain Difix's in the ratings, by fixer and with the settings that tell them apart."""
    scene = write_fitted_scene(tmp_path / "scene")
    render_trajectory(scene, frames=1)
    stored = []
    for name in (checkpoint, f"guided:{checkpoint}"):
        session = FixSession(scene, name)
        frame = session.frame("walk", 0)
        made = session.fix(frame, ["00001.png"])
        fixed, used = made.rgb, made.references
        stored.append(store_candidate(scene, frame, fixed, session.fixer, used, strength=made.strength))
    plain, guided = stored
    assert arm_of(plain) != arm_of(guided) and str(arm_of(guided)).startswith("guided:")
    assert guided.extra["input"] == "photos carried by depth and flow" and "input" not in plain.extra
    assert guided.extra["dtype"] == plain.extra["dtype"] and guided.timestep == 199
    assert {each.sha256 for each in stored} <= {each.sha256 for each in candidates_of(scene)["walk", 0]}
    assert fixer_label(f"guided:{checkpoint}") == "guided-checkpoint_difix_ref"
    assert str(Path(checkpoint).resolve()) in fixer_inputs(scene, f"guided:{checkpoint}")
