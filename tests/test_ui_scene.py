"""The Scene step says how much of a scene's splats its viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from difix3d.formats.ply import splat_count, write_splats
from difix3d.formats.splat import RECORD_BYTES
from difix3d.scene import Scene
from difix3d.types import Splats
from difix3d.ui.scene import _reader
from difix3d.ui.shared import Shared
from difix3d.ui.studio import Studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path / "scenes", f"sqlite:///{tmp_path / 'ratings.sqlite'}", public=False)


def heading_and_viewer(studio: Studio, scene: Scene) -> tuple[str, dict | None]:
    shared = Shared(studio, *[None] * 4)  # type: ignore[arg-type]  # of the page's components it reads none
    _, heading, viewer, *_ = _reader(shared)({"id": "ann"}, scene.id, None, None)
    return heading, viewer


@pytest.mark.parametrize(
    ("count", "says"), [(300_001, "300,000 of 300,001 splats are shown."), (300_000, ""), (7, ""), (None, "")]
)
def test_a_viewer_that_leaves_splats_out_says_so(studio: Studio, count: int | None, says: str) -> None:
    scene = Scene.create(studio.scenes_root / "large", "large")
    if count is not None:
        zeros = np.zeros((count, 3), np.float32)
        splats = Splats(zeros, np.ones((count, 4), np.float32), zeros, zeros[:, 0], zeros[:, None])
        write_splats(scene.splats_path, splats)
        assert splat_count(scene.splats_path) == count
    heading, viewer = heading_and_viewer(studio, scene)
    assert "Drag to turn" in heading and (viewer is None) == (count is None)
    assert (says in heading) if says else ("are shown" not in heading)
    if count is not None:
        assert (scene.previews_dir / "splats.splat").stat().st_size == min(count, 300_000) * RECORD_BYTES
