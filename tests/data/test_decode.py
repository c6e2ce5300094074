"""Decoding against Pillow, orientation, odd formats, and what is refused."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from vclip_jax.data.decode import (
    MAX_PIXELS,
    ImageError,
    bounded_jpeg,
    decode,
    field_box,
    read_rgb,
    strip_jpeg,
)


def scene(height: int, width: int) -> np.ndarray:
    """A smooth coloured picture with edges, different in every corner."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = y / height, x / width
    waves = [np.sin(7 * x + 3 * y), np.cos(5 * y - 2 * x), np.sin(11 * x * y)]
    rgb = np.stack([127 + 100 * wave for wave in waves], axis=-1)
    rgb[: height // 4, : width // 3] *= 0.3
    return rgb.astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(rgb: np.ndarray, **options) -> bytes:
    return encoded(Image.fromarray(rgb), "JPEG", quality=95, subsampling=0, **options)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 130), (33, 40)])
def test_squash_equals_pillow_for_sources_below_four_times_the_size(height, width):
    data = jpeg(scene(height, width))
    expected = Image.open(io.BytesIO(data)).resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(decode(data, 48).astype(int), np.asarray(expected), atol=2)


def test_squash_of_a_large_jpeg_is_close_to_pillow():
    data = jpeg(scene(700, 1000))
    expected = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BICUBIC)
    difference = np.abs(decode(data, 64).astype(int) - np.asarray(expected))
    assert difference.mean() < 0.7
    assert difference.max() < 16


def test_png_squash_is_exactly_pillow():
    data = encoded(Image.fromarray(scene(90, 130)), "PNG")
    expected = Image.fromarray(scene(90, 130)).resize((48, 48), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(data, 48), np.asarray(expected))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(Image.fromarray(scene(40, 64)), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_allclose(read_rgb(data).astype(int), expected, atol=2)


def test_grey_palette_alpha_cmyk_and_16_bit_become_rgb():
    grey = scene(32, 32)[..., 0]
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    for data in (encoded(Image.fromarray(grey), kind) for kind in ("PNG", "JPEG", "BMP")):
        np.testing.assert_allclose(decode(data, 32)[..., 1].astype(int), grey, atol=8)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(encoded(wide, kind), 32)[..., 2], grey)

    palette = Image.fromarray(scene(32, 32)).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(encoded(palette, "PNG"), 32), expected)

    clear = np.dstack([np.full((32, 32, 3), 200, np.uint8), np.zeros((32, 32), np.uint8)])
    assert decode(encoded(Image.fromarray(clear), "PNG"), 32).max() == 0, "shown on black"

    inks = Image.fromarray(scene(32, 32)).convert("CMYK")
    shown = decode(encoded(inks, "JPEG", quality=95), 32).astype(int)
    assert np.abs(shown - np.asarray(inks.convert("RGB"))).mean() < 6


def test_pad_keeps_the_aspect_ratio_on_black():
    result = decode(encoded(Image.new("RGB", (80, 40), (200, 100, 50)), "PNG"), 64, "pad")
    assert not result[:16].any()
    assert not result[48:].any()
    assert (result[16:48] == (200, 100, 50)).all()


@pytest.mark.parametrize("surround", [0, 9])
@pytest.mark.parametrize(("brightness", "text"), [(200, False), (60, True)])
def test_the_fundus_field_is_found(brightness, text, surround):
    photograph = np.full((300, 450, 3), surround, np.uint8)
    cv2.circle(photograph, (240, 150), 120, (brightness, brightness // 2, 20), -1)
    if text:
        cv2.putText(photograph, "OD 45", (5, 20), cv2.FONT_HERSHEY_PLAIN, 1, (255,) * 3)
    np.testing.assert_allclose(field_box(photograph), (120, 30, 361, 271), atol=4)
    result = decode(encoded(Image.fromarray(photograph), "PNG"), 64, "fundus")
    lit = result[..., 0] > (surround + brightness) // 2
    assert lit[32, 1]
    assert lit[32, 62]
    assert lit[1, 32]
    assert lit.mean() == pytest.approx(np.pi / 4, abs=0.03)


def test_an_image_without_a_field_is_kept_whole():
    for grey in (0, 200):
        assert field_box(np.full((50, 70, 3), grey, np.uint8)) == (0, 0, 70, 50)


def test_a_cut_aperture_is_padded_not_stretched():
    photograph = np.zeros((200, 300, 3), np.uint8)
    cv2.circle(photograph, (150, 100), 130, (180, 90, 30), -1)  # top and bottom are cut off
    result = decode(encoded(Image.fromarray(photograph), "PNG"), 96, "fundus")
    lit = result[..., 0] > 90
    height, width = np.ptp(np.nonzero(lit.any(1))) + 1, np.ptp(np.nonzero(lit.any(0))) + 1
    assert height / width == pytest.approx(200 / 261, abs=0.03)


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", b"\xff\xd8\xff", jpeg(scene(64, 64))[:-200], b"\x89PNG\r\n\x1a\n\0\0"],
)
def test_damage_is_an_image_error_of_one_line_with_the_key(data):
    with pytest.raises(ImageError, match=r"^train/7: ") as caught:
        decode(data, 32, key="train/7")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_flipped_bytes_in_a_jpeg_are_refused():
    data = bytearray(jpeg(scene(200, 200)))
    data[len(data) // 2 : len(data) // 2 + 30] = bytes(30)
    with pytest.raises(ImageError):
        decode(bytes(data), 32)


def test_bombs_and_unbounded_values_are_refused():
    side = int(MAX_PIXELS**0.5) + 64
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(ImageError, match="pixels"):
        decode(bomb, 32)
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(ImageError, match="fixed range"):
        decode(encoded(floats, "TIFF"), 8)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="squash, pad, fundus"):
        decode(b"", 32, "stretch")


@pytest.mark.parametrize("progressive", [False, True])
def test_stripping_a_jpeg_keeps_its_pixels_and_nothing_else(progressive):
    exif = Image.Exif()
    exif[0x010E] = "SECRET patient"
    data = jpeg(
        scene(80, 96),
        exif=exif,
        comment=b"SECRET name",
        icc_profile=b"SECRET" * 30,
        progressive=progressive,
    )
    stripped = strip_jpeg(data + b"SECRET trailer")
    assert b"SECRET" in data
    assert b"SECRET" not in stripped
    np.testing.assert_array_equal(read_rgb(stripped), read_rgb(data))
    assert Image.open(io.BytesIO(stripped)).info.keys() <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "progressive",
        "progression",
    }


def test_stripping_what_ends_early_is_an_error():
    with pytest.raises(ImageError, match=r"^k: .*end marker"):
        strip_jpeg(jpeg(scene(32, 32))[:-2], key="k")


def test_bounded_jpeg_shrinks_turns_upright_and_leaves_small_ones_alone():
    small = jpeg(scene(60, 80))
    np.testing.assert_array_equal(read_rgb(bounded_jpeg(small, 80, 90)), read_rgb(small))
    assert read_rgb(bounded_jpeg(jpeg(scene(300, 400)), 100, 90)).shape == (75, 100, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = bounded_jpeg(jpeg(scene(60, 80), exif=exif), 80, 95)
    assert b"Exif" not in turned
    assert read_rgb(turned).shape == (80, 60, 3)
    from_png = bounded_jpeg(encoded(Image.fromarray(scene(60, 80)), "PNG"), 80, 95)
    assert from_png[:2] == b"\xff\xd8"
