"""Decode encoded images to square uint8 RGB arrays.

JPEGs are decoded by libjpeg-turbo, which can scale while it decodes, all other formats by Pillow.
The decoder is strict: a JPEG that is damaged anywhere is refused, not returned with a grey half.
`vclip_jax.data.images.opening` decides which files are opened at all.
"""

import math
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from vclip_jax.data.choices import MODES
from vclip_jax.data.images import sixteen_bit
from vclip_jax.data.images.field import field_level, levels
from vclip_jax.data.images.opening import (
    ImageError,
    as_image_error,
    check_pixels,
    has_more_frames,
    jpeg_header,
    open_image,
    wait_for_room,
)

_ORIENTATION: Final = 0x0112
_THUMBNAIL_SIDE: Final = 256
_LONGEST_CROPPED: Final = 8
"""Ratio of the sides up to which "centre_crop" resizes the whole picture before it crops."""
FINER: Final = 1.5
"""Least pixels that "fast" decodes, relative to the result's pixels along a side.

With 1, photographs of 1024 px become 224 px in 25 % less time, at 1.4 times the distance from
"exact" (0.37); with 2, those of 1024 x 680 px take 75 % longer, and the distance is 0.28 instead of
0.31.
"""


def decode(
    data: bytes,
    size: int,
    fit: str = "squash",
    mode: str = "exact",
    *,
    room: float = 1.0,
    key: str = "image",
) -> np.ndarray:
    """Decode an image and fit it into a square.

    The EXIF orientation is applied, transparency is shown on black, 16-bit samples are scaled by
    the range in use (see `vclip_jax.data.images.sixteen_bit`).

    This function is for training. Evaluation and prediction use `decode_whole`, which gives the
    same in mode "exact" and does not scale while decoding in mode "fast".

    Args:
        data: an encoded image of one of `opening.FORMATS`.
        size: height and width of the result in pixels.
        fit: one of `FITS`: "squash" resizes straight to the square; "pad" keeps the aspect ratio,
            centred on black; "fundus" first crops to the illuminated field of a fundus
            photograph, see `field_box`; "flair" keeps the aspect ratio at the top left, black at
            the right or below, as FLAIR does; "centre_crop" resizes the shorter side to the size
            and cuts off the ends of the longer one, as CLIP and open_clip do.
        mode: "exact" decodes in full and resizes "squash" pixel for pixel as CLIP's recipe does
            (bicubic with antialiasing), "pad" and "centre_crop" likewise, "flair" bilinear with
            antialiasing, "fundus" by area. "fast" may scale a JPEG by 2, 4 or 8 while it is
            decoded, to no less than 1.5 times the picture's size in the square, and resizes with
            OpenCV. From 1024 px to 224 px, "squash" takes a fifth of the time, and the mean
            distance from "exact" is 0.31 of 255 on IDRiD's photographs (1024 x 680) and 0.26 on
            rendered ones; it is 16 at most. "pad" and "flair" differ by 0.20 to 0.27, at most 26.
            "fundus" differs by 0.59 and 0.16, and by any amount at the field's border, because its
            box may shift by up to a pixel. A picture whose side is not a multiple of the factor is
            stretched by less than one of the scaled pixels.
        room: space for later crops, only for "fast": the result's side is up to this many times the
            size, if the photograph has enough pixels.
        key: the image's name in error messages.

    Returns:
        uint8 `[side, side, 3]`, RGB, contiguous; `side` is `size` unless `room` is larger than 1.

    Raises:
        ImageError: the data are not an image, are damaged, have more than `MAX_PIXELS`, hold
            several pictures, or are of a kind whose values have no fixed range.
        ValueError: `fit` or `mode` is unknown, or `size` is below 1.
    """
    check_fit(size, fit, mode)
    if mode == "exact":
        return fit_square(read_rgb(data, key=key), size, fit)
    most = round(size * room)
    least = math.ceil(FINER * most)
    if fit in ("pad", "flair"):
        rgb, _ = _read(data, 0, least, key)
    elif fit not in BUILT_IN_FITS:
        rgb, _ = _read(data, 0, 0, key)
    else:
        rgb, factor = _read(data, least, 0, key)
    if fit == "fundus":
        field = _field(rgb)
        if factor > 1 and max(field.shape[:2]) < least:
            # The field is only a small part of the photograph.
            finer = least * min(rgb.shape[:2]) / max(field.shape[:2])
            field = _field(_read(data, math.ceil(finer), 0, key)[0])
        rgb = field
    longer = fit in ("pad", "fundus", "flair")
    offered = max(rgb.shape[:2]) if longer else min(rgb.shape[:2])
    side = max(size, min(most, offered))
    return _pad_field(rgb, side, mode) if fit == "fundus" else FITS[fit](rgb, side, mode)


