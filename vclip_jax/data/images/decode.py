"""Decode encoded images to square uint8 RGB arrays.

JPEGs are decoded by libjpeg-turbo, which can scale while it decodes, all other formats by Pillow.
The decoder is strict: a JPEG that is damaged anywhere is refused, not returned with a grey half.
`vclip_jax.data.images.opening` decides which files are opened at all.
"""

import math
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from vclip_jax.data.images import sixteen_bit
from vclip_jax.data.images.fit import (
    BUILT_IN_FITS,
    FINER,
    FITS,
    check_fit,
    crop_field,
    fit_square,
    pad_field,
)
from vclip_jax.data.images.opening import (
    ImageError,
    as_image_error,
    check_pixels,
    has_more_frames,
    jpeg_header,
    open_image,
    wait_for_memory,
)

_ORIENTATION: Final = 0x0112


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
        fit: one of `fit.FITS`, see `fit.fit_square`.
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
        field = crop_field(rgb)
        if factor > 1 and max(field.shape[:2]) < least:
            # The field is only a small part of the photograph.
            finer = least * min(rgb.shape[:2]) / max(field.shape[:2])
            field = crop_field(_read(data, math.ceil(finer), 0, key)[0])
        rgb = field
    longer = fit in ("pad", "fundus", "flair")
    offered = max(rgb.shape[:2]) if longer else min(rgb.shape[:2])
    side = max(size, min(most, offered))
    return pad_field(rgb, side, mode) if fit == "fundus" else FITS[fit](rgb, side, mode)


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
    with wait_for_memory(width * height):
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
    with open_image(data) as image, wait_for_memory(image.width * image.height):
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
