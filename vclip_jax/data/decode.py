"""Encoded images in, square uint8 RGB arrays out.

JPEGs go through libjpeg-turbo, which scales while it decodes; everything else goes through Pillow.
The decoder is strict: a JPEG that is damaged anywhere is refused, not shown with a grey half.
"""

import io
from typing import Final, Literal, get_args

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Fit = Literal["squash", "pad", "fundus"]
FITS: Final[tuple[str, ...]] = get_args(Fit)

MAX_PIXELS: Final = 80_000_000
"""Larger images are refused before their pixels are unpacked (80 Mpx are 240 MB)."""

_ORIENTATION: Final = 0x0112
_THUMBNAIL_SIDE: Final = 256


class ImageError(ValueError):
    """An image cannot be used. The message is one line and starts with the image's key."""


def decode(data: bytes, size: int, fit: str = "squash", *, key: str = "image") -> np.ndarray:
    """Decode an image and fit it into a square.

    The EXIF orientation is applied, transparency is shown on black, 16-bit samples keep their
    upper 8 bits. Of several frames the first counts.

    Args:
        data: an encoded image: JPEG, PNG, TIFF, BMP or whatever else Pillow reads.
        size: height and width of the result in pixels.
        fit: "squash" resizes straight to the square, bicubic with antialiasing, pixel for pixel
            as CLIP's recipe does; "pad" keeps the aspect ratio, centred on black; "fundus" first
            crops to the illuminated field of a fundus photograph, see `field_box`. The latter two
            let a JPEG of at least four times the size be scaled down by a power of two while it
            is decoded, but not below twice the size.
        key: what an error calls the image.

    Returns:
        uint8 `[size, size, 3]`, RGB, contiguous.

    Raises:
        ImageError: not an image, damaged, larger than `MAX_PIXELS`, or of a kind whose values
            have no fixed range.
        ValueError: unknown `fit` or a size below 1.
    """
    check_fit(size, fit)
    return fit_square(read_rgb(data, 0 if fit == "squash" else 2 * size, key=key), size, fit)


def check_fit(size: int, fit: str) -> None:
    """Raises ValueError unless `fit` is known and `size` positive."""
    if fit not in FITS or size < 1:
        raise ValueError(f"fit must be one of {', '.join(FITS)} and size >= 1, got {fit!r}, {size}")


def read_rgb(data: bytes, min_side: int = 0, *, key: str = "image") -> np.ndarray:
    """Decode an image to uint8 `[height, width, 3]` RGB, upright.

    Args:
        data: an encoded image.
        min_side: a JPEG may come back scaled down by a power of two as long as its shorter side
            keeps this many pixels; 0 keeps the full size.
        key: what an error calls the image.

    Raises:
        ImageError: see `decode`.
    """
    try:
        if data[:2] == b"\xff\xd8":
            pixels = _read_jpeg(data, min_side)
            if pixels is not None:
                return pixels
        return _read_any(data)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        # Pillow's message ends with the address of the file object.
        reason = reason.split(" <_io", 1)[0]
        raise ImageError(f"{key}: cannot read the image ({len(data)} bytes): {reason}") from None


def _read_jpeg(data: bytes, min_side: int) -> np.ndarray | None:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(width, height)
    if colorspace in ("CMYK", "YCCK"):
        return None  # whether the inks are inverted is for Pillow to find out
    # Both sides get the same minimum, so the shorter one decides. Factors below 2 are slower.
    scaled = min_side > 0 and min(height, width) >= 2 * min_side
    pixels = simplejpeg.decode_jpeg(
        data,
        "RGB",
        min_height=min_side if scaled else 0,
        min_width=min_side if scaled else 0,
        min_factor=2 if scaled else 1,
    )
    return _upright(pixels, _exif_orientation(data))


def _exif_orientation(data: bytes) -> int:
    # Parsing EXIF costs as much as decoding a small image, and few files have any.
    if b"Exif\0\0" not in data[:65536]:
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(_ORIENTATION, 1)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0 tag 274, values 1 to 8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _read_any(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return pillow_rgb(image)


def pillow_rgb(image: Image.Image) -> np.ndarray:
    """A Pillow image as uint8 `[height, width, 3]` RGB, upright, transparency on black.

    Raises:
        ValueError: larger than `MAX_PIXELS`, or of a kind whose values have no fixed range.
    """
    _check_pixels(*image.size)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.uint16) >> 8
        image = Image.fromarray(high.astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit samples have no fixed range, convert them to 8 or 16 bits")
    elif image.has_transparency_data:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    return np.array(image.convert("RGB"))


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} allowed")


