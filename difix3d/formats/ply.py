"""Splats as a PLY file, laid out as the 3DGS reference code writes it, so that other viewers open ours and we theirs.

Properties, one float32 each: x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3. The f_rest are
channel-major: all higher SH coefficients of red, then of green, then of blue. opacity is a logit, scale a natural
logarithm, rot a quaternion wxyz. Normals are unused and written as zeros.

Both directions go through the file a few thousand splats at a time, so that two million need little more memory than
the splats themselves (236 bytes each at SH degree 3).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from difix3d.atomic import replacing_file
from difix3d.errors import FormatError
from difix3d.types import Splats

_log = logging.getLogger(__name__)

_SCALARS = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_REST_COUNTS = {0: 1, 9: 4, 24: 9, 45: 16}
_MAX_HEADER_LINES, _MAX_LINE_BYTES = 1000, 1 << 20
"""Comments can be long: some writers put their settings there."""
_CHUNK = 1 << 15
"""Splats read or written at once: 8 MB at SH degree 3."""
_LARGEST_LOGIT = 30.0
"""Converters store an opacity of exactly 1 as an infinite logit; sigmoid(30) is 1 in float32."""
_USUAL_LENGTHS = 1e-6, 1e6
"""Of the largest number of a quaternion: renderers square it in float32, and read beyond some 1e-19 or 1e19 as 0 or
infinite. gsplat begins at 1e-12, and nothing that a fit made is near either end."""


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.properties]


def write_splats(path: Path, splats: Splats) -> None:
    """Write a binary little-endian 3DGS PLY, atomically; the SH degree is that of `splats`."""
    coefficients = splats.sh.shape[1]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(splats)}"]
    header += [f"property float {name}" for name in _property_names(coefficients)] + ["end_header", ""]
    with replacing_file(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write("\n".join(header).encode())
        for start in range(0, len(splats), _CHUNK):
            part = slice(start, start + _CHUNK)
            sh = splats.sh[part]
            columns = [
                splats.means[part],
                np.zeros((len(sh), 3), np.float32),
                sh[:, 0],
                sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), 3 * (coefficients - 1)),
                splats.opacity_logits[part, None],
                splats.log_scales[part],
                splats.quats[part],
            ]
            stream.write(np.concatenate(columns, axis=1, dtype=np.dtype("<f4")).tobytes())


def read_splats(path: Path) -> Splats:
    """Read a 3DGS PLY: ascii or binary, any order and number types, SH degree 0 to 3; extra properties are ignored.

    Splats that no renderer can show (a NaN, an infinity, a number beyond float32, or a quaternion 0) are left out, and
    a warning in the log says how many for which property. Quaternions whose squares float32 could not hold are made
    unit length. FormatError for what is no PLY, is cut short, or lacks a property.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            encoding, elements = _read_header(path.name, stream)
            vertex = _seek_vertices(path, stream, encoding, elements)
            coefficients = _coefficients(path.name, vertex)
            splats = _empty(vertex.count, coefficients)
            start = 0
            for columns in _chunks(path.name, stream, encoding, vertex):
                start += _fill(splats, start, columns)
    except OSError as error:
        raise _unreadable(path, error) from error
    return _sound(path.name, splats)