def decode_whole(
    data: bytes, size: int, fit: str = "squash", mode: str = "exact", *, key: str = "image"
) -> np.ndarray:
    """Decode an image in full and fit it into a square, for evaluation and prediction.

    The result is that of `fit_square` for the photograph's pixels, so that a file, an opened image
    and an array give the same. Arguments and errors are those of `decode`.

    Returns:
        uint8 `[size, size, 3]`, RGB, contiguous.
    """
    check_fit(size, fit, mode)
    return fit_square(read_rgb(data, key=key), size, fit, mode)


def check_fit(size: int, fit: str, mode: str = "exact") -> None:
    """Check that `fit` and `mode` are known and `size` is positive.

    Raises:
        ValueError: one line: one of them is not.
    """
    if fit not in FITS or size < 1:
        raise ValueError(f"fit must be one of {', '.join(FITS)} and size >= 1, got {fit!r}, {size}")
    if mode not in MODES:
        raise ValueError(f"decode must be one of {', '.join(MODES)}, got {mode!r}")


def read_rgb(data: bytes, min_side: int = 0, *, key: str = "image") -> np.ndarray:
    """Decode an image to uint8 `[height, width, 3]` RGB, upright.

    Args:
        data: an encoded image.
        min_side: a JPEG may be scaled down by 2, 4 or 8 if its shorter side keeps this many pixels;
            0 keeps the full size.
        key: the image's name in error messages.

    Raises:
        ImageError: see `decode`.
    """
    return _read(data, min_side, 0, key)[0]


def _read(data: bytes, min_shorter: int, min_longer: int, key: str) -> tuple[np.ndarray, int]:
    """Return the pixels and the factor by which they are scaled down, limited by both minima."""
    try:
        if data[:2] == b"\xff\xd8":
            scaled = _read_jpeg(data, min_shorter, min_longer)
            if scaled is not None:
                return scaled
        return _read_any(data), 1
    except Exception as error:  # decoders raise many types
        why = as_image_error(error)
        raise ImageError(
            f"{key}: cannot read the image ({len(data)} bytes): {why}", why.reason
        ) from None


