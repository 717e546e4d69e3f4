"""The addresses over one scene, and somebody who may vote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rated_scene import make_scene
from rating_app import App


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    made = App(tmp_path)
    make_scene(made.studio.scenes_root, "one")
    made.agree()
    yield made
    made.studio.store.close()
