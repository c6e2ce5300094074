"""Photographs as stored: bounded, upright, stripped; everything else refused with a reason."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vclip_jax.data.images.decode import read_rgb
from vclip_jax.datasets.ingest.store import Storage, StoreError, store

SECRET = b"Jane Doe 1950-01-01"


def pixels(height: int = 60, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3))
    return np.kron(coarse, np.ones((10, 10, 1))).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_metadata(kind: str) -> bytes:
    """An image that carries a patient's name wherever the format has room for it."""
    exif = Image.Exif()
    exif[0x010E] = exif[0x9286] = SECRET.decode()
    options: dict = {"exif": exif, "icc_profile": b"\0" * 128 + SECRET}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", SECRET.decode())
        text.add_itxt("Patient", SECRET.decode())
        options["pnginfo"] = text
    if kind == "JPEG":
        options |= {"comment": SECRET, "quality": 95}
    if kind == "TIFF":
        options = {"tiffinfo": {270: SECRET.decode(), 315: SECRET.decode()}}
    return encoded(pixels(), kind, **options) + SECRET


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("storage", [Storage(), Storage(max_side=40), Storage(max_side=0)], ids=str)
def test_no_metadata_survives(kind, storage):
    data = with_metadata(kind)
    assert SECRET in data
    image, width, height = store(data, storage)
    assert SECRET not in image
    assert read_rgb(image).shape == (height, width, 3)
    with Image.open(io.BytesIO(image)) as opened:
        assert not opened.getexif()
        assert not {"comment", "icc_profile", "exif", "Comment"} & set(opened.info)


def test_a_small_jpeg_keeps_its_pixels_bit_for_bit():
    data = with_metadata("JPEG")
    for storage in (Storage(), Storage(max_side=0)):
        np.testing.assert_array_equal(read_rgb(store(data, storage)[0]), read_rgb(data))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_original_bytes_of_other_formats_become_a_png_without_loss(kind):
    image, width, height = store(encoded(pixels(), kind), Storage(max_side=0))
    assert image.startswith(b"\x89PNG")
    assert (width, height) == (80, 60)
    np.testing.assert_array_equal(read_rgb(image), pixels())


def test_larger_images_shrink_to_the_longest_side():
    image, width, height = store(
        encoded(pixels(300, 400), "PNG"), Storage(max_side=100, quality=100)
    )
    assert (width, height) == (100, 75)
    expected = pixels(300, 400).reshape(75, 4, 100, 4, 3).mean(axis=(1, 3))
    assert np.abs(read_rgb(image) - expected).mean() < 1


def test_the_orientation_of_the_camera_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the right-hand side of the picture is up
    for storage in (Storage(), Storage(max_side=0)):
        image, width, height = store(
            encoded(pixels(), "JPEG", exif=exif, quality=100, subsampling=0), storage
        )
        assert (width, height) == (60, 80)
        assert np.abs(read_rgb(image).astype(int) - np.rot90(pixels(), -1)).mean() < 2


def test_cropping_cuts_to_the_illuminated_field():
    photograph = np.zeros((200, 300, 3), np.uint8)
    yy, xx = np.mgrid[:200, :300]
    photograph[(yy - 100) ** 2 + (xx - 150) ** 2 < 80**2] = (180, 90, 40)
    _, width, height = store(encoded(photograph, "PNG"), Storage(crop=True))
    assert abs(width - 160) <= 4
    assert abs(height - 160) <= 4


def palette() -> Image.Image:
    return Image.fromarray(pixels()).convert("P")


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (Image.new("L", (50, 50)), "JPEG", "greyscale"),
        (Image.new("1", (50, 50)), "PNG", "greyscale"),
        (Image.new("CMYK", (50, 50)), "JPEG", "CMYK"),
        (Image.new("RGBA", (50, 50)), "PNG", "transparency"),
        (Image.new("LA", (50, 50)), "PNG", "transparency"),
        (palette(), "PNG", "palette"),
        (Image.fromarray(np.zeros((50, 50), np.uint16)), "PNG", "16-bit"),
        (Image.new("F", (50, 50)), "TIFF", "32-bit"),
    ],
)
def test_other_modes_are_refused_and_converted_if_asked(image, kind, reason):
    data = encoded(image, kind)
    with pytest.raises(StoreError) as caught:
        store(data, Storage())
    assert caught.value.reason == reason
    if reason == "32-bit":  # whose values have no fixed range
        with pytest.raises(StoreError, match="32-bit: cannot read"):
            store(data, Storage(convert=True))
    else:
        converted, width, height = store(data, Storage(convert=True))
        assert read_rgb(converted).shape == (height, width, 3)


def test_sixteen_bits_a_channel_are_not_taken_for_eight():
    import cv2

    ok, data = cv2.imencode(".png", pixels().astype(np.uint16) * 257)
    assert ok
    with pytest.raises(StoreError) as caught:
        store(data.tobytes(), Storage())
    assert caught.value.reason == "16-bit"


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in its header, and a few bytes."""
    data = bytearray(encoded(pixels(), "PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image"),
        (b"this is no image", "not an image"),
        (b"%PDF-1.7 ...", "not an image"),
        (encoded(pixels(), "JPEG")[:-300], "damaged"),
        (encoded(pixels(), "PNG")[:-300], "damaged"),
        (encoded(pixels(), "TIFF")[:-5000], "damaged"),
        (bomb(), "too many pixels"),
        (encoded(pixels(10, 10), "PNG"), "too small"),
        (encoded(pixels(), "GIF"), "format not read"),
        *(
            (
                encoded(pixels(), kind, save_all=True, append_images=[Image.new("RGB", (80, 60))]),
                "several frames",
            )
            for kind in ("PNG", "TIFF", "WEBP")
        ),
    ],
)
def test_what_is_no_photograph_is_refused_with_a_reason(data, reason):
    with pytest.raises(StoreError) as caught:
        store(data, Storage())
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@settings(max_examples=60)
@given(at=st.floats(0, 1), value=st.integers(1, 255), cut=st.booleans())
def test_damage_is_a_store_error_or_a_picture_but_nothing_else(kind, at, value, cut):
    data = bytearray(encoded(pixels(), kind))
    position = int(at * (len(data) - 1))
    if cut:
        del data[position:]
    else:
        data[position] ^= value
    try:
        image, width, height = store(bytes(data), Storage())
    except StoreError:
        return
    assert read_rgb(image).shape == (height, width, 3)


@pytest.mark.parametrize(
    "options", [{"max_side": 8}, {"quality": 0}, {"quality": 101}, {"max_side": 0, "crop": True}]
)
def test_impossible_storage_is_refused(options):
    with pytest.raises(ValueError, match="max_side"):
        Storage(**options)


def test_a_storage_is_named_after_what_it_does():
    assert Storage().name == "512px-q92"
    assert Storage(max_side=0).name == "original"
    assert Storage(256, 90, crop=True, convert=True).name == "256px-q90-crop-convert"
