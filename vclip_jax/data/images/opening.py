"""The only way to open encoded pictures: which files are opened, and why others are refused.

Pillow opens many formats, and some of them run programs (EPS runs Ghostscript) or have rarely
tested readers. Here only the formats of photographs are opened, a file whose header implies more
memory or time than a photograph takes is refused, and every error of a decoder becomes an
`ImageError`.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, NamedTuple

import simplejpeg
from PIL import Image, UnidentifiedImageError

from vclip_jax.data.images import jpeg
from vclip_jax.files.errors import one_line

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM")
"""Pillow's names of the formats that are opened. MPO, a JPEG with previews, counts as JPEG."""

MAX_PIXELS: Final = 80_000_000
"""Larger images are refused before their pixels are unpacked.

Including copies, a JPEG takes 3 bytes a pixel, a progressive one 9, others 10 to 22: 1.8 GB for 80
Mpx.
"""
MAX_PIXELS_OF: Final = {"WEBP": 40_000_000}
"""Lower limits: WebP takes 26 bytes a pixel, 8 of them when the file is opened."""

_MOST_PPM_HEADER: Final = 1 << 16
"""Bytes of a PPM header; editors and cameras write at most a line of comment."""
_MOST_PPM_COMMENTS: Final = 1000

TOO_MUCH_MEMORY: Final = "too much memory"
"""The reason of an `ImageError`."""
_LARGE: Final = 16_000_000
_LARGE_AT_A_TIME: Final = 160_000_000
"""Pixels of large pictures that are unpacked at a time: threads wait for their turn."""

_MAGIC: Final = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"P1", "PPM"),
    (b"P2", "PPM"),
    (b"P3", "PPM"),
    (b"P4", "PPM"),
    (b"P5", "PPM"),
    (b"P6", "PPM"),
)
_OTHER_PICTURES: Final = (
    (b"GIF8", "a GIF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"8BPS", "a Photoshop file"),
    (b"DDS ", "a DDS file"),
    (b"BLP", "a BLP file"),
    (b"\0\0\1\0", "an icon"),
    (b"SIMPLE  =", "a FITS file"),
    (b"<svg", "an SVG drawing"),
)
_OTHER_FILES: Final = (
    (b"%PDF", "a PDF document"),
    (b"PK\3\4", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"version https://git-lfs", "a pointer of Git LFS to the file: run `git lfs pull`"),
)
_BOXES: Final = {
    b"avif": "an AVIF file",
    b"avis": "an AVIF file",
    b"heic": "a HEIC file",
    b"heix": "a HEIC file",
    b"hevc": "a HEIC file",
    b"hevx": "a HEIC file",
    b"heim": "a HEIC file",
    b"heis": "a HEIC file",
    b"mif1": "a HEIC or AVIF file",
    b"msf1": "a HEIC or AVIF file",
}

# Pillow's warnings concern files that are refused here with an error, or nothing of interest.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")


class ImageError(ValueError):
    """An image cannot be used. The message is one line, which starts with the key if it is known.

    Attributes:
        reason: a few words, the same for all images of a kind: "damaged", "too many pixels".
    """

    def __init__(self, message: str, reason: str = "damaged"):
        """Take a message of one line."""
        super().__init__(message)
        self.reason = reason


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """Open an encoded image of one of `FORMATS` with Pillow, within the limits of size.

    An error of a decoder within the `with` block becomes an `ImageError`.

    Raises:
        ImageError: the image cannot be used; the message has no key.
    """
    try:
        kind = check(data)
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            check_pixels(*image.size, image.format or "")
            if image.format == "TIFF":
                _check_tiff(image)
            yield image
    except Exception as error:
        raise as_image_error(error) from error


def as_image_error(error: Exception) -> ImageError:
    """Return a decoder's error as an `ImageError` of one line; an `ImageError` stays as it is."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError):
        return ImageError("it takes more memory than a picture may", TOO_MUCH_MEMORY)
    if isinstance(error, UnidentifiedImageError):
        return ImageError("its first bytes are damaged")
    # Pillow's messages may end with the address of the file object.
    line, kind = one_line(error).split(" <_io", 1)[0], type(error).__name__
    if line != kind and not isinstance(error, OSError | ValueError | SyntaxError | EOFError):
        line = f"{kind} {line}"
    many = isinstance(error, Image.DecompressionBombError)
    return ImageError(line, "too many pixels" if many else "damaged")


def check(data: bytes) -> str:
    """Return the format, one of `FORMATS`.

    Raises:
        ImageError: the format is another one, or opening the file would cost too much.
    """
    kind = kind_of(data)
    if kind == "JPEG":
        jpeg_header(data)
    elif kind == "WEBP":
        # WebP's decoder allocates the memory when it is created.
        check_pixels(*_webp_size(data), kind)
    elif kind == "PPM":
        _check_ppm(data)
    elif not kind:
        raise _unread(data)
    return kind


def kind_of(data: bytes) -> str:
    """Return the format by the first bytes, one of `FORMATS`; "" for any other."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")