def fit_square(rgb: np.ndarray, size: int, fit: str) -> np.ndarray:
    """uint8 RGB `[height, width, 3]` to `[size, size, 3]`, see `decode`."""
    if fit == "squash":
        return _resize(rgb, size, size)
    if fit == "fundus":
        left, top, right, bottom = field_box(rgb)
        rgb = rgb[top:bottom, left:right]
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if fit == "fundus":
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        small = cv2.resize(rgb, (new_width, new_height), interpolation=method)
    else:
        small = _resize(rgb, new_height, new_width)
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    square[top : top + new_height, left : left + new_width] = small
    return square


def _resize(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


def field_box(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """The bounding box of a fundus photograph's illuminated field.

    Among every n-th pixel, the field is the largest connected region brighter than a threshold that
    lies 15 % of the way from the surround (2nd percentile) to the bright parts (90th percentile) of
    the brightest channel, so that neither a grey surround nor burnt-in text moves the box.

    Args:
        rgb: uint8 `[height, width, 3]`.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive, exact to n pixels (n is
        the longest side over 256). The whole image where nothing like a field is found: under a
        tenth of the area, or no contrast.
    """
    height, width = rgb.shape[:2]
    whole = (0, 0, width, height)
    step = max(1, max(height, width) // _THUMBNAIL_SIDE)
    red, green, blue = cv2.split(rgb[::step, ::step])
    thumbnail = cv2.medianBlur(cv2.max(cv2.max(red, green), blue), 5)
    histogram = cv2.calcHist([thumbnail], [0], None, [256], [0, 256]).ravel()
    below = np.cumsum(histogram) / thumbnail.size
    surround, bright = (int(level) for level in np.searchsorted(below, (0.02, 0.90)))
    if bright - surround < 16:
        return whole
    threshold = surround + 0.15 * (bright - surround)
    lit = cv2.threshold(thumbnail, threshold, 255, cv2.THRESH_BINARY)[1]
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    field = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(field) < 0.1 * thumbnail.size:
        return whole
    x, y, w, h = cv2.boundingRect(field)
    return x * step, y * step, min(width, (x + w) * step), min(height, (y + h) * step)


def bounded_jpeg(data: bytes, max_side: int, quality: int, *, key: str = "image") -> bytes:
    """An image as a JPEG without metadata, at most `max_side` pixels along its longest side.

    A JPEG that is small enough and upright keeps its pixels bit for bit; anything else is decoded,
    resized (area averaging) and encoded again. Nothing but the picture survives: no EXIF, no
    comment, no colour profile, no bytes after the end.

    Args:
        data: an encoded image.
        max_side: in pixels.
        quality: of the JPEG where one is written, 1 to 100.
        key: what an error calls the image.

    Raises:
        ImageError: see `decode`; the whole image is decoded, so that damage is found here.
    """
    pixels = read_rgb(data, key=key)
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale < 1:
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA)
    elif data[:2] == b"\xff\xd8" and _exif_orientation(data) == 1:
        return strip_jpeg(data, key=key)
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", colorsubsampling="444")


def strip_jpeg(data: bytes, *, key: str = "image") -> bytes:
    """A JPEG without its metadata; the compressed picture is copied unchanged.

    Application segments other than JFIF's and Adobe's (which says how colours are coded) and
    comments go, wherever they stand (ITU T.81, annex B), and so does what follows the end.

    Raises:
        ImageError: the segments do not make a JPEG.
    """
    kept = [b"\xff\xd8"]
    at = 2
    while True:
        start = data.find(b"\xff", at)
        while 0 <= start < len(data) - 1 and data[start + 1] == 0xFF:
            start += 1  # fill bytes
        if start < 0 or start + 1 >= len(data):
            raise ImageError(f"{key}: the JPEG has no end marker after byte {at}")
        marker = data[start + 1]
        if marker == 0x00 or 0xD0 <= marker <= 0xD7:  # within the compressed data
            kept.append(data[at : start + 2])
            at = start + 2
            continue
        # What lies before the marker belongs to a scan.
        kept.append(data[at:start])
        if marker == 0xD9:
            return b"".join([*kept, b"\xff\xd9"])
        at = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        segment = data[start:at]
        jfif = marker == 0xE0 and segment[4:9] == b"JFIF\0"
        adobe = marker == 0xEE and segment[4:9] == b"Adobe"
        if jfif:
            # The first 16 bytes; a thumbnail may follow them.
            kept.append(b"\xff\xe0\x00\x10" + segment[4:16] + b"\0\0")
        elif adobe or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
