"""Fingerprints of photographs: the digest of their bytes, and a perceptual hash of 256 bits.

The hash is that of the green channel in the square inside the field's circle, without uneven
illumination, so that the frame, the format and the exposure do not matter. For measured distances
between hashes of the same and of different eyes, see `near_duplicates`.
"""

import hashlib
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import cv2
import imagehash
import numpy as np
from PIL import Image

from vclip_jax.console import terminal
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.images.field import field_mask
from vclip_jax.data.record import Record

CHUNK: Final = 32
"""The number of pictures that a thread reads at a time."""
_HASH_SIDE: Final = 16
BITS: Final = _HASH_SIDE**2
_DECODED: Final = 256  # a JPEG's shorter side is not scaled below this
_PATCH: Final = 128
_BLUR: Final = 10.0  # pixels of the patch; vessels are narrower
_BLANK: Final = 0.5  # grey levels; with less detail than this there is nothing to compare


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of the `n` comparable pictures of a source."""

    keys: list[str]
    indices: np.ndarray
    """Row numbers in the source, int64 `[n]`."""
    digests: np.ndarray
    """SHA-256 of the stored bytes, uint8 `[n, 32]`."""
    hashes: np.ndarray
    """Perceptual hashes, uint64 `[n, 4]`, see `perceptual_hashes`."""
    mirrored: np.ndarray
    """Perceptual hashes of the mirrored pictures, uint64 `[n, 4]`."""
    damaged: list[str]
    """Keys of pictures that cannot be read, or "record NUMBER" if the key cannot be read either."""
    blank: list[str]
    """Keys of pictures without detail, such as black ones."""

    def __len__(self) -> int:
        return len(self.keys)


def fingerprint(source: Sequence[Record], workers: int = 1, label: str = "") -> Fingerprints:
    """Read and hash all pictures of a source.

    Args:
        source: the records.
        workers: the number of threads, which does not change the result.
        label: the label of the progress bar.
    """
    chunks = [
        range(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)
    ]
    parts = [_fingerprint(source, range(0))]
    with (
        ThreadPoolExecutor(workers) as pool,
        terminal.bar(total=len(source), desc=label, unit=" images") as progress,
    ):
        for part, chunk in zip(
            pool.map(partial(_fingerprint, source), chunks), chunks, strict=True
        ):
            parts.append(part)
            progress.update(len(chunk))
    return Fingerprints(
        keys=[key for part in parts for key in part.keys],
        indices=np.concatenate([part.indices for part in parts]),
        digests=np.concatenate([part.digests for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
        mirrored=np.concatenate([part.mirrored for part in parts]),
        damaged=[key for part in parts for key in part.damaged],
        blank=[key for part in parts for key in part.blank],
    )


def _fingerprint(source: Sequence[Record], indices: Sequence[int]) -> Fingerprints:
    keys, kept, digests, hashes = [], [], [], []
    damaged, blank = [], []
    for index in indices:
        name = f"record {index}"
        try:
            record = source[index]
            name = record["key"]
            rgb = read_rgb(record["image"], _DECODED, key=name)
        except ValueError:  # DatasetError of the record, ImageError of the picture
            damaged.append(name)
            continue
        pair = perceptual_hashes(rgb)
        if pair is None:
            blank.append(name)
            continue
        keys.append(name)
        kept.append(index)
        digests.append(hashlib.sha256(record["image"]).digest())
        hashes.append(pair)
    both = np.array(hashes, np.uint64).reshape(-1, 2, BITS // 64)
    return Fingerprints(
        keys=keys,
        indices=np.array(kept, np.int64),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        hashes=both[:, 0],
        mirrored=both[:, 1],
        damaged=damaged,
        blank=blank,
    )


def perceptual_hashes(rgb: np.ndarray) -> np.ndarray | None:
    """Hash a picture and its mirror image, uint64 `[2, 4]`; None for a blank picture.

    Args:
        rgb: uint8 `[height, width, 3]`.
    """
    patch = _patch(rgb).astype(np.float32)
    # The illumination by the flash is similar for all eyes and would make them look alike.
    detail = patch - cv2.GaussianBlur(patch, (0, 0), _BLUR)
    deviation = float(detail.std())
    if deviation < _BLANK:
        return None
    grey = np.clip(128 + 40 / deviation * detail, 0, 255).astype(np.uint8)
    bits = [
        imagehash.phash(Image.fromarray(image), hash_size=_HASH_SIDE).hash
        for image in (grey, grey[:, ::-1])
    ]
    return np.packbits(bits).view(np.uint64).reshape(2, -1)


def _patch(rgb: np.ndarray) -> np.ndarray:
    """Return the green channel in the square inside the field's circle, uint8 `[128, 128]`."""
    x, y, radius = field_circle(rgb)
    side = math.sqrt(2) * radius
    green = np.ascontiguousarray(rgb[:, :, 1])
    height, width = green.shape
    shrink = max(1, int(side / _PATCH))
    if shrink > 1:  # the warp below does not average
        small = max(1, width // shrink), max(1, height // shrink)
        green = cv2.resize(green, small, interpolation=cv2.INTER_AREA)
    across, down = (
        _PATCH / side * whole / part
        for whole, part in zip((width, height), green.shape[::-1], strict=True)
    )
    middle = _PATCH / 2
    place = np.array(
        [[across, 0, middle - _PATCH / side * x], [0, down, middle - _PATCH / side * y]], np.float32
    )
    # Replicate the edge of cropped photographs; black would give all of them a common part.
    return cv2.warpAffine(green, place, (_PATCH, _PATCH), borderMode=cv2.BORDER_REPLICATE)


def field_circle(rgb: np.ndarray) -> tuple[float, float, float]:
    """Return the smallest circle around the illuminated field: x, y and radius in pixels.

    Unlike a box, the circle does not move if the photograph is cropped, unless the rest of the
    field's edge lies within one half of the circle. Without a dark surround the circle goes through
    the photograph's corners.

    Args:
        rgb: uint8 `[height, width, 3]`.
    """
    step = max(1, max(rgb.shape[:2]) // 256)
    outlines, _ = cv2.findContours(
        field_mask(np.ascontiguousarray(rgb[::step, ::step])),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_SIMPLE,
    )
    (x, y), radius = cv2.minEnclosingCircle(max(outlines, key=cv2.contourArea))
    return (x + 0.5) * step, (y + 0.5) * step, (radius + 0.5) * step
