"""The .spz format of Niantic (github.com/nianticlabs/spz, MIT): splats in about a tenth of a PLY's bytes.

A gzip stream: a header of 16 bytes, then one attribute of all splats after the other, in this order, little-endian.

    positions   3 x 24-bit signed fixed point, `fractional bits` of them after the point    off by at most 2^-(bits + 1)
    alphas      uint8, opacity x 255                                                        opacity: 1/510
    colours     3 x uint8, (0.15 f_dc + 0.5) x 255, f_dc from -3.3 to 3.3                   f_dc: 0.0131
    scales      3 x uint8, (log-scale + 10) x 16, from -10 to 5.9                           log-scale: 1/32
    rotations   version 3: uint32, the index of the largest of x y z w in 2 bits, the
                others over sqrt(1/2) as a sign and 9 bits each                             each of the three: 0.0007
                version 2: x y z as (q + 1) x 127.5 in uint8, w is not negative             each of the three: 0.004
    sh          uint8, sh x 128 + 128, from -1 to 1, coefficient by coefficient, RGB
                innermost; we write steps of 8 (degree 1) and 16 (above), which gzip well   1/32, 1/16 (and 1/256)

We write version 3 and read 2 and 3; 4 needs zstd.

An .spz has y up and z backward where a PLY has y down and z forward (RUB and RDF): both are turned half a circle about
x, so that a viewer which knows the two formats shows the same picture of both.
"""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from difix3d.atomic import replacing_file
from difix3d.errors import FormatError
from difix3d.types import Splats

_log = logging.getLogger(__name__)

MAGIC, VERSION = 0x5053474E, 3
_HEADER = struct.Struct("<IIIBBBB")  # magic, version, splats, SH degree, fractional bits, flags, reserved
_MAX_SPLATS = 10_000_000  # as the reference reader has it
_FIXED_MAX = (1 << 23) - 1
_FEWEST_BITS, _MOST_BITS = 12, 22
"""12 is the reference writer's choice and reaches 2,048 units; small scenes get what is left for their fractions."""
_ROOT_HALF = np.float32(0.5**0.5)
_COLOUR_SCALE = 0.15
_GZIP_LEVEL = 6
_CHUNK = 1 << 15
"""Splats written at once."""

# Half a turn about x, (x, y, z) -> (x, -y, -z): signs of quaternions wxyz and of the sixteen SH basis functions.
_TURN_XYZ = np.array([1, -1, -1], np.float32)
_TURN_QUAT = np.array([1, 1, -1, -1], np.float32)
_TURN_SH = np.array([1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1], np.float32)


