"""Videos are read upright and within bounds; every broken one says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from difix3d.errors import CaptureError
from difix3d.formats import clip as clip_module
from difix3d.formats.clip import GREY_PX, Clip


def write(path: Path, frames: int, size: tuple[int, int] = (96, 64), fps: float = 24, code: str = "mp4v") -> Path:
    """A video whose n-th frame is grey of level 2n."""
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), 2 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.mov", "mp4v"), ("a.webm", "VP90"), ("a.mkv", "mp4v")]
)
def test_containers(tmp_path: Path, name: str, code: str) -> None:
    path = write(tmp_path / name, 40, code=code)
    with Clip(path) as clip:
        samples = list(clip.samples())
        assert clip.fps == pytest.approx(24)
        assert not clip.cut
    assert [sample.index for sample in samples] == list(range(0, 40, 2))  # every second: 12 of 24 in a second
    assert samples[3].seconds == pytest.approx(6 / 24)
    assert max(samples[0].grey.shape) == GREY_PX
    with Clip(path) as clip:
        pictures = dict(clip.pictures([3, 17, 30]))
    assert list(pictures) == [3, 17, 30]
    for index, picture in pictures.items():
        assert picture.shape == (64, 96, 3)
        assert picture.mean() == pytest.approx(2 * index, abs=4)


def test_pictures_are_red_green_blue(tmp_path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 64))
    for _ in range(3):
        writer.write(np.full((64, 96, 3), (20, 20, 220), np.uint8))  # OpenCV's order: blue first
    writer.release()
    with Clip(tmp_path / "a.mp4") as clip:
        red, green, blue = next(clip.pictures([0]))[1].mean((0, 1))
    assert red > 200
    assert green < 50 > blue


def test_rotation_metadata_is_honoured(shared: Path) -> None:
    """The same still, once with a display matrix of 90 degrees."""
    folder = shared / "scenes/bad/videos"
    with Clip(folder / "static_camera.mp4") as upright, Clip(folder / "rotation_metadata_90.mp4") as turned:
        plain, rotated = next(upright.pictures([0]))[1], next(turned.pictures([0]))[1]
    assert rotated.shape == (480, 720, 3)
    assert min(np.abs(np.rot90(plain, turns).astype(int) - rotated).mean() for turns in (1, 3)) < 1


def test_seconds_and_frames_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", 50, fps=10)
    monkeypatch.setattr(clip_module, "MAX_SECONDS", 2.0)
    with Clip(path) as clip:
        assert [sample.index for sample in clip.samples()] == list(range(21))
        assert clip.cut
    monkeypatch.setattr(clip_module, "MAX_FRAMES", 5)
    with Clip(path) as clip:
        assert len(list(clip.samples())) == 5
        assert clip.cut


def test_pixels_and_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(clip_module, "MAX_PIXELS", 1000)
    with pytest.raises(CaptureError, match="96x64 pixels"):
        Clip(path)
    monkeypatch.setattr(clip_module, "MAX_BYTES", 100)
    with pytest.raises(CaptureError, match="at most"):
        Clip(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("audio_only.mp4", "only sound"),
        ("truncated_no_moov.mp4", "cut off"),
        ("garbage.mp4", "no video"),
        ("empty.mp4", "empty"),
    ],
)
def test_broken_videos_say_what_is_wrong(shared: Path, name: str, said: str) -> None:
    with pytest.raises(CaptureError, match=said) as caught:
        Clip(shared / "scenes/bad/videos" / name)
    assert name in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '/etc/hostname'\n",
        "<html><body>404</body></html>",
        "PK\x03\x04zip",
    ],
)
def test_playlists_and_other_text_never_reach_the_decoder(tmp_path: Path, text: str) -> None:
    (tmp_path / "clip.mp4").write_text(text)
    with pytest.raises(CaptureError, match="no video"):
        Clip(tmp_path / "clip.mp4")


def test_broken_bytes_end_in_frames_or_a_capture_error(tmp_path: Path) -> None:
    whole = np.frombuffer(write(tmp_path / "a.mp4", 12).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(25):
        broken = whole.copy()
        broken[rng.integers(8, len(whole), 12)] = rng.integers(0, 256, 12)
        path = tmp_path / "b.mp4"
        path.write_bytes(broken[: rng.integers(100, len(broken) + 1)].tobytes())
        try:
            with Clip(path) as clip:
                assert len(list(clip.samples())) <= 200
        except CaptureError as error:
            assert "b.mp4" in error.message


def test_a_name_with_a_percent_sign_is_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "take %02d.mp4", 4)
    with Clip(path) as clip:
        assert len(list(clip.samples())) >= 2


def test_a_broken_video_prints_nothing(shared: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from difix3d.formats.clip import Clip\n"
        "from difix3d.errors import CaptureError\n"
        "try:\n    Clip(Path(sys.argv[1]))\nexcept CaptureError:\n    pass"
    )
    broken = str(shared / "scenes/bad/videos/truncated_no_moov.mp4")
    done = subprocess.run([sys.executable, "-c", code, broken], check=True, capture_output=True)
    assert done.stdout + done.stderr == b""
