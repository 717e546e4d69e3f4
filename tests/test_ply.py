"""Splat PLY: what is written comes back bit for bit; other writers' layouts are read; the rest says what is wrong."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difix3d.errors import FormatError
from difix3d.formats import ply
from difix3d.formats.ply import read_splats, write_splats
from difix3d.splatting import render_view
from difix3d.types import Camera, Splats

FIELDS = ("means", "quats", "log_scales", "opacity_logits", "sh")


def random_splats(count: int, degree: int, seed: int = 0) -> Splats:
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    return Splats(
        draw((count, 3)), draw((count, 4)) + 0.1, draw((count, 3)), draw(count), draw((count, (degree + 1) ** 2, 3))
    )


def same(a: Splats, b: Splats) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 40), degree=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_round_trip_is_exact(tmp_path_factory, count: int, degree: int, seed: int) -> None:
    splats = random_splats(count, degree, seed)
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    write_splats(path, splats)
    assert same(read_splats(path), splats)
    assert [p.name for p in path.parent.iterdir()] == ["a.ply"]


def test_the_file_is_the_reference_layout(tmp_path: Path) -> None:
    splats = random_splats(2, 1)
    write_splats(tmp_path / "a.ply", splats)
    header, _, data = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    names = [line.split()[-1].decode() for line in header.splitlines() if line.startswith(b"property float")]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{i}" for i in range(9)]
    assert names == [*expected, "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    rows = np.frombuffer(data, "<f4").reshape(2, len(names))
    assert np.array_equal(rows[:, names.index("f_rest_0")], splats.sh[:, 1, 0])  # red first, all its coefficients
    assert np.array_equal(rows[:, names.index("f_rest_1")], splats.sh[:, 2, 0])
    assert np.array_equal(rows[:, names.index("f_rest_3")], splats.sh[:, 1, 1])


def rewritten(splats: Splats, path: Path, *, encoding: str, shuffle: bool, extra: bool, normals: bool) -> None:
    """The same splats as another program might write them."""
    write_splats(path, splats)
    header, _, data = path.read_bytes().partition(b"end_header\n")
    names = [line.split()[-1].decode() for line in header.splitlines() if line.startswith(b"property")]
    columns = dict(zip(names, np.frombuffer(data, "<f4").reshape(len(splats), -1).T))
    order = [n for n in names if normals or n not in ("nx", "ny", "nz")]
    if extra:
        columns["segment"] = np.arange(len(splats), dtype=np.float32)
        order.insert(3, "segment")
    if shuffle:
        order = order[::-1]
    lines = ["ply", f"format {encoding} 1.0", "comment by another program", f"element vertex {len(splats)}"]
    lines += [f"property {'double' if n == 'x' else 'float'} {n}" for n in order]
    lines += ["element face 0", "property list uchar int vertex_indices", "end_header", ""]
    if encoding == "ascii":
        body = "".join(" ".join(repr(float(columns[n][i])) for n in order) + "\n" for i in range(len(splats))).encode()
    else:
        end = "<" if "little" in encoding else ">"
        table = np.empty(len(splats), [(n, end + ("f8" if n == "x" else "f4")) for n in order])
        for n in order:
            table[n] = columns[n]
        body = table.tobytes()
    path.write_bytes("\n".join(lines).encode() + body)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_other_layouts_are_read(tmp_path: Path, encoding: str, shuffle: bool, degree: int) -> None:
    splats = random_splats(7, degree, seed=degree)
    rewritten(splats, tmp_path / "b.ply", encoding=encoding, shuffle=shuffle, extra=shuffle, normals=not shuffle)
    assert same(read_splats(tmp_path / "b.ply"), splats)


def test_unusable_splats_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splats = random_splats(5, 0)
    splats.means[1, 2] = np.nan
    splats.quats[3] = 0
    splats.opacity_logits[4] = np.inf
    write_splats(tmp_path / "a.ply", splats)
    read = read_splats(tmp_path / "a.ply")
    assert np.array_equal(read.means, splats.means[[0, 2, 4]])
    assert np.isfinite(read.opacity_logits).all() and read.opacity_logits[2] > 20
    assert "left out 2 of 5" in caplog.text and "1 by x y z, 1 by rot" in caplog.text


def test_rotations_of_any_length_are_drawn_as_they_are_meant(tmp_path: Path) -> None:
    splats = random_splats(6, 1)
    unit = splats.quats / np.linalg.norm(splats.quats, axis=1, keepdims=True)
    splats.quats[:] = unit * np.array([[1e-30], [1e30], [3e38], [1e-9], [1e-4], [50]], np.float32)
    write_splats(tmp_path / "a.ply", splats)
    read = read_splats(tmp_path / "a.ply")
    assert np.allclose(read.quats[:4], unit[:4], atol=1e-6) and np.array_equal(read.quats[4:], splats.quats[4:])
    camera = Camera(np.array([[40.0, 0, 32], [0, 40.0, 24], [0, 0, 1]]), 64, 48, np.eye(4))
    read.means[:, 2] += 4
    pictures = [render_view(replace(read, quats=quats), camera, renderer="cpu")[0] for quats in (read.quats, unit)]
    assert pictures[1].any() and np.allclose(*pictures, atol=1e-4)


def test_numbers_beyond_float32_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A double or an ascii file can hold them."""
    rows = [ROW, ROW.replace(b"8 9", b"8 1e99"), ROW.replace(b"4 5", b"nan 5")]
    (tmp_path / "a.ply").write_bytes(SPLATS.replace(b"vertex 2", b"vertex 3") + b"end_header\n" + b"".join(rows))
    assert len(read_splats(tmp_path / "a.ply")) == 1
    assert "left out 2 of 3" in caplog.text and "1 by f_dc and f_rest, 1 by scale" in caplog.text


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_what_stands_before_and_between_is_passed_over(tmp_path: Path, encoding: str) -> None:
    """An element of another program's before the splats, colours in bytes among their properties."""
    end = ">" if "big" in encoding else "<"
    splat = np.dtype([(n, end + "f4") for n in NAMES[:3]] + [("red", "u1")] + [(n, end + "f4") for n in NAMES[3:]])
    table = np.zeros(3, splat)
    for k, name in enumerate(NAMES):
        table[name] = np.arange(3) + 10 * k
    header = ["ply", f"format {encoding} 1.0", "obj_info x", "element chunk 2", "property short a", "property int b"]
    header += ["element vertex 3"]
    header += [f"property {'uchar' if name == 'red' else 'float'} {name}" for name in splat.names] + ["end_header", ""]
    before = np.ones(2, [("a", end + "i2"), ("b", end + "i4")])
    if encoding == "ascii":
        body = "".join(" ".join(str(v) for v in row.tolist()) + "\n" for t in (before, table) for row in t).encode()
    else:
        body = before.tobytes() + table.tobytes()
    (tmp_path / "a.ply").write_bytes("\n".join(header).encode() + body)
    read = read_splats(tmp_path / "a.ply")
    assert read.means[:, 1].tolist() == [10, 11, 12] and read.quats[:, 3].tolist() == [130, 131, 132]
    assert read.sh_degree == 0 and read.sh[:, 0, 2].tolist() == [50, 51, 52]