class JpegHeader(NamedTuple):
    """The facts in a JPEG's header."""

    size: tuple[int, int]
    """Width and height in pixels."""
    colours: str
    """YCbCr, RGB, Gray, CMYK or YCCK."""
    app1: bool
    """True if there is EXIF or XMP, which may hold the camera's orientation."""


def jpeg_header(data: bytes) -> JpegHeader:
    """Read a JPEG's header without decoding it; takes microseconds.

    Raises:
        ImageError: the file is damaged, or has more pixels, scans or bits than a photograph.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except Exception as error:
        raise as_image_error(error) from error
    check_pixels(width, height)
    header = jpeg.read_header(data)
    if header.several_scans and jpeg.has_many_scans(data):
        raise ImageError(f"more than {jpeg.MAX_SCANS} scans in a JPEG", "too many scans")
    if header.bits not in (0, 8):
        raise ImageError(f"JPEGs of {header.bits} bits are not read: convert it to 8 bits")
    return JpegHeader((width, height), colours, header.app1)


def check_pixels(width: int, height: int, kind: str = "") -> None:
    """Check the number of pixels against the limit of the format.

    Raises:
        ImageError: there are more.
    """
    most = MAX_PIXELS_OF.get(kind, MAX_PIXELS)
    if width * height > most:
        raise ImageError(
            f"{width} x {height} pixels are more than the {most} allowed", "too many pixels"
        )


_large_free = _LARGE_AT_A_TIME
_large_changed = threading.Condition()
_NO_WAIT: Final = nullcontext()


def wait_for_memory(pixels: int) -> AbstractContextManager[None]:
    """Return a context that waits until there is room for a large picture; small ones pass."""
    return _NO_WAIT if pixels <= _LARGE else _room_for(pixels)


@contextmanager
def _room_for(pixels: int) -> Iterator[None]:
    global _large_free
    with _large_changed:
        _large_changed.wait_for(lambda: _large_free >= pixels)
        _large_free -= pixels
    try:
        yield
    finally:
        with _large_changed:
            _large_free += pixels
            _large_changed.notify_all()


def has_more_frames(image: Image.Image) -> bool:
    """Return whether an image has more than one frame.

    TIFF's pages are not counted, which takes Pillow quadratic time.
    """
    if image.format in ("JPEG", "MPO"):
        return False  # the second picture of an MPO is a preview or the other eye
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    image.seek(0)
    return True


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height, by RFC 9649; (0, 0) if the header is damaged."""

    def number(at: int, size: int = 3) -> int:
        return int.from_bytes(data[at : at + size], "little")

    match data[12:16]:
        case b"VP8X":
            return number(24) + 1, number(27) + 1
        case b"VP8L":
            return (number(21, 4) & 0x3FFF) + 1, (number(21, 4) >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return number(26, 2) & 0x3FFF, number(28, 2) & 0x3FFF
    return 0, 0


def _check_ppm(data: bytes) -> None:
    """Limit the header: Pillow reads it byte by byte, moving a megabyte for each comment in it."""
    numbers = 2 if data[:2] in (b"P1", b"P4") else 3
    start = re.sub(rb"#[^\r\n]*[\r\n]?", b"", data[2:_MOST_PPM_HEADER])  # as Pillow does
    ends = re.match(rb"(?:\s*+\S++){%d}\s" % numbers, start)
    plain = data[:2] in (b"P1", b"P2", b"P3")
    if len(data) > _MOST_PPM_HEADER and not ends:
        raise ImageError(f"its header has more than {_MOST_PPM_HEADER:,} bytes: remove comments")
    if plain and data.count(b"#") > _MOST_PPM_COMMENTS:
        raise ImageError(f"it has more than {_MOST_PPM_COMMENTS} comments: remove them")


def _check_tiff(image: Image.Image) -> None:
    """Check a TIFF's first directory (TIFF 6.0: tags 254, 322, 323)."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(254, 0) & 1:
        raise ImageError(
            "its first page is a preview (a camera's raw file?): convert it to JPEG",
            "format not read",
        )
    # A tile is unpacked whole, even if the picture uses little of it.
    check_pixels(tags.get(322, 0), tags.get(323, 0))


def _unread(data: bytes) -> ImageError:
    """Return the error for data of no known format, with the format's name if possible."""
    if not data:
        return ImageError("the file is empty", "not an image")
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    picture = _BOXES.get(data[8:12], "a film") if data[4:8] == b"ftyp" else ""
    if data[128:132] == b"DICM":
        picture = "a DICOM file"
    picture = picture or _named(_OTHER_PICTURES, data, start)
    if picture:
        return ImageError(f"{picture} is not read: convert it to PNG or JPEG", "format not read")
    other = _named(_OTHER_FILES, data, start) or ("a text" if _is_text(data[:512]) else "")
    if other:
        return ImageError(f"it is {other}", "not an image")
    return ImageError(
        f"it is no picture of a known format: it starts with {data[:4].hex(' ')}", "not an image"
    )


def _named(magics: tuple[tuple[bytes, str], ...], data: bytes, start: bytes) -> str:
    return next((n for magic, n in magics if data.startswith(magic) or start.startswith(magic)), "")


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", "ignore")
    return len(text.encode()) >= len(start) - 3 and all(
        c.isprintable() or c.isspace() for c in text
    )