def _read_jpeg(data: bytes, min_shorter: int, min_longer: int) -> tuple[np.ndarray, int] | None:
    header = jpeg_header(data)
    width, height = header.size
    if header.colours in ("CMYK", "YCCK"):
        return None  # Pillow finds out whether the inks are inverted
    factor = 1
    # Factors other than 2, 4 and 8 are slower than none.
    while (
        (min_shorter or min_longer)
        and factor < 8
        and min(height, width) >= 2 * factor * min_shorter
        and max(height, width) >= 2 * factor * min_longer
    ):
        factor *= 2
    with wait_for_room(width * height):
        # fastdct saves 3 % of the time and triples the distance; fastupsample saves nothing.
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_height=-(-height // factor),
            min_width=-(-width // factor),
            min_factor=factor,
        )
    return _upright(pixels, orientation(data) if header.app1 else 1), factor


def orientation(data: bytes) -> int:
    """Return the camera's orientation from EXIF or XMP: TIFF 6.0 tag 274, values 1 to 8.

    Raises:
        ImageError: without a key, see `open_image`.
    """
    with open_image(data) as image:
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
    with open_image(data) as image, wait_for_room(image.width * image.height):
        if has_more_frames(image):
            raise ImageError(
                "it holds several pictures (pages or frames): save the photograph alone",
                "several frames",
            )
        if image.mode != "RGB" or not sixteen_bit.is_deep(image):
            return pillow_rgb(image)
        # Read before the pixels are loaded, because Pillow turns some files then.
        turned = image.getexif().get(_ORIENTATION, 1)
        upper = np.asarray(ImageOps.exif_transpose(image))
        samples = sixteen_bit.colours(data)
        # OpenCV also turns some files, depending on its version.
        return sixteen_bit.agreed((samples, _upright(samples, turned)), upper)


def pillow_rgb(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to uint8 `[height, width, 3]` RGB, upright, transparency on black.

    Grey samples of 16 bits are scaled by the range in use, see `vclip_jax.data.images.sixteen_bit`.

    Raises:
        ImageError: the image has more than `MAX_PIXELS`, values without a fixed range, or 16-bit
            colours, of which Pillow keeps only the upper 8 bits.
    """
    check_pixels(*image.size, image.format or "")
    declared = image.format == "PPM"  # the header gives the range, and Pillow scales by it
    if image.mode in ("I", "F") and not (declared and image.mode == "I"):
        raise ImageError(
            "32-bit samples have no fixed range, convert them to 8 or 16 bits", "32-bit"
        )
    sixteen_bit.refuse_unreadable(image)
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(sixteen_bit.to_eight_bits(np.asarray(image).astype(np.uint16)))
    elif image.mode == "I":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        colour = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def fit_square(rgb: np.ndarray, size: int, fit: str, mode: str = "exact") -> np.ndarray:
    """Fit uint8 RGB `[height, width, 3]` into a square `[size, size, 3]`, see `decode`."""
    return FITS[fit](rgb, size, mode)


def _squash(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    return resize_fast(rgb, size, size) if mode == "fast" else _resize(rgb, size, size)


def _pad(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = _inside(rgb, size)
    resize = resize_fast if mode == "fast" else _resize
    return _on_black(resize(rgb, height, width), size)


def _fundus(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    return _pad_field(_field(rgb), size, mode)


def _field(rgb: np.ndarray) -> np.ndarray:
    left, top, right, bottom = field_box(rgb)
    return rgb[top:bottom, left:right]


def _pad_field(field: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = _inside(field, size)
    if mode == "fast":
        return _on_black(resize_fast(field, height, width), size)
    method = cv2.INTER_AREA if max(field.shape[:2]) > size else cv2.INTER_CUBIC
    return _on_black(cv2.resize(field, (width, height), interpolation=method), size)


def _flair(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    height, width = (max(1, side * size // max(rgb.shape[:2])) for side in rgb.shape[:2])
    if mode == "fast":
        return _on_black(resize_fast(rgb, height, width), size, centred=False)
    return _on_black(_resize(rgb, height, width, bilinear=True), size, centred=False)


def _inside(rgb: np.ndarray, size: int) -> tuple[int, int]:
    """Return height and width of a picture whose longer side becomes `size`."""
    scale = size / max(rgb.shape[:2])
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    return height, width


def _on_black(small: np.ndarray, size: int, *, centred: bool = True) -> np.ndarray:
    """Place a picture in the middle, or at the top left, of a black square."""
    height, width = small.shape[:2]
    if height == width == size:
        return small
    square = np.zeros((size, size, 3), np.uint8)
    top, left = ((size - height) // 2, (size - width) // 2) if centred else (0, 0)
    square[top : top + height, left : left + width] = small
    return square


def _centre(rgb: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Return the middle of a picture whose shorter side becomes `size`, by torchvision's rules.

    The longer side is rounded down; a crop edge at half a pixel moves to the even neighbour.
    """
    height, width = (size * side // min(rgb.shape[:2]) for side in rgb.shape[:2])
    top, left = (round((side - size) / 2) for side in (height, width))
    if mode == "exact" and max(height, width) <= _LONGEST_CROPPED * size:
        whole = _resize(rgb, height, width)
        return np.ascontiguousarray(whole[top : top + size, left : left + size])
    # Resize only the visible part: it costs less, and a resized strip could have any length.
    vertical, horizontal = rgb.shape[0] / height, rgb.shape[1] / width
    first, start = round(top * vertical), round(left * horizontal)
    last = max(first + 1, round((top + size) * vertical))
    end = max(start + 1, round((left + size) * horizontal))
    visible = rgb[first:last, start:end]
    return resize_fast(visible, size, size) if mode == "fast" else _resize(visible, size, size)


Fit = Callable[[np.ndarray, int, str], np.ndarray]
"""A function of (uint8 RGB `[height, width, 3]`, side, mode "exact" or "fast") that returns uint8
`[side, side, 3]`.
"""

FITS: Final[dict[str, Fit]] = {
    "squash": _squash,
    "pad": _pad,
    "fundus": _fundus,
    "flair": _flair,
    "centre_crop": _centre,
}
"""The values of `config.data.fit`; a recipe may add its own, which gets photographs in full."""

BUILT_IN_FITS: Final = frozenset(FITS)


def _resize(rgb: np.ndarray, height: int, width: int, *, bilinear: bool = False) -> np.ndarray:
    """Resize with Pillow, whose filter is as wide as the reduction."""
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(rgb).resize((width, height), method))


def resize_fast(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 RGB with OpenCV, antialiased.

    Averaging areas keeps fine vessels from flickering, but OpenCV does it fast only if the factor
    is 2 or 4. So the picture is first resized to 2 or 4 times the result's size by linear
    interpolation, which needs no filter for so small a factor.

    Args:
        rgb: uint8 `[h, w, 3]`.
        height, width: size of the result.
    """
    scales = rgb.shape[0] / height, rgb.shape[1] / width
    if max(scales) >= 4 * FINER:  # large images that are not JPEGs
        return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    vertical, horizontal = (4 if s >= 2 * FINER else 2 if s >= FINER else 1 for s in scales)
    method = cv2.INTER_CUBIC if vertical == horizontal == 1 else cv2.INTER_LINEAR
    larger = cv2.resize(rgb, (width * horizontal, height * vertical), interpolation=method)
    return cv2.resize(larger, (width, height), interpolation=cv2.INTER_AREA)


def field_box(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """Return the bounding box of a fundus photograph's illuminated field.

    The field is searched for in every n-th pixel. It is the largest connected region above
    `field_level` of the brightest channel, so that neither a grey surround nor burnt-in text moves
    the box, and dark corners of a picture without surround stay in it.

    Args:
        rgb: uint8 `[height, width, 3]`.

    Returns:
        (left, top, right, bottom) in pixels, right and bottom exclusive, exact to n pixels (n is
        the longest side over 256). The whole image if there is no field: under a tenth of the
        area, or no contrast.
    """
    height, width = rgb.shape[:2]
    whole = (0, 0, width, height)
    step = max(1, max(height, width) // _THUMBNAIL_SIDE)
    red, green, blue = cv2.split(rgb[::step])
    # Columns are picked last: picking single bytes is cheaper than picking pixels.
    brightest = np.ascontiguousarray(cv2.max(cv2.max(red, green), blue)[:, ::step])
    thumbnail = cv2.medianBlur(brightest, 5)
    surround, bright = levels(thumbnail)
    if bright - surround < 16:
        return whole
    lit = cv2.threshold(thumbnail, field_level(thumbnail), 255, cv2.THRESH_BINARY)[1]
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(outline) < 0.1 * thumbnail.size:
        return whole
    x, y, w, h = cv2.boundingRect(outline)
    return x * step, y * step, min(width, (x + w) * step), min(height, (y + h) * step)