@pytest.mark.parametrize("word", ["comment", "obj_info"])
def test_long_comments_are_passed_over(tmp_path: Path, word: str) -> None:
    splats = random_splats(3, 0)
    write_splats(tmp_path / "a.ply", splats)
    plain = (tmp_path / "a.ply").read_bytes()
    for length in (4089, 5000, 900_000):
        line = f"{word} {'end_header ' * (length // 11)}{'x' * (length % 11)}\n".encode()
        (tmp_path / "b.ply").write_bytes(plain.replace(b"element", line + b"element", 1))
        assert same(read_splats(tmp_path / "b.ply"), splats)
    (tmp_path / "c.ply").write_bytes(plain.replace(b"element", word.encode() + 1_200_000 * b" y" + b"\nelement", 1))
    with pytest.raises(FormatError, match="not understood"):
        read_splats(tmp_path / "c.ply")


def test_more_than_one_chunk_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ply, "_CHUNK", 16)
    for encoding in ("ascii", "binary_big_endian"):
        for count in (15, 16, 17, 40):
            splats = random_splats(count, 2, count)
            rewritten(splats, tmp_path / "a.ply", encoding=encoding, shuffle=True, extra=True, normals=True)
            assert same(read_splats(tmp_path / "a.ply"), splats)


def exported_by_gsplat(path: Path, splats: Splats, kind: str) -> None:
    """Written by another project's exporter."""
    exporter = pytest.importorskip("gsplat.exporter")
    tensors = [torch.from_numpy(a) for a in (splats.means, splats.log_scales, splats.quats, splats.opacity_logits)]
    sh = torch.from_numpy(splats.sh)
    exporter.export_splats(*tensors, sh[:, :1], sh[:, 1:], format=kind, save_to=str(path))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_gsplats_export_is_read(tmp_path: Path, degree: int) -> None:
    splats = random_splats(50, degree, degree)
    exported_by_gsplat(tmp_path / "a.ply", splats, "ply")
    assert same(read_splats(tmp_path / "a.ply"), splats)


