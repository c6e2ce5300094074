"""One record of a synthetic dataset: drawn, painted, encoded and labelled.

This module is apart from the builder, so that the rendering processes need not import TFDS.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import simplejpeg

from vclip_jax.datasets.synthetic.annotation import annotate
from vclip_jax.datasets.synthetic.domains import label_of, sample_case
from vclip_jax.datasets.synthetic.render import render

JPEG_QUALITY: Final = 92


def key_of(domain: str, seed: int, index: int) -> str:
    """Return the record's key, unique among all domains and seeds."""
    return f"{domain}-s{seed}-{index:08d}"


def split_of(key: str) -> str:
    """Return the split of a training record: train, validation or test, 8:1:1, by its key alone.

    A record keeps its split for any picture size and number of records.
    """
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return {8: "validation", 9: "test"}.get(tenth, "train")


def record(domain: str, size: int, seed: int, index: int) -> dict[str, Any]:
    """Make one record: `image` (JPEG bytes), `caption`, `key`, `label` and the annotation columns.

    Args:
        domain: a key of `domains.DOMAINS`.
        size: side of the square picture in pixels.
        seed, index: the eye, see `domains.sample_case`.
    """
    case = sample_case(domain, seed, index)
    image = simplejpeg.encode_jpeg(
        render(case, size), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
    )
    row = annotate(case, file_md5=hashlib.md5(image, usedforsecurity=False).hexdigest())
    return {
        "image": image,
        "caption": row["diagnosticAdvice"],
        "key": key_of(domain, seed, index),
        "label": label_of(domain, case),
        **row,
    }


def records(domain: str, size: int, seed: int, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Make the records of `indices`, the work of one call to another process."""
    return [record(domain, size, seed, index) for index in indices]
