"""A photograph as it is stored in a built dataset: bounded, upright, without metadata.

Only the picture survives: no EXIF, no comment, no colour profile, no text chunk, no bytes after the
end. An image that is not an 8-bit colour photograph is refused with a reason rather than guessed.
"""

import re
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import simplejpeg

from vclip_jax.data.images import jpeg, sixteen_bit
from vclip_jax.data.images.decode import orientation, read_rgb
from vclip_jax.data.images.fit import FITS, check_fit, field_box, fit_square
from vclip_jax.data.images.opening import (
    ImageError,
    has_more_frames,
    jpeg_header,
    kind_of,
    open_image,
)

MIN_SIDE: Final = 32
"""Smaller pictures are icons, not photographs."""

_MODES: Final = {
    "1": "greyscale",
    "L": "greyscale",
    "LA": "transparency",
    "RGBA": "transparency",
    "PA": "palette",
    "P": "palette",
    "CMYK": "CMYK",
    "YCCK": "CMYK",
    "I": "32-bit",
    "F": "32-bit",
    "LAB": "Lab",
}
_COLOURS: Final = {"Gray": "greyscale", "CMYK": "CMYK", "YCCK": "CMYK"}


@dataclass(frozen=True)
class Storage:
    """Options of storing photographs.

    Raises:
        ValueError: a side or quality is out of range.
    """

    max_side: int = 512
    """Longest side in pixels; larger photographs are scaled down. 0 keeps the original bytes,
    without their metadata.
    """
    quality: int = 92
    """Quality of the written JPEGs (4:4:4); a JPEG that is small enough keeps its bits."""
    crop: bool = False
    """Crop to the illuminated field first, see `fit.field_box`."""
    convert: bool = False
    """Accept greyscale, CMYK, 16-bit, transparent and palette images, converted to 8-bit RGB."""
    anonymous: bool = False
    """Use random keys and keep no file name: a name may be a patient's."""
    ready: int = 0
    """Side in pixels of squares that are stored in place of photographs, so that training need not
    scale them down each time; 0 stores photographs.
    """
    fit: str = ""
    """The way to make such a square of a photograph, see `decode.decode`."""
    raw: bool = False
    """Store squares uncompressed (PPM) rather than as JPEGs: twelve times as large."""

    def __post_init__(self) -> None:
        if (self.max_side and self.max_side < MIN_SIDE) or not 1 <= self.quality <= 100:
            raise ValueError(
                f"max_side must be 0 (the original bytes) or at least {MIN_SIDE}, and quality 1 to "
                f"100, got {self.max_side} and {self.quality}"
            )
        if self.crop and not self.max_side:
            raise ValueError("original bytes cannot be cropped: give a max_side")
        if not self.ready:
            if self.fit or self.raw:
                raise ValueError("fit and raw are for squares: give their side with ready")
            return
        check_fit(self.ready, self.fit)
        if self.ready < MIN_SIDE or self.crop:
            raise ValueError(
                f"ready squares have at least {MIN_SIDE} px, and no crop (fit 'fundus' crops to "
                f"the field), got {self.ready}{' with crop' if self.crop else ''}"
            )

    @property
    def name(self) -> str:
        """Part of the built dataset's name: "512px-q92", "ready256px-fundus-q92"."""
        parts = [f"{self.max_side}px-q{self.quality}" if self.max_side else "original"]
        if self.ready:
            form = "raw" if self.raw else f"q{self.quality}"
            parts = [f"ready{self.ready}px-{self.fit}-{form}"]
        parts += [word for word in ("crop", "convert", "anonymous") if getattr(self, word)]
        return "-".join(parts)


DEFAULT_STORAGE: Final = Storage()


def ready_storage(name: str) -> Storage | None:
    """Return the storage of ready squares by its name, such as "ready256px-fundus-q92", or None."""
    parts = re.fullmatch(r"ready(\d+)px-(\w+)-(?:q(\d+)|raw)", name)
    if parts is None or parts[2] not in FITS:
        return None
    side, fit, quality = int(parts[1]), parts[2], parts[3]
    if quality is None:
        return Storage(ready=side, fit=fit, raw=True)
    return Storage(ready=side, fit=fit, quality=int(quality))


class StoreError(ImageError):
    """A photograph is not stored; `reason` is a few words, the same for all of a kind."""

    def __init__(self, reason: str, detail: str = ""):
        """Take the reason and one line of detail."""
        super().__init__(f"{reason}: {detail}" if detail else reason, reason)
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return StoreError, (self.reason, self.detail)


def store(data: bytes, storage: Storage) -> tuple[bytes, int, int]:
    """Return an encoded image as it is stored.

    The whole image is decoded in any case, so that damage is found here.

    Returns:
        JPEG bytes (or PNG, if original bytes of another format are kept without loss, or PPM,
        if squares are stored raw), width and height in pixels.

    Raises:
        StoreError: the photograph is not stored, and why.
    """
    untouched = _inspect(data, storage.convert)
    try:
        pixels = read_rgb(data)
    except ImageError as error:
        raise StoreError(error.reason, str(error).removeprefix("image: ")) from error
    if storage.ready:
        square = fit_square(pixels, storage.ready, storage.fit)
        image = _ppm(square) if storage.raw else _jpeg(square, storage.quality)
        return image, storage.ready, storage.ready
    if not storage.max_side:
        kept = _strip(data) if untouched else _png(pixels)
        return kept, pixels.shape[1], pixels.shape[0]
    if storage.crop:
        left, top, right, bottom = field_box(pixels)
        untouched = untouched and (right - left, bottom - top) == (pixels.shape[1], pixels.shape[0])
        pixels = pixels[top:bottom, left:right]
    height, width = pixels.shape[:2]
    scale = storage.max_side / max(height, width)
    if scale < 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    elif untouched:
        return _strip(data), width, height
    return _jpeg(pixels, storage.quality), width, height


def _inspect(data: bytes, convert: bool) -> bool:
    """Refuse by the header alone; return whether it is an upright JPEG, which may keep its bits."""
    try:
        width, height, mode, several, upright = _look(data)
    except ImageError as error:
        raise StoreError(error.reason, str(error)) from error
    if min(width, height) < MIN_SIDE:
        raise StoreError("too small", f"{width} x {height} pixels")
    if several:
        raise StoreError("several frames", "only one can be the photograph")
    if mode and not convert:
        raise StoreError(mode, "not an 8-bit RGB image (--convert accepts it)")
    return upright


def _look(data: bytes) -> tuple[int, int, str, bool, bool]:
    """Return width, height, a mode other than 8-bit RGB, several frames, an upright JPEG."""
    if kind_of(data) == "JPEG":
        header = jpeg_header(data)
        return (
            *header.size,
            _COLOURS.get(header.colours, ""),
            False,
            not header.app1 or orientation(data) == 1,
        )
    with open_image(data) as image:
        mode = _MODES.get(image.mode, "" if image.mode == "RGB" else image.mode)
        if not mode and "transparency" in image.info:
            mode = "transparency"
        if sixteen_bit.is_deep(image):
            mode = "16-bit"
        return *image.size, mode, has_more_frames(image), False


def _strip(data: bytes) -> bytes:
    try:
        return jpeg.strip(data)
    except (ValueError, IndexError) as error:
        raise StoreError("damaged", str(error)) from error


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, "RGB", colorsubsampling="444"
    )


def _ppm(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()


def _png(pixels: np.ndarray) -> bytes:
    ok, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise StoreError("damaged", "cannot be encoded as PNG")
    return encoded.tobytes()