def test_a_compressed_ply_says_that_it_is_one(tmp_path: Path) -> None:
    exported_by_gsplat(tmp_path / "a.ply", random_splats(300, 3), "ply_compressed")
    with pytest.raises(FormatError, match="compressed splat PLY; export it uncompressed"):
        read_splats(tmp_path / "a.ply")


GOOD = "ply\nformat ascii 1.0\nelement vertex 1\n"
NAMES = [n for n in ply._property_names(1) if n not in ("nx", "ny", "nz")]
SPLATS = ("ply\nformat ascii 1.0\nelement vertex 2\n" + "".join(f"property float {n}\n" for n in NAMES)).encode()
ROW = b"1 2 3 4 5 6 7 8 9 10 11 12 13 14\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "first line"),
        (b"\x89PNG\r\n", "first line"),
        (b"ply\n", "end_header"),
        (b"ply\nformat ascii 1.0\nelement vertex -3\n", "not understood"),
        (b"ply\nformat middle_endian 1.0\n", "not understood"),
        (b"ply\nproperty float x\n", "not understood"),
        (b"ply\nformat ascii 1.0\nend_header\n", "no element vertex"),
        (GOOD.encode() + b"property float x\nproperty uchar red\nend_header\n1 2\n", "point cloud"),
        (GOOD.encode() + b"property float f_rest_0\nend_header\n1\n", "SH degree"),
        (GOOD.encode() + b"property float x\nproperty float x\nend_header\n1 1\n", "twice"),
        (SPLATS + b"end_header\n" + ROW + ROW.replace(b"7", b"hello"), "2 lines of 14 numbers .*hello"),
        (SPLATS + b"end_header\n" + ROW + b"15 " + ROW, "2 lines of 14 numbers"),
        (SPLATS + b"property float extra\nend_header\n" + ROW + ROW, "2 lines of 15 numbers, got 2 of 14"),
        (SPLATS + b"end_header\n" + ROW + b"\n" * 40, "2 lines of 14 numbers, got 1"),
        (SPLATS + b"end_header\n" + ROW, "cut short"),
        (SPLATS.replace(b"vertex 2", b"vertex 9999999999") + b"end_header\n" + ROW, "cut short"),
        (
            b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n1",
            "cut short",
        ),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bad.ply").write_bytes(content)
    with pytest.raises(FormatError, match=says):
        read_splats(tmp_path / "bad.ply")


def test_a_missing_or_truncated_file_is_a_format_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="could not read"):
        read_splats(tmp_path / "none.ply")
    write_splats(tmp_path / "a.ply", random_splats(9, 3))
    (tmp_path / "a.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-1])
    with pytest.raises(FormatError, match="cut short"):
        read_splats(tmp_path / "a.ply")


def test_reading_and_writing_need_little_more_memory_than_the_splats(tmp_path: Path) -> None:
    splats = random_splats(200_000, 1)
    size = sum(getattr(splats, name).nbytes for name in FIELDS)
    tracemalloc.start()
    try:
        write_splats(tmp_path / "a.ply", splats)
        _, writing = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        read = read_splats(tmp_path / "a.ply")
        _, reading = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert same(read, splats)
    assert writing < 0.6 * size and reading < 1.6 * size
