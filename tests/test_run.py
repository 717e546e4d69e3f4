"""`difix3d run` on the bundled photos: killed in the middle of the fit, it goes on and repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from difix3d.events import Progress
from difix3d.scene import Scene

REPOSITORY = Path(__file__).resolve().parent.parent
PHOTOS = sorted((REPOSITORY / "examples" / "courtyard" / "images").glob("*.jpg"))[:14]


def command(scene: Path, seconds: int) -> list[str]:
    photos = [str(path) for path in PHOTOS]
    flags = ["--scene", str(scene), "--seconds", str(seconds), "--until", "fit", "--json"]
    return [sys.executable, "-m", "difix3d", "run", *photos, *flags]


def finished(scene: Path, seconds: int) -> dict:
    run = subprocess.run(command(scene, seconds), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_run_that_was_killed_while_fitting_goes_on_from_there(tmp_path: Path) -> None:
    root = tmp_path / "court"
    first = subprocess.Popen(command(root, 120), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not _is_fitting(root):
            assert first.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run never came to the fit"
            time.sleep(0.1)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    scene = Scene(root)
    assert scene.manifest("reconstruct") and not scene.manifest("fit") and not scene.splats_path.exists()

    result = finished(root, 2)
    assert result["ok"] and result["stage"] == "run" and result["scene"] == str(root.resolve())
    skipped = {stage: figures["skipped"] for stage, figures in result["figures"].items()}
    assert skipped == {"ingest": True, "reconstruct": True, "fit": False}
    assert result["figures"]["fit"]["splats"] > 100 and result["figures"]["reconstruct"]["registered"] >= 12
    assert {"splats.ply", "split.json"} <= set(result["outputs"])

    again = finished(root, 2)
    assert all(figures["skipped"] for figures in again["figures"].values())
    assert again["figures"]["fit"]["splats"] == result["figures"]["fit"]["splats"]


def _is_fitting(root: Path) -> bool:
    if not (root / "scene.json").is_file():
        return False
    events = [event for *_, event in Scene(root).events()]
    return any(isinstance(event, Progress) and event.message == "Fitting splats" for event in events)
