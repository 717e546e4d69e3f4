"""The .spz file: its published layout byte by byte, and how far a round trip may move anything."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.errors import FormatError
from difix3d.formats import spz
from difix3d.formats.ply import write_splats
from difix3d.formats.spz import read_spz, write_spz
from difix3d.types import Splats


def random_splats(count: int, degree: int, seed: int, spread: float = 1.0) -> Splats:
    rng = np.random.default_rng(seed)
    return Splats(
        spread * rng.uniform(-1, 1, (count, 3)),
        rng.standard_normal((count, 4)) + 0.01,
        rng.uniform(-10, 5.9, (count, 3)),
        rng.uniform(-5, 5, count),
        rng.uniform(-0.9, 0.9, (count, (degree + 1) ** 2, 3)),
    )


def opacities(splats: Splats) -> np.ndarray:
    return 1 / (1 + np.exp(-splats.opacity_logits.astype(np.float64)))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 60),
    degree=st.integers(0, 3),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.01, 1.0, 30.0, 2000.0]),
)
def test_a_round_trip_moves_nothing_farther_than_stated(tmp_path_factory, count, degree, seed, spread) -> None:
    splats = random_splats(count, degree, seed, spread)
    path = tmp_path_factory.mktemp("spz") / "a.spz"
    write_spz(path, splats)
    read = read_spz(path)
    assert len(read) == count and read.sh_degree == degree
    assert [other.name for other in path.parent.iterdir()] == ["a.spz"]
    if not count:
        return
    assert np.abs(read.means - splats.means).max() <= max(spread, 1.0) * 2.0**-22
    assert np.abs(opacities(read) - opacities(splats)).max() <= 1 / 509
    assert np.abs(read.log_scales - splats.log_scales).max() <= 1 / 31.9
    assert np.abs(read.sh[:, 0] - splats.sh[:, 0]).max() <= 0.0132
    assert np.abs(read.sh[:, 1:4] - splats.sh[:, 1:4]).max(initial=0) <= 1 / 32 + 1 / 250
    assert np.abs(read.sh[:, 4:] - splats.sh[:, 4:]).max(initial=0) <= 1 / 16 + 1 / 250
    units = splats.quats / np.linalg.norm(splats.quats, axis=1, keepdims=True)
    assert np.abs(np.sum(units * read.quats, axis=1)).min() >= np.cos(0.002)  # half the angle between the rotations


def test_what_was_read_is_written_without_another_change(tmp_path: Path) -> None:
    write_spz(tmp_path / "a.spz", random_splats(50, 3, 0))
    once = read_spz(tmp_path / "a.spz")
    write_spz(tmp_path / "b.spz", once)
    twice = read_spz(tmp_path / "b.spz")
    for name in ("means", "log_scales", "sh"):
        assert np.array_equal(getattr(once, name), getattr(twice, name)), name
    assert np.abs(opacities(once) - opacities(twice)).max() < 1e-6


def test_pieces_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spz(tmp_path / "a.spz", random_splats(50, 2, 0))
    monkeypatch.setattr(spz, "_CHUNK", 7)
    write_spz(tmp_path / "b.spz", random_splats(50, 2, 0))
    assert gzip.decompress((tmp_path / "a.spz").read_bytes()) == gzip.decompress((tmp_path / "b.spz").read_bytes())


def test_the_file_is_the_published_layout(tmp_path: Path) -> None:
    """Two splats of SH degree 1, every byte worked out by hand from the format's description."""
    splats = Splats(
        np.array([[1.0, 2.0, -3.0], [1000.0, 0, 0]]),
        np.array([[0.6, 0.0, 0.8, 0.0], [2.0, 0, 0, 0]]),  # wxyz; the second is the identity, not normalised
        np.array([[-10.0, -4.0, 5.0], [0, 0, 0]]),
        np.array([0.0, 40.0]),
        np.array([[[0, 1, -1], [0.5, 0, 0], [0, 0.25, 0], [0, 0, -0.5]], np.zeros((4, 3))]),
    )
    write_spz(tmp_path / "a.spz", splats)
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    header = struct.unpack("<4sIIBBBB", data[:16])
    assert header == (b"NGSP", 3, 2, 1, 13, 0, 0)  # 13 bits: 1000 x 2^13 is below 2^23
    numbers = [int.from_bytes(data[at : at + 3], "little", signed=True) for at in range(16, 34, 3)]
    assert numbers == [1 << 13, -2 << 13, 3 << 13, 1000 << 13, 0, 0]  # y and z turned
    assert list(data[34:36]) == [128, 255]
    assert list(data[36:42]) == [128, 166, 89] + [128] * 3
    assert list(data[42:48]) == [0, 96, 240] + [160] * 3
    # Turned: x 0, y -0.8, z 0, w 0.6. The largest is y (index 1), so all change their sign: w is -0.6.
    first, second = struct.unpack("<2I", data[48:56])
    w = round(0.6 / 0.5**0.5 * 511)
    assert first == 1 << 30 | (1 << 9 | w) and second == 3 << 30
    assert list(data[56:65]) == [64, 128, 128, 128, 96, 128, 128, 128, 64]  # y and z of degree 1 change their sign
    assert len(data) == 16 + 2 * (9 + 1 + 3 + 3 + 4 + 9)


