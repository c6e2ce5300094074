"""A JPEG's segments: what is kept of them shows the same pixels and nothing else."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vclip_jax.data.images import jpeg
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.images.opening import ImageError

SECRET = b"Jane Doe 1950-01-01"


def picture(mode: str = "RGB", size: tuple[int, int] = (56, 40)) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    rgb = np.stack([4 * x, 5 * y, 127 + 100 * np.sin(x / 5) * np.cos(y / 7)], -1) % 256
    return Image.fromarray(rgb.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


FORMS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0, "quality": 97},
    "4:2:0": {"subsampling": 2},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
    "grey": {"mode": "L"},
    "grey progressive": {"mode": "L", "progressive": True},
    "inks": {"mode": "CMYK"},
    "colours as they are": {"keep_rgb": True},
}


def form(name: str, **more) -> bytes:
    options = dict(FORMS[name]) | more
    return encoded(picture(options.pop("mode", "RGB")), **options)


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def secret_table(marker: int, number: int) -> bytes:
    """A table that no scan uses, full of somebody's name."""
    if marker == 0xDB:
        return segment(marker, bytes([number]) + (SECRET * 9)[:64])
    return segment(marker, bytes([number]) + bytes([0] * 7 + [len(SECRET)] + [0] * 8) + SECRET)


def pillow_pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_kept_has_the_same_pixels_for_both_readers(name):
    data = form(name, comment=SECRET, icc_profile=SECRET * 9, exif=b"Exif\0\0" + SECRET)
    kept = jpeg.strip(data)
    assert SECRET in data
    assert SECRET not in kept
    assert len(kept) < len(data)
    np.testing.assert_array_equal(read_rgb(kept), read_rgb(data))
    np.testing.assert_array_equal(pillow_pixels(kept), pillow_pixels(data))
    assert jpeg.strip(kept) == kept


HIDDEN = {
    "a comment": segment(0xFE, SECRET),
    "an application's segment": segment(0xED, b"Photoshop 3.0\0" + SECRET),
    "a second header": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0" + SECRET),
    "an extension of the header": segment(0xE0, b"JFXX\0\x10" + SECRET),
    "after Adobe's 12 bytes": segment(0xEE, b"Adobe\0\x64\0\0\0\0\1" + SECRET),
    "in Adobe's version": segment(0xEE, b"Adobe" + SECRET[:6] + b"\1" + SECRET),
    "a Huffman table without use": secret_table(0xC4, 0x03),
    "another of AC": secret_table(0xC4, 0x13),
    "a quantisation table without use": secret_table(0xDB, 3),
    "a table that is replaced": secret_table(0xDB, 0),
    "a Huffman table that is replaced": secret_table(0xC4, 0),
    "a number of lines": segment(0xDC, SECRET),
    "fill bytes": b"\xff" * 40,
}


@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("name", ["baseline", "progressive", "inks"])
def test_nothing_hides_in_a_segment_that_the_picture_does_not_need(what, name):
    data = form(name)
    start = 2  # before the tables that the picture uses, so that these count
    hiding = data[:start] + HIDDEN[what] + data[start:]
    kept = jpeg.strip(hiding)
    for end in (4, 8, len(SECRET)):
        assert SECRET[:end] not in kept
    assert len(kept) <= len(data) + 18  # a header that there was not
    np.testing.assert_array_equal(read_rgb(kept), read_rgb(hiding))


def test_nothing_hides_between_the_scans_and_after_the_end():
    data = form("progressive")
    scans = [begin for marker, begin, *_ in jpeg.segments(data) if marker == 0xDA]
    assert len(scans) > 2
    hiding = data[: scans[2]] + b"".join(HIDDEN.values()) + data[scans[2] :] + SECRET
    kept = jpeg.strip(hiding)
    assert SECRET[:8] not in kept
    np.testing.assert_array_equal(read_rgb(kept), read_rgb(data))


def test_a_table_that_two_scans_define_anew_counts_for_each():
    """As encoders of progressive JPEGs have it: the same table number, other contents."""
    data = form("progressive", quality=40)
    tables = [data[start:end] for marker, _, start, end in jpeg.segments(data) if marker == 0xC4]
    numbers = [table[0] for table in tables]
    assert len(set(numbers)) < len(numbers)
    np.testing.assert_array_equal(read_rgb(jpeg.strip(data)), read_rgb(data))


@pytest.mark.parametrize("name", FORMS)
def test_a_header_is_read_without_decoding(name):
    header = jpeg.read_header(form(name))
    assert header == jpeg.Header(app1=False, several_scans="progressive" in name, bits=8)
    assert jpeg.read_header(form(name, exif=b"Exif\0\0xy")).app1


@given(st.binary(max_size=60), st.integers(0, 2000), st.booleans())
def test_any_bytes_are_stripped_or_refused(noise, at, replace):
    data = form("baseline")
    at = 2 + at % (len(data) - 2)
    damaged = data[:at] + noise + data[at + len(noise) * replace :]
    try:
        kept = jpeg.strip(damaged)
    except (ValueError, IndexError):
        return
    assert kept[:2] == b"\xff\xd8"
    assert kept[-2:] == b"\xff\xd9"
    jpeg.read_header(damaged)
    try:
        wanted = read_rgb(damaged)
    except ImageError:
        return
    np.testing.assert_array_equal(read_rgb(kept), wanted)
