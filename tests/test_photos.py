"""Any photo a person may upload decodes upright, 8-bit and within bounds, or is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from difix3d.errors import FormatError
from difix3d.formats import photos
from difix3d.formats.image import read_rgb
from difix3d.formats.photos import focal_px, read_photo, sharpness

ORIENTATION, EXIF_IFD, GPS_IFD = 0x0112, 0x8769, 0x8825
FOCAL_MM, FOCAL_35MM, PLANE_X, PLANE_UNIT, EXIF_WIDTH = 0x920A, 0xA405, 0xA20E, 0xA210, 0xA002


def scene(width: int = 320, height: int = 200) -> np.ndarray:
    """[H, W, 3] uint8: smooth, so that lossy formats keep it, and without any symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 120 * np.sin(x / 40) * np.cos(y / 31)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def save(path: Path, picture: Image.Image, exif: dict[int, object] | None = None, **options: object) -> Path:
    block = Image.Exif()
    for tag, value in (exif or {}).items():
        if tag == ORIENTATION or tag < 0x8000:
            block[tag] = value
        else:
            block.get_ifd(EXIF_IFD)[tag] = value
    # As bytes: the HEIC encoder finds the orientation only there, and writes it as `irot`, as phones do.
    picture.save(path, exif=block.tobytes(), **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright_and_turns_the_size(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(scene())
    # What a camera stores: the inverse of what the tag asks a viewer to do.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    tags = {ORIENTATION: orientation, FOCAL_35MM: 26}
    photo = read_photo(save(tmp_path / "a.jpg", stored, tags, quality=95, subsampling=0))
    assert difference(photo.rgb, np.asarray(upright)) < 2
    assert photo.focal_px == pytest.approx(26 * np.hypot(320, 200) / 43.2666)


@pytest.mark.parametrize(
    ("suffix", "options", "allowed"),
    [
        (".jpg", {"quality": 95, "progressive": True}, 3),
        (".png", {}, 0),
        (".webp", {"quality": 95}, 4),
        (".tif", {"compression": "tiff_lzw"}, 0),
        (".bmp", {}, 0),
        (".avif", {"quality": 95}, 4),
        (".heic", {"quality": 95}, 4),
    ],
)
def test_formats_of_phones_and_cameras(tmp_path: Path, suffix: str, options: dict, allowed: float) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    path = tmp_path / f"a{suffix}"
    Image.fromarray(scene()).save(path, **options)
    assert difference(read_photo(path).rgb, scene()) <= allowed


def test_a_turned_heic_is_upright_with_its_focal_length(tmp_path: Path) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    turned = Image.fromarray(scene()).transpose(Image.Transpose.ROTATE_90)
    path = save(tmp_path / "a.heic", turned, {ORIENTATION: 6, FOCAL_35MM: 24}, quality=95)
    photo = read_photo(path)
    assert difference(photo.rgb, scene()) < 4
    assert photo.focal_px == pytest.approx(24 * np.hypot(320, 200) / 43.2666)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    grey16 = np.linspace(0, 65535, 320 * 200).reshape(200, 320).astype(np.uint16)
    want = np.repeat((grey16 / 257.0 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
    for name in ("a.png", "a.tif"):
        Image.fromarray(grey16).save(tmp_path / name)
        assert difference(read_photo(tmp_path / name).rgb, want) < 0.6


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    import cv2

    rgb16 = scene().astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), rgb16[..., ::-1])
    assert difference(read_photo(tmp_path / "a.png").rgb, scene()) < 1


def test_float_tiff_is_scaled_from_one(tmp_path: Path) -> None:
    values = (scene()[..., 0] / 255.0).astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    rgb = read_photo(tmp_path / "a.tif").rgb
    assert difference(rgb[1:, :, 0], scene()[1:, :, 0]) < 1


def test_alpha_shows_white_and_hides_what_was_below(tmp_path: Path) -> None:
    rgba = np.dstack([scene(), np.full((200, 320), 255, np.uint8)])
    rgba[:, :100, :3], rgba[:, :100, 3] = (255, 0, 255), 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    rgb = read_photo(tmp_path / "a.png").rgb
    assert (rgb[:, :100] == 255).all()
    assert (rgb[:, 100:] == scene()[:, 100:]).all()


def test_palette_grey_and_cmyk(tmp_path: Path) -> None:
    picture = Image.fromarray(scene())
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(tmp_path / "p.png")
    picture.convert("L").save(tmp_path / "l.jpg", quality=95)
    picture.convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert difference(read_photo(tmp_path / "p.png").rgb, scene()) < 12
    assert difference(read_photo(tmp_path / "l.jpg").rgb, np.asarray(picture.convert("L").convert("RGB"))) < 2
    assert difference(read_photo(tmp_path / "c.jpg").rgb, scene()) < 4


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(scene()).save(tmp_path / "same.png", icc_profile=lab_like)
    assert difference(read_photo(tmp_path / "same.png").rgb, scene()) < 1
    Image.fromarray(scene()).save(tmp_path / "junk.png", icc_profile=b"no profile at all")
    assert difference(read_photo(tmp_path / "junk.png").rgb, scene()) == 0


def test_long_side_is_respected_and_the_focal_length_follows(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(scene(3000, 2000)), {FOCAL_35MM: 28}, quality=90)
    photo = read_photo(path, 1600)
    assert photo.rgb.shape == (1067, 1600, 3)
    assert photo.focal_px == pytest.approx(28 * np.hypot(1600, 1067) / 43.2666)
    want = np.asarray(Image.fromarray(scene(3000, 2000)).resize((1600, 1067), Image.Resampling.LANCZOS))
    assert difference(photo.rgb, want) < 2


def test_focal_length_from_the_focal_plane_resolution() -> None:
    # Canon EOS 5D: 50 mm on a sensor 36 mm wide with 4368 pixels; the file was shrunk to 1600.
    exif = {FOCAL_MM: IFDRational(50), PLANE_X: IFDRational(4368 * 254, 360), PLANE_UNIT: 2, EXIF_WIDTH: 4368}
    assert focal_px(exif, (1600, 1067), (1600, 1067)) == pytest.approx(50 / 36 * 1600, rel=1e-3)
    assert focal_px(exif, (1600, 1067), (1067, 1600)) == pytest.approx(50 / 36 * 1600, rel=1e-3)


@pytest.mark.parametrize(
    "exif",
    [
        {},
        {FOCAL_35MM: 0},
        {FOCAL_35MM: 65535},
        {FOCAL_35MM: "wide"},
        {FOCAL_MM: IFDRational(50, 0), PLANE_X: 100.0},
        {FOCAL_MM: 50.0, PLANE_X: IFDRational(0, 0)},
        {FOCAL_MM: 50.0, PLANE_X: 100.0, PLANE_UNIT: 99},
        {FOCAL_MM: 4.2},
    ],
)
def test_a_senseless_focal_length_is_none(exif: dict[int, object]) -> None:
    assert focal_px(exif, (640, 480), (640, 480)) is None


def test_lens_and_zoom_come_out_where_the_sensor_size_is_unknown(tmp_path: Path) -> None:
    exif = {FOCAL_MM: IFDRational(425, 100), 0xA434: "rear wide", 0xA404: IFDRational(2, 1)}
    photo = read_photo(save(tmp_path / "zoomed.jpg", Image.fromarray(scene()), exif))
    assert photo.focal_px is None and photo.lens == "rear wide" and photo.zoomed_mm == pytest.approx(8.5)
    for zoom in (IFDRational(0, 1), IFDRational(1, 1)):  # 0: not used (Exif 2.3)
        photo = read_photo(save(tmp_path / "plain.jpg", Image.fromarray(scene()), exif | {0xA404: zoom}))
        assert photo.zoomed_mm == pytest.approx(4.25)
    plain = read_photo(save(tmp_path / "none.jpg", Image.fromarray(scene())))
    assert (plain.lens, plain.zoomed_mm) == ("", None)


def test_a_jpeg_of_too_many_pixels_is_decoded_at_a_fraction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "MAX_PIXELS", 640 * 400 - 1)
    path = save(tmp_path / "many.jpg", Image.fromarray(scene(640, 400)), {FOCAL_35MM: 26}, quality=95)
    photo = read_photo(path, 160)
    assert photo.rgb.shape == (100, 160, 3)
    assert difference(photo.rgb, np.asarray(Image.fromarray(scene(640, 400)).resize((160, 100)))) < 3
    assert photo.focal_px == pytest.approx(26 * np.hypot(160, 100) / photos.FILM_DIAGONAL_MM)
    for kept, options in ((None, {}), (640, {}), (160, {"progressive": True})):  # the last is decoded whole
        save(path, Image.fromarray(scene(640, 400)), **options)
        with pytest.raises(FormatError, match="640x400 pixels"):
            read_photo(path, kept)


def test_what_a_phone_of_200_megapixels_takes_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.new("L", (16320, 12240), 99).save(path, quality=50)
    photo = read_photo(path, 320)
    assert photo.rgb.shape == (240, 320, 3) and abs(int(photo.rgb.mean()) - 99) <= 1


def test_gps_and_the_rest_do_not_come_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x013B] = "Maker\0", "Maker Model 5", "A. Person"
    exif.get_ifd(GPS_IFD)[2] = (52.0, 31.0, 12.0)
    Image.fromarray(scene()).save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(tmp_path / "a.jpg")
    assert vars(photo).keys() == {"rgb", "focal_px", "camera", "lens", "zoomed_mm"}
    assert photo.camera == "Maker Model 5"


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_bytes() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(scene()).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.jpg", b"", "empty"),
        ("page.jpg", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        ("text.jpg", b"hello, this is no picture", "text"),
        ("archive.png", b"PK\x03\x04" + bytes(200), "ZIP"),
        ("film.jpg", b"\0\0\0\x20ftypisom" + bytes(200), "video"),
        ("document.jpg", b"%PDF-1.7 ...\x00", "PDF"),
        ("moving.gif.png", b"GIF89a" + bytes(200), "GIF"),
        ("noise.jpg", bytes(range(256)) * 8, "no format"),
        ("huge.png", png_header(60_000, 60_000), "at most 110 million"),
        ("large.png", png_header(12_000, 12_000), "12000x12000 pixels; at most 110"),
        ("tall.png", png_header(100, 2_000_000), "at most"),
        ("strip.png", png_header(12_000, 1000), "panorama"),
        ("dot.png", png_header(1, 1), "at least 64"),
        ("cut.jpg", jpeg_bytes()[:2000], "truncated"),
        ("lies.png", png_header(400, 400), "broken"),
        ("ps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
    ],
)
def test_hostile_files_are_refused_with_a_reason(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=said):
        read_photo(tmp_path / name)


