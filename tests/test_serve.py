"""`python app.py CAPTURE`: what it begins with."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path

import httpx
import pytest
from PIL import Image

from difix3d import jobs
from difix3d.errors import CaptureError, ConfigError
from difix3d.ui.serve import arguments, make_studio, serve


def begun(tmp_path: Path, capture: Path):
    database = f"sqlite:///{tmp_path / 'ratings.sqlite'}"
    studio = make_studio(arguments([str(capture), "--scenes", str(tmp_path / "scenes"), "--ratings-db", database]))
    return studio, studio.open_scene(studio.first_scene, "ann")


def test_of_a_folder_the_same_files_are_taken_as_by_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "garden"
    folder.mkdir()
    for name in ("IMG_10.jpg", "IMG_2.JPG"):
        Image.new("RGB", (64, 48)).save(folder / name, "jpeg")
    for name in ("IMG_2.MOV", ".DS_Store", "IMG_2.xmp", "notes.txt"):
        (folder / name).write_bytes(b"beside the photos")
    studio, scene = begun(tmp_path, folder)
    jobs.cancel(scene, jobs.find(scene).id)
    assert [Path(path).name for path in studio.uploads_of(scene)] == ["IMG_2.JPG", "IMG_10.jpg"]


@pytest.fixture
def garden(tmp_path: Path) -> Path:
    folder = tmp_path / "garden"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48)).save(folder / f"{number}.jpg")
    return folder


def test_a_capture_that_is_a_scene_already_is_opened_as_it_is(tmp_path: Path, garden: Path) -> None:
    """Made once more by the quick preset, a fit of fifteen minutes would be gone."""
    _, scene = begun(tmp_path, garden)
    first = jobs.find(scene)
    jobs.cancel(scene, first.id)
    jobs._save(scene, dataclasses.replace(jobs.find(scene), state=jobs.DONE))
    scene.splats_path.write_bytes(b"of a long fit")
    _, again = begun(tmp_path, garden)
    assert again.id == scene.id and jobs.find(scene).id == first.id, "nothing was begun"
    assert scene.splats_path.read_bytes() == b"of a long fit"


def test_what_was_not_finished_is_gone_on_with_by_its_own_settings(tmp_path: Path, garden: Path) -> None:
    _, scene = begun(tmp_path, garden)
    first = jobs.find(scene)
    jobs.cancel(scene, first.id)
    steps = (jobs.Step("ingest", {"capture": (str(garden),)}), jobs.Step("fit", {"preset": "best"}))
    jobs._save(scene, dataclasses.replace(jobs.find(scene), steps=steps))
    _, again = begun(tmp_path, garden)
    job = jobs.find(again)
    jobs.cancel(scene, job.id)
    assert again.id == scene.id and job.id != first.id and [step.stage for step in job.steps] == ["ingest", "fit"]
    assert job.steps[1].config == {"preset": "best"}


def test_a_port_that_is_taken_is_told_before_anything_begins(tmp_path: Path, garden: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened on.*--port"):
            serve(arguments([str(garden), "--scenes", str(tmp_path / "scenes"), "--port", port]))
    assert not (tmp_path / "scenes").exists()


def test_python_answers_itself_where_a_space_would_put_node_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node does not know the addresses of pictures, votes and previews."""
    monkeypatch.setenv("GRADIO_SSR_MODE", "true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    database = f"sqlite:///{tmp_path / 'ratings.sqlite'}"
    options = arguments(["--scenes", str(tmp_path / "scenes"), "--ratings-db", database, "--port", port])
    page, url, _ = serve(options, block=False)
    try:
        assert page.ssr_mode is False and page.node_process is None
        assert httpx.get(f"{url.rstrip('/')}/healthz").status_code == 200
    finally:
        page.close()


def test_a_folder_without_photos_is_told_and_leaves_no_scene(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no photo")
    with pytest.raises(CaptureError, match="none of them a photo or video"):
        begun(tmp_path, tmp_path / "notes")
    assert not list((tmp_path / "scenes").glob("*/scene.json"))
