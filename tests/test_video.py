"""Videos: the same frames come back, whatever their size, and a browser plays them in their colours."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Playwright

from difix3d.errors import FormatError, ShapeError
from difix3d.formats.clip import Clip
from difix3d.formats.video import open_video
from difix3d.formats.webm_colour import mark_bt601


def frames(count: int = 10, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Soft colours that wander: what a render looks like to an encoder."""
    y, x = np.mgrid[:height, :width] / 40.0
    channels = [
        [0.5 + 0.4 * np.sin(x * a + y * b + 0.2 * t) for a, b in ((1, 2), (2, -1), (-1, 1))] for t in range(count)
    ]
    return [(np.stack(three, axis=-1) * 255).astype(np.uint8) for three in channels]


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: float) -> None:
    """Of the size of the first; 8 x 8 where there is none."""
    pictures = list(pictures)
    height, width = pictures[0].shape[:2] if pictures else (8, 8)
    with open_video(path, (width, height), fps) as write:
        for picture in pictures:
            write(picture)


def decoded(path: Path) -> list[np.ndarray]:
    with Clip(path) as clip:
        return [picture for _, picture in clip.pictures(range(1000))]


@pytest.mark.parametrize("name", ["a.webm", "a.mp4"])
@pytest.mark.parametrize("size", [(96, 64), (97, 65), (33, 48), (48, 31), (16, 16), (17, 9)])
def test_the_same_frames_come_back(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    width, height = size
    written = frames(8, width, height)
    write_video(tmp_path / name, written, 24)
    read = decoded(tmp_path / name)
    assert len(read) == 8
    for before, after in zip(written, read):
        assert after.shape == (height + height % 2, width + width % 2, 3)
        difference = after[:height, :width].astype(float) - before
        assert np.sqrt(np.mean(difference**2)) < 6, "8-bit levels"
    # The order is kept: each frame is nearest to itself.
    if width > 16:
        apart = [[np.abs(a[:height, :width].astype(float) - b).mean() for b in written] for a in read]
        assert np.argmin(apart, axis=1).tolist() == list(range(8))


def test_red_stays_red_and_left_stays_left(tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48] = (200, 30, 30)
    frame[:, 48:] = (30, 30, 200)
    write_video(tmp_path / "a.webm", [frame] * 3, 10)
    read = decoded(tmp_path / "a.webm")[-1].astype(int)
    assert np.abs(read[20:40, 10:40].mean((0, 1)) - (200, 30, 30)).max() < 12
    assert np.abs(read[20:40, 58:88].mean((0, 1)) - (30, 30, 200)).max() < 12


def test_smaller_frames_are_centred_on_black(tmp_path: Path) -> None:
    with open_video(tmp_path / "a.webm", (96, 64), 2) as write:
        write(np.full((64, 96, 3), 200, np.uint8))
        write(np.full((64, 32, 3), 200, np.uint8))
    second = decoded(tmp_path / "a.webm")[1].astype(int)
    assert second[:, 36:60].min() > 170 and second[:, :24].max() < 40 and second[:, 72:].max() < 40


def test_a_video_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    write_video(path, frames(3), 24)
    before = path.read_bytes()

    with pytest.raises(RuntimeError, match="stopped"), open_video(path, (96, 64), 24) as write:
        write(frames(1)[0])
        raise RuntimeError("stopped")
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.webm"]


@pytest.mark.parametrize(
    ("name", "pictures", "fps", "error", "words"),
    [
        ("a.webm", [], 24, FormatError, "at least 1 frame"),
        ("a.avi", frames(1), 24, FormatError, "written as .webm or .mp4"),
        ("a.webm", frames(1), 0, FormatError, "frame rate"),
        ("a.webm", frames(1), float("nan"), FormatError, "frame rate"),
        ("a.webm", [np.zeros((4, 20_000, 3), np.uint8)], 24, FormatError, "20000x4"),
        ("a.webm", [np.zeros((2, 2, 3), np.uint8)], 24, FormatError, "2x2"),
        ("a.webm", [frames(1)[0], frames(1, 100)[0]], 24, ShapeError, "at most 64 rows and 96 columns"),
        ("a.webm", [np.zeros((8, 8), np.uint8)], 24, ShapeError, "uint8"),
        ("a.webm", [np.zeros((8, 8, 3), np.float32)], 24, ShapeError, "float32"),
    ],
)
def test_what_cannot_be_a_video_is_said(tmp_path: Path, name, pictures, fps, error, words) -> None:
    with pytest.raises(error, match=words):
        write_video(tmp_path / name, pictures, fps)
    assert not list(tmp_path.iterdir())


def test_opening_says_nothing_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    write_video(tmp_path / "a.webm", frames(2), 24)
    assert "OpenCV" not in capfd.readouterr().err


def test_the_file_says_how_its_colours_are_coded(tmp_path: Path) -> None:
    """Matroska's Colour element is there once, and every element is still where the index says."""
    write_video(tmp_path / "a.webm", frames(5), 24)
    data = (tmp_path / "a.webm").read_bytes()
    assert data.count(bytes.fromhex("55b09055b18106")) == 1  # Colour, 16 bytes, MatrixCoefficients 6
    assert b"ENCODER" not in data
    assert len(decoded(tmp_path / "a.webm")) == 5


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"\x1aE\xdf\xa3\x80", bytes(range(256)) * 4])
def test_what_is_no_webm_of_opencvs_is_left_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(data)
    assert not mark_bt601(path) and path.read_bytes() == data