def write_spz(path: Path, splats: Splats) -> None:
    """Write an .spz, atomically. Numbers beyond the format's ranges are held at their ends, and the log says so of
    positions."""
    count, coefficients = len(splats), splats.sh.shape[1]
    if count > _MAX_SPLATS:
        raise FormatError(f"{path.name}: an .spz holds at most {_MAX_SPLATS:,} splats, got {count:,}. Write a PLY.")
    bits = _fractional_bits(path.name, splats.means)
    turn_sh, bucket = _TURN_SH[1:coefficients, None], np.where(np.arange(1, coefficients) < 4, 8, 16)[:, None]
    attributes: tuple[Callable[[slice], bytes], ...] = (
        lambda part: _fixed_point(splats.means[part] * _TURN_XYZ, bits),
        lambda part: _bytes(expit(splats.opacity_logits[part]) * 255),
        lambda part: _bytes((_COLOUR_SCALE * splats.sh[part, 0] + 0.5) * 255),
        lambda part: _bytes((splats.log_scales[part] + 10) * 16),
        lambda part: _smallest_three(splats.quats[part] * _TURN_QUAT),
        lambda part: _bytes((np.rint(splats.sh[part, 1:] * turn_sh * 128) + 128 + bucket // 2) // bucket * bucket),
    )
    with (
        replacing_file(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as stream,  # no name, no time: same splats, same bytes
    ):
        stream.write(_HEADER.pack(MAGIC, VERSION, count, splats.sh_degree, bits, 0, 0))
        for encoded in attributes:
            for start in range(0, count, _CHUNK):
                stream.write(encoded(slice(start, start + _CHUNK)))


def read_spz(path: Path) -> Splats:
    """Read an .spz of version 2 or 3, SH degree 0 to 3. FormatError for what is none, or is cut short."""
    try:
        with gzip.open(path, "rb") as stream:
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size or header[:4] != MAGIC.to_bytes(4, "little"):
                raise FormatError(f"{path.name}: expected an .spz file, its header is not one")
            _, version, count, degree, bits, _, _ = _HEADER.unpack(header)
            if version not in (2, 3):
                raise FormatError(f"{path.name}: .spz version {version}; expected 2 or 3. Save it again as version 3.")
            if degree > 3 or count > _MAX_SPLATS or bits > 23:
                raise FormatError(
                    f"{path.name}: SH degree {degree}, {count:,} splats, {bits} fractional bits; expected degree 0 to "
                    f"3, at most {_MAX_SPLATS:,} splats and 23 bits"
                )
            coefficients = (degree + 1) ** 2
            widths = (9, 1, 3, 3, 4 if version == 3 else 3, 3 * (coefficients - 1))
            parts = []
            for width in widths:
                data = stream.read(count * width)
                if len(data) < count * width:
                    raise FormatError(f"{path.name}: {count:,} splats are promised and not there; it is cut short")
                parts.append(np.frombuffer(data, np.uint8).reshape(count, width))
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path.name}: expected an .spz file, could not read it ({error})") from error
    positions, alphas, colours, scales, rotations, rest = parts
    sh = np.empty((count, coefficients, 3), np.float32)
    sh[:, 0] = (colours / np.float32(255) - 0.5) / _COLOUR_SCALE
    sh[:, 1:] = rest.reshape(count, coefficients - 1, 3)
    sh[:, 1:] -= 128
    sh[:, 1:] *= _TURN_SH[1:coefficients, None] / 128
    # 0 and 255 stand for all that round to them: half a step inside, where the logit is finite
    opacities = np.clip(alphas[:, 0].astype(np.float32), 0.25, 254.75) / 255
    quats = _from_smallest_three(rotations) if version == 3 else _from_xyz(rotations)
    return Splats(
        _from_fixed_point(positions, bits) * _TURN_XYZ,
        quats * _TURN_QUAT,
        (scales / 16 - 10).astype(np.float32),
        np.log(opacities / (1 - opacities)),
        sh,
    )


def _fractional_bits(name: str, means: NDArray[np.float32]) -> int:
    """As many as leave room for the farthest splat."""
    farthest = float(np.abs(means).max(initial=1.0))
    bits = int(np.floor(np.log2(_FIXED_MAX / farthest)))
    if bits < _FEWEST_BITS:
        limit = _FIXED_MAX / 2**_FEWEST_BITS
        beyond = int((np.abs(means) > limit).any(1).sum())
        _log.warning("%s: %d splats are farther than %.0f from the origin and are moved there", name, beyond, limit)
    return min(max(bits, _FEWEST_BITS), _MOST_BITS)


def _bytes(values: NDArray) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _fixed_point(values: NDArray[np.float32], bits: int) -> bytes:
    """values [N, 3] as 24-bit integers."""
    integers = np.clip(np.rint(values.astype(np.float64) * 2**bits), -_FIXED_MAX, _FIXED_MAX).astype("<i4")
    return np.ascontiguousarray(integers.view(np.uint8).reshape(-1, 3, 4)[..., :3]).tobytes()


def _from_fixed_point(data: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    """[N, 9] bytes to [N, 3]."""
    wide = np.zeros((len(data), 3, 4), np.uint8)
    wide[..., 1:] = data.reshape(-1, 3, 3)  # in the upper bytes, so that shifting down brings the sign along
    return ((wide.view("<i4")[..., 0] >> 8) / 2**bits).astype(np.float32)


def _smallest_three(quats: NDArray[np.float32]) -> bytes:
    """quats [N, 4] wxyz as uint32 each."""
    xyzw = np.roll(quats / np.linalg.norm(quats, axis=1, keepdims=True), -1, axis=1)
    largest = np.abs(xyzw).argmax(axis=1)
    xyzw = xyzw * np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -1, 1)
    packed = largest.astype("<u4")
    for component in range(4):
        sizes = np.minimum(np.rint(np.abs(xyzw[:, component]) / _ROOT_HALF * 511), 511).astype("<u4")
        own = packed << 10 | (xyzw[:, component] < 0).astype("<u4") << 9 | sizes
        packed = np.where(largest == component, packed, own)
    return packed.astype("<u4").tobytes()


def _from_smallest_three(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 4] bytes to quaternions [N, 4] wxyz."""
    packed = np.ascontiguousarray(data).view("<u4")[:, 0]
    largest = packed >> 30
    xyzw = np.zeros((len(packed), 4), np.float32)
    for component in (3, 2, 1, 0):  # the last one was packed into the lowest bits
        there = largest != component
        value = (packed & 511) * (_ROOT_HALF / 511) * np.where(packed & 512, -1, 1)
        xyzw[:, component] = np.where(there, value, 0)
        packed = np.where(there, packed >> 10, packed)
    rest = np.sqrt(np.maximum(0, 1 - np.square(xyzw).sum(axis=1, keepdims=True)))
    np.put_along_axis(xyzw, largest[:, None].astype(np.int64), rest, 1)
    return np.roll(xyzw, 1, axis=1)


def _from_xyz(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[N, 3] bytes to quaternions [N, 4] wxyz."""
    xyz = data.astype(np.float32) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - np.square(xyz).sum(axis=1, keepdims=True)))
    return np.concatenate([w, xyz], axis=1)