def splat_count(path: Path) -> int:
    """How many splats a 3DGS PLY holds by its header, which is all that is read. FormatError as in `read_splats`."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _seek_vertices(path, stream, *_read_header(path.name, stream)).count
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FormatError:
    return FormatError(f"{path.name}: expected a splat PLY, could not read it ({error.strerror})")


def _property_names(coefficients: int) -> list[str]:
    rest = [f"f_rest_{index}" for index in range(3 * (coefficients - 1))]
    dc, scale, rot = ([f"{stem}_{i}" for i in range(n)] for stem, n in (("f_dc", 3), ("scale", 3), ("rot", 4)))
    return ["x", "y", "z", "nx", "ny", "nz", *dc, *rest, "opacity", *scale, *rot]


def _read_header(name: str, stream: BinaryIO) -> tuple[str, list[_Element]]:
    """The encoding and the elements in file order; leaves `stream` at the first byte of data."""
    if stream.readline(16).strip() != b"ply":
        raise FormatError(f"{name}: expected a PLY file, its first line is not 'ply'")
    encoding, elements = "", list[_Element]()
    for _ in range(_MAX_HEADER_LINES):
        line = stream.readline(_MAX_LINE_BYTES)
        words = line.decode("ascii", "replace").split()
        try:
            match words:
                case [] if not line:
                    break
                case [] | ["comment" | "obj_info", *_]:
                    pass
                case ["format", kind, _] if kind in _BYTE_ORDERS:
                    encoding = kind
                case ["element", element, count] if int(count) >= 0:
                    elements.append(_Element(element, int(count)))
                case ["property", "list", _, _, prop]:
                    elements[-1].has_list = True
                    elements[-1].properties.append((prop, "list"))
                case ["property", kind, prop]:
                    elements[-1].properties.append((prop, _SCALARS[kind]))
                case ["end_header"] if encoding:
                    return encoding, elements
                case _:
                    raise ValueError
        except (ValueError, KeyError, IndexError) as error:
            raise FormatError(f"{name}: PLY header line {' '.join(words)[:80]!r} is not understood") from error
    raise FormatError(f"{name}: the PLY header has no end_header with a format before it; the file may be cut short")


def _seek_vertices(path: Path, stream: BinaryIO, encoding: str, elements: list[_Element]) -> _Element:
    """The vertex element, with `stream` at its first row; what comes before is passed over."""
    for element in elements:
        if element.has_list:
            raise FormatError(f"{path.name}: expected splats, found a list property (a mesh?)")
        if len(set(element.names)) != len(element.names):
            raise FormatError(f"{path.name}: element {element.name} names a property twice")
        # In ascii a number takes at least a digit and a separator, which the last one may lack.
        ascii = encoding == "ascii"
        row_bytes = 2 * len(element.names) if ascii else _row_type(encoding, element).itemsize
        left = path.stat().st_size - stream.tell()
        if element.count * row_bytes - ascii > left:
            raise FormatError(
                f"{path.name}: the header promises {element.count:,} {element.name} rows of {row_bytes} bytes, "
                f"{left:,} bytes follow; the file is cut short. Copy or export it again."
            )
        if element.name == "vertex":
            return element
        if ascii:
            for _ in itertools.islice(stream, element.count):
                pass
        else:
            stream.seek(element.count * row_bytes, 1)
    raise FormatError(f"{path.name}: the PLY has no element vertex")


def _row_type(encoding: str, element: _Element) -> np.dtype:
    return np.dtype([(name, _BYTE_ORDERS[encoding] + kind) for name, kind in element.properties])


def _coefficients(name: str, vertex: _Element) -> int:
    """How many SH coefficients a splat has; FormatError where a property is missing."""
    if "packed_position" in vertex.names:
        raise FormatError(f"{name}: a compressed splat PLY; export it uncompressed (plain PLY) and try again.")
    rest_count = sum(prop.startswith("f_rest_") for prop in vertex.names)
    if rest_count not in _REST_COUNTS:
        raise FormatError(f"{name}: {rest_count} f_rest properties; expected 0, 9, 24 or 45 (SH degree 0 to 3)")
    wanted = _property_names(_REST_COUNTS[rest_count])
    missing = [prop for prop in wanted if prop not in vertex.names and prop not in ("nx", "ny", "nz")]
    if missing:
        hint = " This is a point cloud or a mesh, not splats." if "f_dc_0" in missing else ""
        raise FormatError(f"{name}: no property {', '.join(missing[:4])} in element vertex.{hint}")
    return _REST_COUNTS[rest_count]


def _chunks(name: str, stream: BinaryIO, encoding: str, vertex: _Element) -> Iterator[dict[str, NDArray]]:
    """Some rows at a time: the properties by name, each [rows]."""
    for start in range(0, vertex.count, _CHUNK):
        count = min(_CHUNK, vertex.count - start)
        if encoding == "ascii":
            table = _ascii_rows(name, stream, start, count, len(vertex.names))
            yield {prop: table[:, index] for index, prop in enumerate(vertex.names)}
        else:
            records = np.fromfile(stream, dtype=_row_type(encoding, vertex), count=count)
            yield {prop: records[prop] for prop in vertex.names}


def _ascii_rows(name: str, stream: BinaryIO, start: int, count: int, width: int) -> NDArray[np.float64]:
    """[count, width]; one row per line, as the PLY format has it."""
    lines = [line.decode("ascii", "replace") for line in itertools.islice(stream, count)]
    rows = f"{name}: vertex rows {start:,} to {start + count - 1:,}: expected {count:,} lines of {width} numbers"
    try:
        table = np.loadtxt(lines, np.float64, comments=None, ndmin=2)
    except ValueError as error:
        raise FormatError(f"{rows} ({error})") from error
    if table.shape != (count, width):
        raise FormatError(f"{rows}, got {len(table):,} of {table.shape[1]}")
    return table


def _empty(count: int, coefficients: int) -> Splats:
    shapes = ((count, 3), (count, 4), (count, 3), (count,), (count, coefficients, 3))
    return Splats(*(np.empty(shape, np.float32) for shape in shapes))


def _fill(splats: Splats, start: int, columns: dict[str, NDArray]) -> int:
    """Put the rows of a chunk into splats from `start` on; how many there are."""
    part = slice(start, start + len(columns["x"]))
    higher = splats.sh.shape[1] - 1
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is left out at the end
        for target, names in (
            (splats.means, ("x", "y", "z")),
            (splats.log_scales, ("scale_0", "scale_1", "scale_2")),
            (splats.quats, ("rot_0", "rot_1", "rot_2", "rot_3")),
            (splats.sh[:, 0], ("f_dc_0", "f_dc_1", "f_dc_2")),
        ):
            for axis, name in enumerate(names):
                target[part, axis] = columns[name]
        for index in range(3 * higher):
            splats.sh[part, 1 + index % higher, index // higher] = columns[f"f_rest_{index}"]
        logits = columns["opacity"].astype(np.float32)
    splats.opacity_logits[part] = np.where(np.isinf(logits), np.copysign(np.float32(_LARGEST_LOGIT), logits), logits)
    return len(logits)


def _sound(name: str, splats: Splats) -> Splats:
    """The splats that can be drawn, with quaternions that float32 can normalise."""
    largest = np.abs(splats.quats).max(axis=1)
    usable = {
        "x y z": np.isfinite(splats.means).all(1),
        "f_dc and f_rest": np.isfinite(splats.sh).all((1, 2)),
        "opacity": np.isfinite(splats.opacity_logits),
        "scale": np.isfinite(splats.log_scales).all(1),
        "rot": np.isfinite(largest) & (largest > 0),
    }
    low, high = _USUAL_LENGTHS
    odd = np.flatnonzero(usable["rot"] & ((largest < low) | (largest > high)))
    scaled = splats.quats[odd].astype(np.float64) / largest[odd, None]
    splats.quats[odd] = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    kept = np.logical_and.reduce(list(usable.values()))
    if kept.all():
        return splats
    reasons = ", ".join(f"{(~good).sum():,} by {what}" for what, good in usable.items() if not good.all())
    _log.warning(
        "%s: left out %s of %s splats with values that are not numbers, infinite, or a rotation of 0 (%s)",
        name, f"{(~kept).sum():,}", f"{len(kept):,}", reasons,
    )  # fmt: skip
    fields = (splats.means, splats.quats, splats.log_scales, splats.opacity_logits, splats.sh)
    return Splats(*(values[kept] for values in fields))