def test_marking_twice_or_a_cut_file_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    write_video(path, frames(5), 24)
    whole = path.read_bytes()
    assert not mark_bt601(path) and path.read_bytes() == whole  # its Tags are gone: there is no room a second time
    for length in range(0, 440, 7):
        path.write_bytes(whole[:length])
        mark_bt601(path)
        assert len(path.read_bytes()) == length


def test_an_mp4_says_how_its_colours_are_coded(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames(5), 24)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data[4:8] == b"ftyp" and data.count(b"vpcC") == 1
    at = data.index(b"vpcC") + 11
    assert list(data[at : at + 3]) == [1, 1, 6]  # primaries and transfer BT.709, matrix BT.601


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.browser
@pytest.mark.parametrize("name", ["a.webm", "a.mp4"])
def test_chromium_plays_it_in_its_colours(tmp_path: Path, chromium: str, playwright: Playwright, name: str) -> None:
    colours = [(200, 40, 40), (40, 160, 60), (50, 60, 200), (128, 128, 128)]
    frame = np.zeros((720, 400, 3), np.uint8)  # tall: where some players guess HD colours
    for index, colour in enumerate(colours):
        frame[180 * index : 180 * (index + 1)] = colour
    write_video(tmp_path / name, [frame] * 24, 12)
    (tmp_path / "index.html").write_text(f"<video src='{name}' muted></video><canvas width=400 height=720></canvas>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    try:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        played = page.evaluate(
            """async () => {
                const video = document.querySelector('video');
                const ended = new Promise(done => { video.onended = done; video.onerror = done; });
                await video.play();
                await ended;
                const context = document.querySelector('canvas').getContext('2d');
                context.drawImage(video, 0, 0);
                const at = y => [...context.getImageData(200, y, 1, 1).data.slice(0, 3)];
                return {ready: video.readyState, duration: video.duration, width: video.videoWidth,
                        height: video.videoHeight, error: video.error && video.error.message,
                        at: video.currentTime, colours: [90, 270, 450, 630].map(at)};
            }"""
        )
        browser.close()
    finally:
        server.shutdown()
        server.server_close()
    assert played["error"] is None and played["ready"] >= 2
    assert (played["width"], played["height"]) == (400, 720)
    assert played["duration"] == pytest.approx(2.0, abs=0.1) and played["at"] == pytest.approx(2.0, abs=0.15)
    assert np.abs(np.array(played["colours"]) - colours).max() <= 12
