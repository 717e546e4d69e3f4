"""Where ../shared and the browser are, and what happens where they are not.

On a developer's machine a missing one skips the test with a reason; in CI (CI=true) it is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Playwright, sync_playwright

if TYPE_CHECKING:
    from difix_goldens import Goldens

REPOSITORY = Path(__file__).resolve().parent.parent


def _skip_or_fail(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI must have it)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """../shared: captures, goldens, LPIPS weights."""
    folder = Path(os.environ.get("DIFIX3D_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "golden").is_dir():
        _skip_or_fail(f"no shared test data at {folder}: set DIFIX3D_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the program keeps in its user's cache (how long fixes take, fetched weights) stays out of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("HF_HOME", str(folder))
        yield folder / "difix3d"


@pytest.fixture(scope="module")
def goldens(shared: Path) -> Iterator[Goldens]:
    """The recorded reference of ../shared/golden."""
    from difix_goldens import opened

    with opened(shared) as found:
        yield found


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """What the contract of `rasterize` is tested on: the CPU kernels, and gsplat where it works."""
    from difix3d.errors import MissingBackendError
    from difix3d.splatting.gsplat_cuda import require_gsplat

    if request.param == "cuda":
        try:
            require_gsplat()
        except MissingBackendError as error:
            pytest.skip(error.message)
    return request.param


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium for Playwright."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    _skip_or_fail("no Chromium on the PATH: apt-get install chromium")
    raise AssertionError


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The one Playwright of a test run: a second one beside it does not start."""
    with sync_playwright() as running:
        yield running