def test_no_flipped_byte_ends_in_anything_but_a_photo_or_a_format_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "tif", "webp"):
        stream = io.BytesIO()
        Image.fromarray(scene(80, 72)).save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        whole = np.frombuffer(stream.getvalue(), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(0, min(len(whole), 700), 6)] = rng.integers(0, 256, 6)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(broken[: rng.integers(20, len(broken) + 1)].tobytes())
            try:
                assert read_photo(path, 64).rgb.dtype == np.uint8
            except FormatError as error:
                assert len(error.message) > 10


def test_pillows_other_error_for_a_broken_png_is_a_format_error_too(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(scene(80, 72)).save(stream, "PNG")
    whole = stream.getvalue()
    at = whole.index(b"IDAT")
    path = tmp_path / "a.png"
    path.write_bytes(whole[: at - 4] + b"\x00\x00\x00\x04" + whole[at:])  # a chunk that ends elsewhere
    with pytest.raises((SyntaxError, OSError)), Image.open(path) as opened:
        opened.load()
    with pytest.raises(FormatError, match=r"a\.png: expected a picture"):
        read_rgb(path)


def test_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    monkeypatch.setattr(photos, "MAX_BYTES", 1000)
    with pytest.raises(FormatError, match="at most"):
        read_photo(tmp_path / "a.jpg")


def test_sharpness_falls_with_blur_and_not_with_light() -> None:
    import cv2

    rng = np.random.default_rng(1)
    sharp = np.kron(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    series = [sharpness(cv2.GaussianBlur(sharp, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert sharpness(sharp) > series[0] > series[1] > series[2] > series[3]
    assert sharpness((sharp * 0.5).astype(np.uint8)) == pytest.approx(sharpness(sharp), rel=0.1)
    assert sharpness(np.zeros((100, 100, 3), np.uint8)) == 0.0


def test_mixed_formats_of_one_walk_all_decode_upright(shared: Path) -> None:
    """20 photos of one portrait walk in 14 encodings: all portrait, and each alike its plain original."""
    originals = sorted((shared / "scenes/dev/saharov/images").iterdir())
    files = sorted((shared / "scenes/bad/mixed_formats").iterdir())
    for file, original in zip(files, originals):
        photo, want = read_photo(file, 240).rgb, read_photo(original, 240).rgb
        assert photo.shape == want.shape, file.name
        grey = [np.asarray(Image.fromarray(p).convert("L"), dtype=int) for p in (photo, want)]
        assert np.abs(grey[0] - grey[1]).mean() < 12, file.name
