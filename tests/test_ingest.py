"""Upload -> capture/: what good uploads give, and what bad ones say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difix3d.errors import CaptureError
from difix3d.events import Artifact, Done, Event, Progress, Warned
from difix3d.scene import Scene
from difix3d.stages import ingest as module
from difix3d.stages.ingest import IngestConfig, ingest

Run = Callable[..., tuple[Scene, list[Event], dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """run(paths...) ingests into one scene; gives the scene, its events and capture.json."""

    def go(*paths: Path, **settings: Any) -> tuple[Scene, list[Event], dict[str, Any]]:
        scene = Scene.create(tmp_path / "scene")
        events = list(ingest(scene, IngestConfig(tuple(str(path) for path in paths), **settings)))
        return scene, events, json.loads(scene.capture_info_path.read_text())

    return go


def photos(folder: Path, count: int, names: str = "IMG_{:04d}.jpg", **options: Any) -> list[Path]:
    """A walk along a textured wall."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(2)
    wall = np.kron(rng.integers(0, 255, (30, 120, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
    paths = [folder / names.format(index) for index in range(8, 8 + count)]
    for index, path in enumerate(paths):
        Image.fromarray(wall[:, 40 * index : 40 * index + 400]).save(path, quality=92, **options)
    return paths


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


def test_a_folder_of_photos(tmp_path: Path, run: Run) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Pocket 3"
    exif.get_ifd(0x8769)[0xA405] = 30
    photos(tmp_path / "photos", 6, exif=exif.tobytes())
    (tmp_path / "photos/.hidden.jpg").write_bytes(b"")
    (tmp_path / "photos/notes.txt").write_text("not a photo")
    (tmp_path / "photos/deeper").mkdir()
    scene, events, capture = run(tmp_path / "photos")

    assert capture["kind"] == "photos"
    assert capture["ordered"] is True
    assert capture["skipped"] == []
    assert [row["name"] for row in capture["photos"]] == [f"{index:05d}.jpg" for index in range(1, 7)]
    assert [row["source"] for row in capture["photos"]][1:3] == ["IMG_0009.jpg", "IMG_0010.jpg"]
    for row in capture["photos"]:
        assert row.keys() == {
            "name", "source", "width", "height", "focal_px", "camera", "lens", "zoomed_mm", "sharpness", "time_seconds",
        }  # fmt: skip
        assert row["focal_px"] == pytest.approx(30 * 500 / 43.2666)
        assert row["camera"] == "Pocket 3"
        with Image.open(scene.capture_dir / row["name"]) as stored:
            assert stored.size == (row["width"], row["height"]) == (400, 300)
            assert not stored.getexif()
            assert stored.format == "JPEG"
    done = events[-1]
    assert isinstance(done, Done)
    assert done.figures["photos"] == 6
    assert done.figures["kind"] == "photos"
    assert done.figures["focal_priors"] == 6
    assert any(isinstance(event, Progress) and event.total == 6 for event in events)
    assert Artifact("ingest", "keyframes", "previews/keyframes.jpg", "6 photos") in events
    with Image.open(scene.root / "previews/keyframes.jpg") as sheet:
        assert sheet.width > 600


def test_large_photos_are_stored_small(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "photos", 4)
    _, _, capture = run(tmp_path / "photos", long_side_px=320)
    assert {(row["width"], row["height"]) for row in capture["photos"]} == {(320, 240)}


def test_files_in_any_order_are_sorted_naturally(tmp_path: Path, run: Run) -> None:
    paths = photos(tmp_path / "photos", 4, "p{}.png")
    _, _, capture = run(*reversed(paths))
    assert [row["source"] for row in capture["photos"]] == ["p8.png", "p9.png", "p10.png", "p11.png"]


def test_unnumbered_or_unrelated_photos_are_unordered(tmp_path: Path, run: Run, shared: Path) -> None:
    for path, name in zip(photos(tmp_path / "photos", 4), ("door", "arch", "well", "bench")):
        path.rename(path.with_name(f"{name}.jpg"))
    assert run(tmp_path / "photos")[2]["ordered"] is False
    assert run(shared / "scenes/bad/unrelated_photos")[2]["ordered"] is False


def test_a_second_run_is_skipped_until_the_upload_changes(tmp_path: Path, run: Run) -> None:
    paths = photos(tmp_path / "photos", 5)
    run(tmp_path / "photos")
    _, events, _ = run(tmp_path / "photos")
    assert len(events) == 1
    assert events[0].skipped
    paths[0].unlink()
    assert len(run(tmp_path / "photos")[2]["photos"]) == 4


def test_a_failed_upload_leaves_the_capture_before_it(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "photos", 4)
    scene, _, before = run(tmp_path / "photos")
    (tmp_path / "bad.mp4").write_bytes(b"")
    with pytest.raises(CaptureError):
        run(tmp_path / "bad.mp4")
    assert json.loads(scene.capture_info_path.read_text()) == before
    assert [path.name for path in scene.root.iterdir() if path.name.startswith(".")] == []


def test_cancelling_leaves_no_half_capture(tmp_path: Path) -> None:
    photos(tmp_path / "photos", 5)
    scene = Scene.create(tmp_path / "scene")
    events = ingest(scene, IngestConfig((str(tmp_path / "photos"),)))
    for event in events:
        if isinstance(event, Progress) and event.done == 3:
            events.close()
            break
    assert not scene.capture_dir.exists()
    assert scene.manifest("ingest") is None
    assert [path.name for path in scene.root.iterdir() if path.name.startswith(".")] == []


def test_duplicates_are_dropped_by_name(tmp_path: Path, run: Run) -> None:
    paths = photos(tmp_path / "photos", 4)
    shutil.copy(paths[1], tmp_path / "photos/IMG_0099.jpg")
    _, events, capture = run(tmp_path / "photos")
    assert len(capture["photos"]) == 4
    assert capture["skipped"] == [{"source": "IMG_0099.jpg", "reason": "the same picture as IMG_0009.jpg"}]
    assert any("IMG_0099.jpg" in message for message in warnings(events))


def test_mixed_formats_all_come_in(shared: Path, run: Run) -> None:
    _, events, capture = run(shared / "scenes/bad/mixed_formats")
    assert len(capture["photos"]) == 20
    assert capture["skipped"] == []
    assert all(row["height"] > row["width"] for row in capture["photos"])
    assert warnings(events) == []


def test_corrupt_files_are_each_named(shared: Path, run: Run, tmp_path: Path) -> None:
    folder = shared / "scenes/bad/corrupt_files"
    with pytest.raises(CaptureError) as caught:
        run(folder)
    for path in folder.iterdir():
        assert path.name in caught.value.message
    good = photos(tmp_path / "photos", 5)
    _, events, capture = run(*folder.iterdir(), *good)
    assert len(capture["photos"]) == 5
    assert {row["source"] for row in capture["skipped"]} == {path.name for path in folder.iterdir()}
    assert len(warnings(events)) == 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one_photo", "Found 1 usable photo; at least 4"),
        ("two_photos", "Found 2 usable photos; at least 4"),
        ("all_identical", "the same picture as"),
        ("videos/one_frame.mp4", "1 readable frame;"),
        ("videos/static_camera.mp4", "hardly moves"),
        ("videos/rotation_metadata_90.mp4", "hardly moves"),  # the same still, turned
        ("videos/all_black.mp4", "black"),
        ("videos/audio_only.mp4", "only sound"),
        ("videos/truncated_no_moov.mp4", "cut off"),
        ("videos/garbage.mp4", "no video"),
        ("videos/empty.mp4", "empty"),
    ],
)
def test_bad_uploads_end_in_a_message(shared: Path, run: Run, name: str, said: str) -> None:
    with pytest.raises(CaptureError, match=said):
        run(shared / "scenes/bad" / name)


@pytest.mark.parametrize("name", ["blurry_photos", "motion_blur_photos", "textureless"])
def test_blurred_photos_are_warned_about(shared: Path, run: Run, name: str) -> None:
    assert any("detail" in message for message in warnings(run(shared / "scenes/bad" / name)[1]))


def test_a_slideshow_video_keeps_nearly_every_step(shared: Path, run: Run) -> None:
    _, events, capture = run(shared / "scenes/bad/videos/saharov_slideshow_vp9.webm")
    assert capture["kind"] == "video"
    assert capture["ordered"] is True
    assert len(capture["photos"]) >= 28
    times = [row["time_seconds"] for row in capture["photos"]]
    assert times == sorted(times)
    assert times[-1] > 4.5
    assert capture["photos"][1]["source"].startswith("saharov_slideshow_vp9.webm#")
    assert any(isinstance(event, Progress) and "of 32 frames" in event.message for event in events)


def test_max_frames_is_kept_and_said(shared: Path, run: Run) -> None:
    _, events, capture = run(shared / "scenes/dev/v_street/video.mp4", max_frames=8)
    assert 4 <= len(capture["photos"]) <= 8
    assert events[-1].figures["frames"] >= 85


def test_blurred_videos_give_their_sharpest_frames(tmp_path: Path, run: Run) -> None:
    import cv2

    rng = np.random.default_rng(0)
    wall = np.kron(rng.integers(0, 255, (24, 200, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 12, (320, 240))
    for index in range(150):
        frame = np.ascontiguousarray(wall[:, 5 * index : 5 * index + 320])
        writer.write(frame if index % 2 else cv2.blur(frame, (9, 1)))
    writer.release()
    _, _, capture = run(tmp_path / "a.mp4")
    kept = [int(row["source"].split("#")[1]) for row in capture["photos"]]
    assert len(kept) >= 24
    assert np.mean([index % 2 for index in kept]) > 0.9


@pytest.mark.parametrize("given", ["nothing", "missing", "empty folder", "only text", "video and photo", "two folders"])
def test_odd_requests(tmp_path: Path, run: Run, given: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/readme.md").write_text("hello")
    (tmp_path / "text/images").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"0000ftyp")
    photo = photos(tmp_path / "photos", 1)[0]
    paths, said = {
        "nothing": ([], "Nothing was uploaded"),
        "missing": ([tmp_path / "no.jpg"], "no such file"),
        "empty folder": ([tmp_path / "empty"], "0 files"),
        "only text": ([tmp_path / "text"], "Did you mean the folder 'images'"),
        "video and photo": ([tmp_path / "a.mp4", photo], "one video or"),
        "two folders": ([tmp_path / "empty", tmp_path / "text"], "one folder"),
    }[given]
    with pytest.raises(CaptureError, match=said):
        run(*paths)


def test_the_number_of_photos_is_bounded(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos", 4)
    monkeypatch.setattr(module, "MAX_PHOTOS", 3)
    with pytest.raises(CaptureError, match="at most 3"):
        run(tmp_path / "photos")


def test_a_folder_with_one_video_is_that_video(shared: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    shutil.copy(shared / "scenes/dev/v_street/video.mp4", tmp_path / "clip/video.mp4")
    assert run(tmp_path / "clip", max_frames=6)[2]["kind"] == "video"
