"""Decode one uploaded photo of unknown origin: bounded, upright, 8-bit sRGB, with the focal length its Exif tells.

Everything else in the Exif (GPS, names, serial numbers) is left behind: only pixels and `Photo`'s fields come out.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from difix3d.errors import FormatError

_COMMON = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp")
PHOTO_SUFFIXES = frozenset((*_COMMON, ".avif", ".heic", ".heif", ".hif", ".dng"))
# Decoders a photo may use. Naming them keeps the rest of Pillow's (Ghostscript, animations, ...) out of reach.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIF")
MAX_BYTES = 150 * 2**20
MAX_PIXELS = 110_000_000  # as decoded; above the 108 MP of phones, one copy is then 330 MB
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
"""Pillow refuses twice as many unread: above the 200 MP of phones, whose JPEGs can be decoded at a fraction."""
MIN_SIDE_PX = 64  # SIFT finds next to nothing in less
MAX_ASPECT = 4.0  # a stitched panorama is no pinhole photo
FILM_DIAGONAL_MM = 43.2666  # of 24 x 36 mm; Exif's 35 mm equivalent compares diagonals (CIPA DCG-001)

_EXIF_IFD = 0x8769
_MAKE, _MODEL, _ORIENTATION, _DNG_VERSION = 0x010F, 0x0110, 0x0112, 0xC612
_FOCAL_MM, _FOCAL_35MM, _LENS, _DIGITAL_ZOOM = 0x920A, 0xA405, 0xA434, 0xA404
_PLANE_X, _PLANE_UNIT, _EXIF_WIDTH, _EXIF_HEIGHT = 0xA20E, 0xA210, 0xA002, 0xA003
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """rgb: [H, W, 3] uint8, upright; focal_px: for that size, None where Exif does not tell; camera: make and
    model, or ""; lens: its model, or "". zoomed_mm: the focal length times the digital zoom: without the sensor's size
    it says nothing of pixels, but two lenses or zooms differ in it."""

    rgb: NDArray[np.uint8]
    focal_px: float | None = None
    camera: str = ""
    lens: str = ""
    zoomed_mm: float | None = None


def read_photo(path: Path, long_side_px: int | None = None) -> Photo:
    """Decode `path`, its longer side at most `long_side_px`. FormatError says why it cannot be used."""
    size = path.stat().st_size
    if size == 0:
        raise FormatError("the file is empty (0 bytes)")
    if size > MAX_BYTES:
        raise FormatError(f"the file has {size / 2**20:.0f} MB; at most {MAX_BYTES // 2**20} MB are read")
    _register_decoders()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's bomb limit (ours is stricter) and of odd metadata
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
                return _decode(image, long_side_px)
    except FormatError:
        raise
    except Image.DecompressionBombError as error:
        raise FormatError(f"far too many pixels; at most {MAX_PIXELS // 10**6} million are decoded") from error
    except Image.UnidentifiedImageError as error:
        raise FormatError(f"not a picture: {describe_bytes(path)}") from error
    except Exception as error:  # decoders raise nearly anything on broken bytes; one bad file must not end the rest
        raise FormatError(f"broken picture data ({_reason(error)})") from error


def _decode(image: Image.Image, long_side_px: int | None) -> Photo:
    width, height = image.size
    progressive = bool(image.info.get("progressive"))  # decoded whole, whatever size is asked for
    if long_side_px and image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and not progressive:
        image.draft(image.mode, (min(width, long_side_px), min(height, long_side_px)))  # decodes at 1/2, 1/4 or 1/8
    if math.prod(image.size) > MAX_PIXELS:
        raise FormatError(f"{width}x{height} pixels; at most {MAX_PIXELS // 10**6} million are decoded")
    if min(width, height) < MIN_SIDE_PX:
        raise FormatError(f"{width}x{height} pixels; at least {MIN_SIDE_PX} on each side are needed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise FormatError(f"{width}x{height} pixels, a strip or panorama; at most {MAX_ASPECT:.0f}:1 can be used")

    tags, exif = _exif(image)
    if _DNG_VERSION in tags:
        raise FormatError("a raw photo (DNG); export it as JPEG, HEIC or 16-bit TIFF")
    profile = image.info.get("icc_profile")
    upright = _eight_bit(image)
    if long_side_px and max(width, height) > long_side_px:
        scale = long_side_px / max(width, height)
        target = (max(1, round(width * scale)), max(1, round(height * scale)))
        upright = upright.resize(target, Image.Resampling.LANCZOS, reducing_gap=3.0)
    upright = _to_srgb(_over_white(upright), profile)
    if (turn := _UPRIGHT.get(int(_number(tags.get(_ORIENTATION))))) is not None:
        upright = upright.transpose(turn)

    focal = focal_px(exif, (width, height), upright.size)
    make, model = (str(tags.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL))
    camera = model if model.lower().startswith(make.lower()) else f"{make} {model}".strip()
    zoomed_mm = _number(exif.get(_FOCAL_MM)) * max(1.0, _number(exif.get(_DIGITAL_ZOOM)))
    lens = str(exif.get(_LENS, "")).strip("\0 ")
    return Photo(np.asarray(upright), focal, _printable(camera), _printable(lens), zoomed_mm or None)


def focal_px(exif: Mapping[int, Any], original: tuple[int, int], stored: tuple[int, int]) -> float | None:
    """Focal length in pixels of a picture `stored` at that size, from the Exif of the `original` size.

    From FocalLengthIn35mmFilm, or from FocalLength with FocalPlaneXResolution; None where neither makes sense.
    Sizes may be transposed to each other: pixels are square, so only diagonals and longer sides count.
    """
    focal = None
    if (equivalent := _number(exif.get(_FOCAL_35MM))) > 0:
        focal = equivalent * math.hypot(*stored) / FILM_DIAGONAL_MM
    else:
        unit_mm = _UNIT_MM.get(int(_number(exif.get(_PLANE_UNIT), 2)))
        focal_mm, per_unit = _number(exif.get(_FOCAL_MM)), _number(exif.get(_PLANE_X))
        if unit_mm and focal_mm > 0 and per_unit > 0:
            # The resolution is that of the size Exif names, which software that shrinks photos tends to leave.
            sensor = max(_number(exif.get(_EXIF_WIDTH)), _number(exif.get(_EXIF_HEIGHT))) or max(original)
            focal = focal_mm * per_unit / unit_mm * max(stored) / sensor
    # 0.25 of the long side is a 127 degree fisheye, 20 a spotting scope: beyond, the tag is wrong.
    if focal is None or not 0.25 <= focal / max(stored) <= 20:
        return None
    return float(focal)


def sharpness(rgb: NDArray[np.uint8], long_side_px: int = 640) -> float:
    """Variance of the Laplacian over the variance of the picture, of a grey copy: no unit, larger is sharper.

    The ratio makes dark and bright frames comparable. In focus: 0.04 to 1.5; smeared over 9 pixels or more: below 0.015
    (medians of the captures this was tried on). 0 where the picture is of one colour.
    """
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) if rgb.ndim == 3 else rgb
    scale = long_side_px / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    contrast = float(grey.var())
    # Rounding to 8 bits alone gives 20/12: its variance 1/12 times the kernel's sum of squares.
    detail = max(0.0, float(cv2.Laplacian(grey, cv2.CV_32F).var()) - 20 / 12)
    return detail / contrast if contrast > 1 else 0.0


def describe_bytes(path: Path) -> str:
    """What the first bytes of a file that is no photo look like, for its error message."""
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[4:8] == b"ftyp" or head[:4] == b"\x1aE\xdf\xa3":
        return "it is a video or an unknown kind of HEIF"
    for magic, what in (
        (b"PK\x03\x04", "it is a ZIP archive: unpack it first"),
        (b"%PDF", "it is a PDF"),
        (b"GIF8", "it is a GIF, which has too few colours"),
        (b"RIFF", "it is an AVI video or sound: export it as MP4"),
        (b"\xff\xd8", "it begins like a JPEG, but its header is damaged"),
        (b"\x89PNG", "it begins like a PNG, but its header is damaged"),
    ):
        if head.startswith(magic):
            return what
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg")):
        return "it is a web page or other markup"
    if head and all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return "it is text"
    return "its first bytes are those of no format that is read here (JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC)"


def _register_decoders() -> None:
    if "HEIF" not in Image.OPEN:
        import pillow_heif

        Image.init()  # loads Pillow's own plugins, which `formats=` does not

        pillow_heif.register_heif_opener()


def _exif(image: Image.Image) -> tuple[dict[int, Any], dict[int, Any]]:
    """(main tags, tags of the Exif block); what cannot be parsed is as good as not there."""
    try:
        tags = image.getexif()
        return dict(tags), dict(tags.get_ifd(_EXIF_IFD))
    except Exception as error:  # metadata of hostile files breaks parsers in many ways; the pixels may still be good
        _log.debug("Exif ignored: %s", error)
        return {}, {}


def _eight_bit(image: Image.Image) -> Image.Image:
    """RGB, RGBA, L or CMYK at 8 bits. Deeper greys are scaled, where Pillow would clip them."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        top = float(np.nanmax(values, initial=0.0))
        # 16 bits is what cameras and scanners write as "I"; a float TIFF is in [0, 1].
        full = 65535.0 if image.mode != "F" or top > 255 else 255.0 if top > 1 else 1.0
        scaled = np.nan_to_num(values) * (255.0 / full)
        return Image.fromarray((np.clip(scaled, 0, 255) + 0.5).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.copy() if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Without alpha: what shines through is white, not whatever colour the hidden pixels happen to have."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB by the embedded colour profile (phones write Display P3), or as it is where that one is unusable."""
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            _log.debug("colour profile ignored: %s", error)
    return image.convert("RGB")


def _number(value: Any, default: float = 0.0) -> float:
    """An Exif number, or `default` where the tag is missing, no number, infinite or a division by zero."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return default
    return number if math.isfinite(number) else default


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:60]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
