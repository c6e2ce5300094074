"""16 bits a sample become 8 by the range in use, or are refused."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vclip_jax.data.images import sixteen_bit
from vclip_jax.data.images.decode import pillow_rgb, read_rgb
from vclip_jax.data.images.opening import ImageError


def eye() -> np.ndarray:
    """uint8 RGB, the brightest sample 250."""
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([3.9 * x, 3 * y, 1.2 * (x + y)], -1).clip(0, 240).astype(np.uint8)
    rgb[20:24, 30:34] = 250
    return rgb


def stored(kind: str, samples: np.ndarray) -> bytes:
    """uint16 `[h, w]` or `[h, w, 3]` RGB as OpenCV writes it."""
    ok, data = cv2.imencode(f".{kind}", samples[..., ::-1] if samples.ndim == 3 else samples)
    assert ok
    return data.tobytes()


def tiff(samples: np.ndarray, order: str, photometric: int = 1, orientation: int = 1) -> bytes:
    """Uncompressed in one strip, of either byte order."""
    height, width = samples.shape[:2]
    channels = samples.size // (height * width)
    pixels = samples.astype(f"{order}u2").tobytes()
    bits = (258, 3, 3, 8) if channels == 3 else (258, 3, 1, 16)  # of three: where they stand
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        bits,
        (259, 3, 1, 1),
        (262, 3, 1, 2 if channels == 3 else photometric),
        (273, 4, 1, 256),
        (274, 3, 1, orientation),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(pixels)),
    ]
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I4H", 16, 16, 16, 16, 0)
    file += struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        inline = kind == 3 and count == 1
        value_form = "HH" if inline else "I"
        values = (value, 0) if inline else (value,)
        file += struct.pack(f"{order}HHI{value_form}", tag, kind, count, *values)
    return file.ljust(256, b"\0") + pixels


@pytest.mark.parametrize("bits", sixteen_bit.DEPTHS)
@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("colours", [True, False])
def test_the_range_in_use_is_what_counts(bits, kind, colours):
    rgb = eye() if colours else np.repeat(eye()[..., :1], 3, axis=2)
    samples = (rgb if colours else rgb[..., 0]).astype(np.uint16) << (bits - 8)
    np.testing.assert_array_equal(read_rgb(stored(kind, samples)), rgb)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("colours", [True, False])
def test_byte_order_and_orientation_are_those_of_the_file(order, orientation, colours):
    rgb = eye() if colours else np.repeat(eye()[..., :1], 3, axis=2)
    samples = (rgb if colours else rgb[..., 0]).astype(np.uint16) << 4
    turned = {1: rgb, 3: rgb[::-1, ::-1], 6: np.rot90(rgb, -1)}[orientation]
    data = tiff(samples, order, orientation=orientation)
    np.testing.assert_array_equal(read_rgb(data), turned)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=9))
def test_order_is_kept_and_the_largest_sample_is_bright(values):
    samples = np.array(values, np.uint16)
    small = sixteen_bit.to_eight_bits(samples).astype(int)
    order = np.argsort(samples, kind="stable")
    assert (np.diff(small[order]) >= 0).all()
    if samples.max() > 255:
        assert small.max() >= 64  # depths are two bits apart


def test_a_pillow_image_of_grey_gives_what_its_file_gives():
    samples = eye()[..., 0].astype(np.uint16) << 4
    for data in (stored("png", samples), stored("tiff", samples), tiff(samples, ">")):
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(pillow_rgb(image), read_rgb(data))


def test_of_16_bit_colours_pillow_has_but_half_and_is_not_believed():
    samples = eye().astype(np.uint16) << 4
    for data in (stored("png", samples), stored("tiff", samples)):
        with Image.open(io.BytesIO(data)) as image, pytest.raises(ImageError, match="16-bit"):
            pillow_rgb(image)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_transparency_in_16_bits_is_refused(kind):
    samples = np.dstack([eye(), np.full((48, 64), 255)]).astype(np.uint16) * 257
    ok, data = cv2.imencode(f".{kind}", samples)
    assert ok
    with pytest.raises(ImageError, match="16-bit samples"):
        read_rgb(data.tobytes())


def test_where_black_and_white_are_exchanged_it_is_refused():
    with pytest.raises(ImageError, match="0 is white"):
        read_rgb(tiff(eye()[..., 0].astype(np.uint16) << 4, "<", photometric=0))


def test_readers_that_disagree_are_not_believed(monkeypatch):
    data = stored("png", eye().astype(np.uint16) << 8)
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    other[0, 0] ^= 1 << 15
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: other)
    with pytest.raises(ImageError, match="two readers read differently"):
        read_rgb(data)


@pytest.mark.parametrize("most", [255, 1000, 65535])
def test_a_portable_map_says_its_range(most):
    samples = (eye()[..., 0].astype(int) * most // 255).astype(">u2" if most > 255 else "u1")
    data = f"P5 64 48 {most}\n".encode() + samples.tobytes()
    assert np.abs(read_rgb(data)[..., 0].astype(int) - eye()[..., 0]).max() <= 1


def test_cut_files_are_refused():
    samples = eye().astype(np.uint16) << 4
    for data in (stored("png", samples), stored("tiff", samples), tiff(samples, "<")):
        with pytest.raises(ImageError):
            read_rgb(data[: len(data) * 2 // 3])
