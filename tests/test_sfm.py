"""What every backend that finds cameras keeps to, on 18 photos of the courtyard. New ones are tested at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from courtyard import TRANSFORMS, disagreement, ingested, photo_paths, true_poses
from PIL import Image

from difix3d.errors import ConfigError, ReconstructionError
from difix3d.events import Progress, Warned
from difix3d.formats.colmap import read_reconstruction
from difix3d.sfm import BACKENDS, load_backend
from difix3d.sfm.base import Photo, PhotoSet, SfmBackend, SfmResult, SfmSettings, Snapshot, needed_photos
from difix3d.sfm.features import share_cameras
from difix3d.stages.ingest import MIN_PHOTOS
from difix3d.stages.reconstruct import read_photos

SETTINGS = SfmSettings(known_poses=str(TRANSFORMS), threads=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    return read_photos(ingested(tmp_path_factory.mktemp("sfm") / "scene", photo_paths(every=2)))


@pytest.fixture(scope="module", params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> SfmBackend:
    return load_backend(request.param)


Ran = tuple[SfmResult, list[Any], Path]


@pytest.fixture(scope="module")
def ran(backend: SfmBackend, photos: PhotoSet, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """(result, everything said, workspace)"""
    workspace = tmp_path_factory.mktemp("workspace") / backend.name
    workspace.mkdir()
    work, said = backend.reconstruct(photos, workspace, SETTINGS), []
    while True:
        try:
            said.append(next(work))
        except StopIteration as end:
            return end.value, said, workspace


def test_a_backend_is_what_its_name_says(backend: SfmBackend) -> None:
    assert isinstance(backend, SfmBackend) and load_backend(backend.name).name == backend.name


@pytest.mark.slow
def test_straight_photos_and_their_model(ran: Ran, photos: PhotoSet) -> None:
    result, _, workspace = ran
    assert result.images_dir.is_relative_to(workspace) and result.sparse_dir.is_relative_to(workspace)
    found = read_reconstruction(result.sparse_dir, result.images_dir)  # refuses lenses with distortion
    names = {photo.name for photo in photos.photos}
    registered = {view.name for view in found.views}
    assert registered | set(result.left_out) == names and not registered & set(result.left_out)
    assert len(registered) >= 17
    for view in found.views:
        with Image.open(view.image_path) as picture:
            assert picture.size == (view.camera.width, view.camera.height)
    assert min(len(view.point_indices) for view in found.views) > 30
    assert result.figures["registered"] == len(registered) and result.figures["photos"] == len(names)
    assert result.figures["points"] == len(found.points) > 300
    assert 0 < result.figures["reprojection_px"] < 1.5
    assert {"focal_px", "mapper"} <= set(result.figures)
    phases = [result.figures[f"seconds_{phase}"] for phase in ("extract", "match", "map", "straighten")]
    assert all(seconds >= 0 for seconds in phases) and sum(phases) > 0


@pytest.mark.slow
def test_the_cameras_are_where_they_were(ran: Ran, photos: PhotoSet) -> None:
    result = ran[0]
    cameras = {photos.source_of(view.name): view.camera for view in read_reconstruction(result.sparse_dir).views}
    away, angle_deg, _ = disagreement(cameras, true_poses())
    assert away < 0.01 and angle_deg < 0.5
    assert result.figures["focal_px"] == pytest.approx(509.1, rel=0.02)


@pytest.mark.slow
def test_progress_counts_photos_pairs_and_cameras(ran: Ran) -> None:
    said = ran[1]
    assert all(isinstance(event, Progress | Warned | Snapshot) for event in said)
    progress = [event for event in said if isinstance(event, Progress)]
    assert all(event.stage == "reconstruct" for event in progress)
    assert all(0 <= event.done <= event.total for event in progress if event.total)
    assert {"photos", "pairs"} <= {event.unit for event in progress}
    for message in {event.message for event in progress if event.total}:
        steps = [event.done for event in progress if event.message == message and event.total]
        assert steps == sorted(steps), message


def test_too_few_photos_are_refused_before_any_work(backend: SfmBackend, photos: PhotoSet, tmp_path: Path) -> None:
    few = PhotoSet(photos.folder, photos.photos[:3], photos.ordered)
    with pytest.raises(ReconstructionError, match=r"Found 3 photos; at least 4 are needed.*Walk around"):
        list(backend.reconstruct(few, tmp_path, SETTINGS))


def test_closing_stops_the_work(backend: SfmBackend, photos: PhotoSet, tmp_path: Path) -> None:
    before = threading.active_count()
    work = backend.reconstruct(photos, tmp_path, SETTINGS)
    next(event for event in work if isinstance(event, Progress) and event.message == "Finding features")
    started = time.monotonic()
    work.close()
    assert time.monotonic() - started < 2.0  # what cancelling a job promises
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


def test_an_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="colmap, known_poses"):
        load_backend("magic")


def test_photos_of_one_lens_share_a_camera() -> None:
    def photo(name: str, focal_px: float | None = None, camera: str = "", width: int = 960, **more: Any) -> Photo:
        return Photo(name, width, 640, focal_px=focal_px, camera=camera, **more)

    same = [photo("a", 800, "X"), photo("b", 801, "X"), photo("c", 820, "X")]
    zoomed, other, turned = photo("d", 1200, "X"), photo("e", 800, "Y"), photo("f", 800, "X", width=640)
    groups = share_cameras((*same, zoomed, other, turned))
    assert [[item.name for item in group] for group in groups] == [["a", "b", "c"], ["d"], ["e"], ["f"]]
    assert len(share_cameras((photo("a"), photo("b"), photo("c", 700)))) == 2
    # Without a focal length in pixels: main lens, main lens zoomed twice, wide lens, another model of lens.
    lenses = [photo("a", zoomed_mm=4.25), photo("b", zoomed_mm=4.3), photo("c", zoomed_mm=8.5)]
    lenses += [photo("d", zoomed_mm=1.8), photo("e", zoomed_mm=4.25, lens="L")]
    groups = share_cameras(tuple(lenses))
    assert [[item.name for item in group] for group in groups] == [["a", "b"], ["c"], ["d"], ["e"]]


def test_how_many_photos_make_a_scene() -> None:
    assert needed_photos(0) == MIN_PHOTOS, "what is taken in must not be refused for its number"
    assert [needed_photos(count) for count in (0, 4, 32, 40, 64, 600)] == [4, 4, 4, 5, 8, 8]
    assert np.all(np.diff([needed_photos(count) for count in range(200)]) >= 0)