def test_version_2_with_its_coarser_rotations_is_read(tmp_path: Path) -> None:
    body = struct.pack("<4sIIBBBB", b"NGSP", 2, 1, 0, 12, 1, 0)
    body += b"".join(value.to_bytes(3, "little", signed=True) for value in (4096, -4096, 2048))
    body += bytes([128, 128, 255, 0, 160, 160, 144]) + bytes([204, 128, 128])
    (tmp_path / "a.spz").write_bytes(gzip.compress(body))
    splats = read_spz(tmp_path / "a.spz")
    assert splats.means.tolist() == [[1, 1, -0.5]]
    assert splats.log_scales.tolist() == [[0, 0, -1]]
    assert np.abs(splats.quats - (0.8, 0.6, 0, 0)).max() < 0.005
    assert np.abs(splats.sh[0, 0] - (0.013, 3.333, -3.333)).max() < 0.01


def test_it_is_much_smaller_than_the_ply(tmp_path: Path) -> None:
    splats = random_splats(5000, 3, 1)
    write_spz(tmp_path / "a.spz", splats)
    write_splats(tmp_path / "a.ply", splats)
    assert 4 * (tmp_path / "a.spz").stat().st_size < (tmp_path / "a.ply").stat().st_size


def test_splats_out_of_reach_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splats = random_splats(3, 0, 0)
    splats.means[1, 0] = 1e7
    write_spz(tmp_path / "a.spz", splats)
    read = read_spz(tmp_path / "a.spz")
    assert "1 splats are farther than 2048" in caplog.text
    assert abs(read.means[1, 0] - 2048) < 1 and np.abs(read.means[0] - splats.means[0]).max() <= 2.0**-13


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "header"),
        (b"no gzip at all", "could not read"),
        (gzip.compress(b"NGSP"), "header"),
        (gzip.compress(b"XXXX" + bytes(12)), "header"),
        (gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 4, 1, 0, 12, 0, 0)), "version 4"),
        (gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 1, 4, 12, 0, 0)), "SH degree 4"),
        (gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 4_000_000_000, 0, 12, 0, 0)), "4,000,000,000 splats"),
        (gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 5, 0, 12, 0, 0) + bytes(99)), "cut short"),
        (
            gzip.compress(struct.pack("<4sIIBBBB", b"NGSP", 3, 5, 0, 12, 0, 0) + bytes(range(100)))[:-30],
            "could not read",
        ),
    ],
    # Not the bytes: gzip writes the second in which each of several test processes made them.
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bad.spz").write_bytes(content)
    with pytest.raises(FormatError, match=says):
        read_spz(tmp_path / "bad.spz")


def test_a_missing_file_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="could not read"):
        read_spz(tmp_path / "none.spz")
