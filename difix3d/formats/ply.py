"""Splats as a PLY file, laid out as the 3DGS reference code writes it, so that other viewers open ours and we theirs.

Properties, one float32 each: x y z nx ny nz f_dc_0..2 f_rest_0.. opacity scale_0..2 rot_0..3. The f_rest are
channel-major: all higher SH coefficients of red, then of green, then of blue. opacity is a logit, scale a natural
logarithm, rot a quaternion wxyz. Normals are unused and written as zeros.
"""

from __future__ import annotations

import logging
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
_MAX_HEADER_LINES = 1000
_LARGEST_LOGIT = 30.0
"""Converters store an opacity of exactly 1 as an infinite logit; sigmoid(30) is 1 in float32."""


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False


def write_splats(path: Path, splats: Splats) -> None:
    """Write a binary little-endian 3DGS PLY, atomically; the SH degree is that of `splats`."""
    count, coefficients = len(splats), splats.sh.shape[1]
    names = _property_names(coefficients)
    rows = np.concatenate(
        [
            splats.means,
            np.zeros((count, 3), np.float32),
            splats.sh[:, 0],
            splats.sh[:, 1:].transpose(0, 2, 1).reshape(count, 3 * (coefficients - 1)),
            splats.opacity_logits[:, None],
            splats.log_scales,
            splats.quats,
        ],
        axis=1,
        dtype=np.dtype("<f4"),
    )
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    with replacing_file(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write("\n".join(header).encode())
        stream.write(rows.tobytes())


def read_splats(path: Path) -> Splats:
    """Read a 3DGS PLY: ascii or binary, any property order, SH degree 0 to 3, extra properties ignored.

    Splats with a non-finite value or a zero quaternion show nothing anywhere and are left out, with a log line.
    FormatError for what is no PLY, is cut short, or lacks a property.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            encoding, elements = _read_header(path.name, stream)
            columns = _read_vertices(path, stream, encoding, elements)
    except OSError as error:
        raise FormatError(f"{path.name}: expected a splat PLY, could not read it ({error.strerror})") from error
    return _splats_from(path.name, columns)


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
        line = stream.readline(4096)
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


def _read_vertices(path: Path, stream: BinaryIO, encoding: str, elements: list[_Element]) -> dict[str, NDArray]:
    """The vertex element's properties by name, each [N]."""
    order = _BYTE_ORDERS[encoding]
    for element in elements:
        if element.has_list:
            raise FormatError(f"{path.name}: expected splats, found a list property (a mesh?)")
        names = [prop for prop, _ in element.properties]
        if len(set(names)) != len(names):
            raise FormatError(f"{path.name}: element {element.name} names a property twice")
        row = np.dtype([(prop, order + kind) for prop, kind in element.properties])
        if encoding == "ascii":
            table = _read_ascii_rows(path.name, stream, element, len(names))
            columns = {prop: table[:, index] for index, prop in enumerate(names)}
        else:
            left = path.stat().st_size - stream.tell()
            if element.count * row.itemsize > left:
                raise FormatError(
                    f"{path.name}: the header promises {element.count:,} {element.name} rows of {row.itemsize} bytes, "
                    f"{left:,} bytes follow; the file is cut short. Copy or export it again."
                )
            records = np.fromfile(stream, dtype=row, count=element.count)
            columns = {prop: records[prop] for prop in names}
        if element.name == "vertex":
            return columns
    raise FormatError(f"{path.name}: the PLY has no element vertex")


def _read_ascii_rows(name: str, stream: BinaryIO, element: _Element, width: int) -> NDArray[np.float64]:
    """[count, width]; one row per line, as the PLY format has it."""
    rows = []
    for index in range(element.count):
        line = stream.readline(65536)
        try:
            row = np.array(line.split(), dtype=np.float64)
        except ValueError as error:
            raise FormatError(f"{name}: {element.name} row {index} holds something else than numbers") from error
        if len(row) != width:
            raise FormatError(f"{name}: {element.name} row {index} has {len(row)} values, expected {width}")
        rows.append(row)
    return np.array(rows).reshape(element.count, width)


def _splats_from(name: str, columns: dict[str, NDArray]) -> Splats:
    if "packed_position" in columns:
        raise FormatError(f"{name}: a compressed splat PLY; export it uncompressed (plain PLY) and try again.")
    rest_count = sum(column.startswith("f_rest_") for column in columns)
    if rest_count not in _REST_COUNTS:
        raise FormatError(f"{name}: {rest_count} f_rest properties; expected 0, 9, 24 or 45 (SH degree 0 to 3)")
    coefficients = _REST_COUNTS[rest_count]
    missing = [n for n in _property_names(coefficients) if n not in columns and n not in ("nx", "ny", "nz")]
    if missing:
        hint = " This is a point cloud or a mesh, not splats." if "f_dc_0" in missing else ""
        raise FormatError(f"{name}: no property {', '.join(missing[:4])} in element vertex.{hint}")

    def stack(*names: str) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is left out below
            return np.stack([columns[n].astype(np.float32) for n in names], axis=-1)

    means = stack("x", "y", "z")
    sh = np.empty((len(means), coefficients, 3), np.float32)
    sh[:, 0] = stack("f_dc_0", "f_dc_1", "f_dc_2")
    if rest_count:
        rest = stack(*(f"f_rest_{index}" for index in range(rest_count)))
        sh[:, 1:] = rest.reshape(len(means), 3, coefficients - 1).transpose(0, 2, 1)
    logits = columns["opacity"].astype(np.float32)
    logits = np.where(np.isinf(logits), np.copysign(np.float32(_LARGEST_LOGIT), logits), logits)
    log_scales, quats = stack("scale_0", "scale_1", "scale_2"), stack("rot_0", "rot_1", "rot_2", "rot_3")

    usable = np.isfinite(logits) & (quats != 0).any(1) & np.isfinite(sh).all((1, 2))
    for values in (means, log_scales, quats):
        usable &= np.isfinite(values).all(1)
    if not usable.all():
        _log.warning("%s: left out %d of %d splats with non-finite values", name, (~usable).sum(), len(usable))
    return Splats(means[usable], quats[usable], log_scales[usable], logits[usable], sh[usable])
