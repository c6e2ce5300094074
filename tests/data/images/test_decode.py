"""Decoding against Pillow, fast against exact, orientation, odd formats, and what is refused."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vclip_jax.data.choices import MODES
from vclip_jax.data.images.decode import decode, read_rgb
from vclip_jax.data.images.fit import FITS, fit_square
from vclip_jax.data.images.jpeg import strip
from vclip_jax.data.images.opening import MAX_PIXELS, ImageError
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.render import render

REAL = Path(__file__).parents[4] / "shared/data/idrid/B. Disease Grading/1. Original Images"


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


@pytest.mark.parametrize("mode", MODES)
def test_flair_puts_the_picture_at_the_top_left(mode):
    wide = decode(encoded(Image.new("RGB", (80, 40), (200, 100, 50)), "PNG"), 64, "flair", mode)
    assert (wide[:32] == (200, 100, 50)).all()
    assert not wide[32:].any()
    tall = decode(encoded(Image.new("RGB", (33, 100), (200, 100, 50)), "PNG"), 64, "flair", mode)
    assert (tall[:, :21] == (200, 100, 50)).all(), "33 * 64 / 100 is rounded down, as FLAIR does"
    assert not tall[:, 21:].any()


def test_flair_resizes_bilinearly_with_antialiasing():
    data = encoded(Image.fromarray(scene(90, 130)), "PNG")
    expected = Image.fromarray(scene(90, 130)).resize((65, 45), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(data, 65, "flair")[:45], np.asarray(expected))


@pytest.fixture(scope="module")
def rendered() -> list[bytes]:
    """Photographs of 1024 px as cameras store them."""
    cases = [sample_case(TRAINING_DOMAIN, 0, index) for index in range(4)]
    pictures = [Image.fromarray(render(case, 1024)) for case in cases]
    return [encoded(picture, "JPEG", quality=90) for picture in pictures]


def assert_fast_is_close_to_exact(data: bytes, fit: str) -> None:
    fast, exact = (decode(data, 224, fit, mode).astype(int) for mode in ("fast", "exact"))
    difference = np.abs(fast - exact)
    assert difference.mean() < 0.5
    assert difference.max() <= 32


@pytest.mark.parametrize("fit", ["squash", "pad", "flair"])
def test_fast_is_close_to_exact_on_rendered_photographs(rendered, fit):
    for data in rendered:
        assert_fast_is_close_to_exact(data, fit)


@pytest.mark.skipif(not REAL.is_dir(), reason="IDRiD's photographs are not at hand")
@pytest.mark.parametrize("fit", ["squash", "pad", "flair"])
def test_fast_is_close_to_exact_on_real_photographs(fit):
    for path in sorted(REAL.rglob("*.jpg"))[::60]:
        assert_fast_is_close_to_exact(path.read_bytes(), fit)


def test_fast_fundus_finds_the_same_field_as_exact(rendered):
    for data in rendered:
        fast, exact = (decode(data, 224, "fundus", mode).astype(int) for mode in MODES)
        # A pixel's shift of the round border alone makes 2.
        assert np.abs(fast - exact).mean() < 2.5


def test_fast_keeps_the_resolution_of_a_field_that_is_small_in_its_photograph():
    photograph = np.zeros((1024, 1536, 3), np.uint8)
    cv2.circle(photograph, (500, 500), 240, (180, 90, 30), -1)
    photograph[440:560, 440:560][:, np.arange(120) % 10 < 5] //= 3
    data = jpeg(photograph)

    def contrast(square: np.ndarray) -> float:
        return square[54:74, 54:74, 0].astype(float).std()

    best = contrast(fit_square(read_rgb(data), 128, "fundus", "fast"))
    assert contrast(decode(data, 128, "fundus", "fast")) > 0.9 * best
    scaled_like_the_whole = read_rgb(data, 192)
    assert scaled_like_the_whole.shape[0] == 256
    assert contrast(fit_square(scaled_like_the_whole, 128, "fundus", "fast")) < 0.85 * best


@pytest.mark.parametrize(("height", "width"), [(1, 3000), (3000, 1), (1, 1), (37, 41), (301, 517)])
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mode", MODES)
def test_every_shape_becomes_a_square(height, width, fit, mode):
    rgb = np.full((height, width, 3), (200, 100, 50), np.uint8)
    for data in (jpeg(rgb), encoded(Image.fromarray(rgb), "PNG")):
        square = decode(data, 48, fit, mode)
        assert square.shape == (48, 48, 3)
        assert square.dtype == np.uint8
        assert square.flags.c_contiguous
        np.testing.assert_allclose(square[square.any(-1)].mean(0), (200, 100, 50), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_applies_the_orientation_to_what_it_scales(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(scene(320, 512), exif=exif)
    for fit in ("squash", "pad"):
        fast, exact = (decode(data, 64, fit, mode).astype(int) for mode in MODES)
        assert np.abs(fast - exact).mean() < 1


def test_room_is_given_where_the_photograph_has_the_pixels():
    def side(height: int, width: int, fit: str, mode: str = "fast") -> int:
        return decode(jpeg(scene(height, width)), 64, fit, mode, room=1.25).shape[0]

    assert [side(256, 256, fit) for fit in ("squash", "pad", "flair")] == [80, 80, 80]
    assert side(72, 100, "squash") == 72
    assert side(60, 74, "pad") == 74
    assert side(50, 50, "squash") == 64
    assert side(256, 256, "squash", "exact") == 64


@pytest.mark.parametrize(
    "data",
    [b"", b"not an image", b"\xff\xd8\xff", jpeg(scene(64, 64))[:-200], b"\x89PNG\r\n\x1a\n\0\0"],
)
@pytest.mark.parametrize("mode", MODES)
def test_damage_is_an_image_error_of_one_line_with_the_key(data, mode):
    with pytest.raises(ImageError, match=r"^train/7: ") as caught:
        decode(data, 32, mode=mode, key="train/7")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("mode", MODES)
def test_flipped_bytes_and_lost_ends_of_a_jpeg_are_refused(mode, fit):
    data = jpeg(scene(200, 200))
    flipped = bytearray(data)
    flipped[len(data) // 2 : len(data) // 2 + 30] = bytes(30)
    for damaged in (bytes(flipped), data[: len(data) // 2], data[:-40]):
        with pytest.raises(ImageError):
            decode(damaged, 32, fit, mode)


def test_bombs_and_unbounded_values_are_refused():
    side = int(MAX_PIXELS**0.5) + 64
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    with pytest.raises(ImageError, match="pixels"):
        decode(bomb, 32)
    floats = Image.fromarray(np.zeros((8, 8), np.float32))
    with pytest.raises(ImageError, match="fixed range"):
        decode(encoded(floats, "TIFF"), 8)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="squash, pad, fundus, flair"):
        decode(b"", 32, "stretch")


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="exact, fast, got 'quick'"):
        decode(b"", 32, "squash", "quick")


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
    stripped = strip(data + b"SECRET trailer")
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
    with pytest.raises(ValueError, match="end marker"):
        strip(jpeg(scene(32, 32))[:-2])


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_pictures_of_several_pages_or_frames_are_refused(kind):
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "green", "blue")]
    buffer = io.BytesIO()
    pages[0].save(buffer, kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"holds several pictures .* save the photograph alone"):
        decode(buffer.getvalue(), 16)


def test_the_preview_in_a_phones_jpeg_is_no_second_picture():
    photograph = Image.effect_noise((64, 64), 60).convert("RGB")
    buffer = io.BytesIO()
    photograph.save(buffer, "MPO", save_all=True, append_images=[photograph.resize((16, 16))])
    assert decode(buffer.getvalue(), 16).shape == (16, 16, 3)
