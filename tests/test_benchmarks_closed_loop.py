"""The closed loop from votes to a verdict on small scenes: every part is the real one, but for fits of captures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from rated_capture import rated_capture

from difix3d.scene import Scene

pytestmark = pytest.mark.shared


@pytest.fixture
def closed_loop(shared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    import closed_loop

    def fit(studio, steps: int) -> list[Scene]:
        seeds = {"one": 0, "two": 1, "dev": 2}
        there = [studio.scenes / name for name in studio.names]
        url = f"sqlite:///{studio.folder / 'nobody.sqlite'}"
        return [
            Scene(root)
            if root.is_dir()
            else rated_capture(studio.scenes, root.name, url, raters=0, seed=seeds[root.name])
            for root in there
        ]

    monkeypatch.setattr(closed_loop.Studio, "fit", fit)
    return closed_loop


def test_it_ends_with_a_verdict_and_goes_on_where_it_stopped(closed_loop, tmp_path, monkeypatch, capsys) -> None:
    words = ["closed_loop.py", "--train", "one", "two", "--dev", "dev", "--frames", "1", "--dev-frames", "2", "--steps",
             "4", "--learning-rate", "2e-3", "--work", str(tmp_path / "work"), "--json"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(closed_loop, "CACHE", tmp_path / "cache")  # the parent that knows nothing is written there
    closed_loop.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"win_rate", "interval", "lpips_before", "lpips_after", "comparisons"} <= found.keys()
    low, high = found["interval"]
    assert 0 <= low <= found["win_rate"] <= high <= 1
    assert found["views"] == 2 and found["votes_on_dev"] == 6 and found["steps"] == 4
    assert found["comparisons"] > 0 and found["photos"] == 3  # the other scene is the test split
    # Nothing of the dev scene is in what was trained on.
    rows = json.loads((tmp_path / "work" / "export" / "provenance.json").read_text())
    assert {row["scene_id"] for row in rows.values()} == {"one", "two"}

    closed_loop.main()
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
