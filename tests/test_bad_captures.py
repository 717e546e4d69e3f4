"""Captures that cannot become a scene, or only in part, from the command line: status 2 and words, never a traceback.

Everything in ../shared/scenes/bad, as its README.md asks. (What ingest alone refuses is in test_ingest.py too.)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from courtyard import photo_paths
from PIL import Image

from difix3d.cli import main

pytestmark = pytest.mark.shared


def until_reconstruct(capture: Path, scene: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """(exit status, the last line of stdout)"""
    status = main(["run", str(capture), "--scene", str(scene), "--until", "reconstruct", "--json"])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, json.loads(said.out.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("one_photo", "CaptureError", "Found 1 usable photo; at least 4"),
        ("two_photos", "CaptureError", "Found 2 usable photos; at least 4"),
        ("all_identical", "CaptureError", "Found 1 usable photo; .* the same picture as 00.jpg"),
        ("corrupt_files", "CaptureError", "truncated.jpg: broken picture data"),
        ("textureless", "ReconstructionError", "Found 0 features in a typical photo; .* Take sharp photos"),
        ("blurry_photos", "ReconstructionError", "features in a typical photo; .* look blurred"),
        pytest.param(
            "motion_blur_photos",
            "ReconstructionError",
            "Registered .* of 8 photos.* blurred.*(sharp ones|Add photos)",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "unrelated_photos",
            "ReconstructionError",
            "Registered 0 of 10 photos; at least 4 are needed.* Add photos with more overlap",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pure_rotation",
            "ReconstructionError",
            "The camera only turned: .*depth cannot be measured. Walk around the subject",
            marks=pytest.mark.slow,
        ),
        ("videos/one_frame.mp4", "CaptureError", "1 readable frame; at least 4"),
        ("videos/static_camera.mp4", "CaptureError", "the camera hardly moves"),
        ("videos/rotation_metadata_90.mp4", "CaptureError", "the camera hardly moves"),
        ("videos/all_black.mp4", "CaptureError", "black from start to end"),
        ("videos/audio_only.mp4", "CaptureError", "no pictures, only sound"),
        ("videos/truncated_no_moov.mp4", "CaptureError", "cut off"),
        ("videos/garbage.mp4", "CaptureError", "no video"),
        ("videos/empty.mp4", "CaptureError", "empty"),
    ],
)
def test_refused_in_words(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str, words: str
) -> None:
    status, said = until_reconstruct(shared / "scenes/bad" / name, tmp_path / "scene", capsys)
    assert status == 2 and said["ok"] is False
    assert said["error"]["kind"] == kind
    assert re.search(words, said["error"]["message"]), said["error"]["message"]
    assert not (tmp_path / "scene/sparse").exists() and not (tmp_path / "scene/stages/reconstruct.json").exists()
    assert not list((tmp_path / "scene").glob(".*"))


@pytest.mark.slow
def test_of_two_subjects_the_larger_is_kept_and_the_rest_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = shared / "scenes/bad/two_scenes_mixed"
    status, said = until_reconstruct(capture, tmp_path / "scene", capsys)
    assert status == 0 and said["ok"] is True
    figures = said["figures"]["reconstruct"]
    assert figures["photos"] == 22 and 10 <= figures["registered"] <= 12
    others = [f"{row:02d}.jpg" for row in range(12, 22)]
    assert set(others) <= set(figures["left_out"]) and len(figures["left_out"]) == 22 - figures["registered"]
    warned = json.loads((tmp_path / "scene/stages/reconstruct.json").read_text())["warnings"]
    assert any("Left out" in message and others[0] in message for message in warned)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "photos"), [("mixed_formats", 20), ("videos/saharov_slideshow_vp9.webm", 32)])
def test_awkward_but_good_captures_work(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, photos: int
) -> None:
    status, said = until_reconstruct(shared / "scenes/bad" / name, tmp_path / "scene", capsys)
    assert status == 0
    figures = said["figures"]["reconstruct"]
    assert figures["photos"] == photos and figures["registered"] >= 0.95 * photos
    assert figures["reprojection_px"] < 1.5 and figures["median_triangulation_deg"] > 5


def test_a_process_of_its_own_ends_with_status_2_and_a_clean_stderr(shared: Path, tmp_path: Path) -> None:
    capture = shared / "scenes/bad/textureless"
    command = [sys.executable, "-m", "difix3d", "run", str(capture), "--scene", str(tmp_path / "scene")]
    done = subprocess.run([*command, "--until", "reconstruct", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert json.loads(done.stdout.splitlines()[-1])["error"]["kind"] == "ReconstructionError"
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr and lines[-1].startswith("difix3d: Found 0 features")
    assert all(line.startswith(("[ingest]", "[reconstruct]", "difix3d:")) for line in lines)


@pytest.mark.slow
def test_small_photos_are_looked_at_again_with_finer_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At their own size all find a place, by too few points to trust."""
    (tmp_path / "small").mkdir()
    for path in photo_paths():
        with Image.open(path) as photo:
            photo.resize((256, 144)).save(tmp_path / "small" / path.name, quality=95)
    status, _ = until_reconstruct(tmp_path / "small", tmp_path / "scene", capsys)
    figures = json.loads((tmp_path / "scene/stages/reconstruct.json").read_text())["figures"]
    assert status == 0 and figures["first_octave"] == -1
    assert figures["registered"] == len(photo_paths()) and figures["reprojection_px"] < 0.5
