"""Image-text retrieval, in NumPy on the host; several images may share a caption."""

from typing import Any

import numpy as np

from vclip_jax.evaluation.metrics.classification import Floats, Ints

RECALL_AT = (1, 5, 10)

_TIE = 1e-6
"""Cosines closer than this count as equal; a float32 product over 1024 terms is not more exact."""

_CHUNK_ELEMENTS = 1 << 22
"""The number of scores held at once; 4 Mi of them in float64 take 32 MiB."""


def retrieval(
    image_embeddings: Floats, text_embeddings: Floats, image_to_text_id: Ints
) -> dict[str, Any]:
    """Compute recall at 1, 5 and 10 in both directions; several images may share a caption.

    For an image, its caption is right; for a caption, any image that has it. The gallery is ranked
    by cosine. Equal cosines count as in random order, and the expected recall is returned, so a
    model that maps everything to one point scores chance, not 1.

    Args:
      image_embeddings: float `[n, d]`; normalised here.
      text_embeddings: float `[m, d]`, one row for each *different* caption; normalised here.
        Captions without an image are candidates for the images, but not queries.
      image_to_text_id: int `[n]`, each image's row in `text_embeddings`.

    Returns:
      `{"n": images, "texts": captions, "image_to_text": {"r1", "r5", "r10"}, "text_to_image":
      {...}, "chance": {"image_to_text": {...}, "text_to_image": {...}}}`, recalls from 0 to 1;
      `chance` has the recalls of a random order.

    Raises:
      ValueError: an input is empty, shapes do not match, ids are out of range, or embeddings are
        zero or not finite.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.metrics.retrieval import retrieval
        >>> images = np.array([[1.0, 0.1], [0.2, 1.0], [0.6, 0.4]])
        >>> found = retrieval(images, np.eye(2), np.array([0, 1, 1]))
        >>> round(found["image_to_text"]["r1"], 3), found["text_to_image"]["r1"]
        (0.667, 1.0)
    """
    ids = np.asarray(image_to_text_id)
    images = _unit_rows(image_embeddings, "image_embeddings")
    texts = _unit_rows(text_embeddings, "text_embeddings")
    if images.shape[1] != texts.shape[1] or ids.shape != images.shape[:1]:
        raise ValueError(
            f"image_embeddings {list(images.shape)}, text_embeddings {list(texts.shape)} and "
            f"image_to_text_id {list(ids.shape)} do not match; expected [n, d], [m, d] and [n]"
        )
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= len(texts):
        raise ValueError(f"image_to_text_id must hold integers in 0..{len(texts) - 1}")
    every = np.arange(len(texts))
    queries = np.unique(ids)
    return {
        "n": len(images),
        "texts": len(texts),
        "image_to_text": _recalls(*_standings(images, ids, texts, every)),
        "text_to_image": _recalls(*_standings(texts[queries], queries, images, ids)),
        "chance": {
            "image_to_text": _random_recalls(np.ones(len(images), np.int64), len(texts)),
            "text_to_image": _random_recalls(np.bincount(ids)[queries], len(images)),
        },
    }


def _unit_rows(embeddings: Floats, name: str) -> Floats:
    # float32 halves the time of a 100k x 100k evaluation; _TIE is larger than its noise.
    embeddings = np.asarray(embeddings)
    embeddings = embeddings.astype(np.result_type(embeddings.dtype, np.float32), copy=False)
    if embeddings.ndim != 2 or embeddings.size == 0:
        raise ValueError(f"{name} must be a non-empty [rows, d] array, got {embeddings.shape}")
    norm: Floats = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norm[:, 0]) | (norm[:, 0] == 0))
    if bad.size:
        raise ValueError(f"{bad.size} rows of {name} are zero or not finite, the first is {bad[0]}")
    unit: Floats = embeddings / norm
    return unit


def _standings(
    queries: Floats, query_caption: Ints, gallery: Floats, gallery_caption: Ints
) -> tuple[Ints, Ints, Ints]:
    """Count the items around each query's best right answer, int `[q]`: (above, right, wrong).

    `above` items score higher than the best right answer; `right` and `wrong` items score the same.
    """
    above, right, wrong = (np.zeros(len(queries), np.int64) for _ in range(3))
    step = max(1, _CHUNK_ELEMENTS // len(gallery))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = queries[rows] @ gallery.T
        relevant = query_caption[rows, None] == gallery_caption[None, :]
        best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
        tied = np.abs(scores - best) <= _TIE
        above[rows] = (scores > best + _TIE).sum(axis=1)
        right[rows] = (tied & relevant).sum(axis=1)
        wrong[rows] = (tied & ~relevant).sum(axis=1)
    return above, right, wrong


def _recalls(above: Ints, right: Ints, wrong: Ints) -> dict[str, float]:
    return {f"r{k}": float(np.mean(_hit_chance(k - above, right, wrong))) for k in RECALL_AT}


def _random_recalls(right: Ints, gallery: int) -> dict[str, float]:
    return _recalls(np.zeros_like(right), right, gallery - right)


def _hit_chance(places: Ints, right: Ints, wrong: Ints) -> Floats:
    """Return the chance that `places` draws without replacement include a `right` item.

    1 - C(wrong, places) / C(right + wrong, places), the hypergeometric distribution at zero.
    """
    missed = np.ones(len(right), np.float64)
    for draw in range(int(max(0, places.max()))):
        wrong_left = np.maximum(wrong - draw, 0)
        all_left = np.maximum(right + wrong - draw, 1)
        missed = np.where(draw < places, missed * wrong_left / all_left, missed)
    return 1 - missed
