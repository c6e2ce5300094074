"""Near-duplicates between two sources: leakage, and photographs that a generator memorised.

Every picture of A is compared with every picture of B, as it is and mirrored, by a perceptual hash
of 256 bits; with a model, embeddings are compared too. The hash is in `perceptual_hash`.

The default distance is based on these distances, measured by the slow test of
`tests/audit/test_near_duplicates.py` on 413 photographs of IDRiD and 400 rendered eyes at 512 px
(100 of each domain):

    one eye, changed       IDRiD: median 99 % max    rendered: median 99 % max, within 40
    JPEG quality 50                    4   14  24               6   18  24    100.0 %
    half the size                      2   10  12               2   10  18    100.0 %
    20 % brighter                      2   10  16               2   10  18    100.0 %
    20 % darker                        2   10  14               4   10  24    100.0 %
    3 % cut off each side              2   12  14               6   40  72     99.0 %
    turned by 2 degrees               24   36  38              24   40  42     99.5 %
    mirrored                           4   10  12               6   12  14    100.0 %

    different pictures, the better of both orientations
    rendered, 79,800 pairs: median 122, the closest 60
    IDRiD, 85,078 pairs: median 116, the closest 0 (five times), 28, 48, 64; by eye, the first
        seven show the same photograph or the same eye, the next seven do not: no false pair
        within 40
    6,000 rendered eyes at 192 px, 17,997,000 pairs: none within 44, 2 within 48, 46 within 56

Extrapolating this tail, about ten false pairs within 40 are expected among the 1.7 billion pairs of
1,000,000 x 1,748 pictures. Comparing that many (random) hashes took 34 s on a busy core, 22 s of
CPU time, and 0.2 GB. Most of the time goes into reading the pictures: 2 ms of a core for each at
192 px and 4 ms at 1024 px.

The details of the hash were chosen among some forty variants on IDRiD and on 400 such rendered
eyes, so these figures are optimistic; the 6,000 eyes were not used for the choice.

The audit misses, of the first 120 photographs of IDRiD, a fifth if they are turned by 3 degrees and
four fifths by 4; a fortieth if a tenth is cut off each side, and three quarters if 15 % are.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from vclip_jax.audit import COSINE, DISTANCE
from vclip_jax.audit.perceptual_hash import BITS, CHUNK, Fingerprints, fingerprint
from vclip_jax.console import terminal
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.record import Record

MAX_PAIRS: Final = 1_000_000
"""The largest number of pairs within the distance; more indicate a mistake and would fill the
memory."""
MAX_SIMILAR: Final = 1000
"""The largest number of listed pairs that only embeddings find, the most similar ones: to a model
that has seen little else, all eyes look similar."""

# Numbers of pictures of A and of B that are compared at a time, which limit the memory.
_TILE: Final = 512, 1024
_SIMILAR_TILE: Final = 512, 8192


class Pair(NamedTuple):
    """A picture of A and one of B that are near-duplicates."""

    a: int
    """The position in A's fingerprints."""
    b: int
    key_a: str
    key_b: str
    kind: str
    """"identical" (the same bytes), "hash", "embedding", or "both"."""
    distance: int
    """The number of differing bits of the hashes, in the better of the two orientations."""
    cosine: float | None
    """The cosine of the embeddings, without mirroring; None without a model."""
    mirrored: bool
    """True if the mirror image of B is closer to A than B itself."""


@dataclass(frozen=True)
class Audit:
    """The result of `compare`."""

    a: Fingerprints
    b: Fingerprints
    pairs: list[Pair]
    """The pairs sorted by distance, identical ones first, then by cosine and keys."""
    distance: int
    cosine: float | None
    """The threshold of the cosine; None without a model."""
    similar: int
    """The number of pairs at or above that threshold, of which at most `MAX_SIMILAR` are listed."""
    affected: dict[str, int]
    """The number of pictures of B with a pair by "identical", "hash", "embedding" or "any"."""


def compare(
    source_a: Sequence[Record],
    source_b: Sequence[Record],
    *,
    one_dataset: bool = False,
    distance: int = DISTANCE,
    model: Any = None,
    cosine: float = COSINE,
    workers: int = 1,
) -> Audit:
    """Find the near-duplicates between two sources.

    Args:
        source_a, source_b: records; the same object for near-duplicates within it.
        one_dataset: True if records of A and B with the same key are the same record. A record is
            not compared with itself, and two records that are both in A and in B make one pair.
        distance: the largest number of bits, of 256, in which a pair's hashes differ.
        model: a model from `vclip_jax.load` for embeddings; only its `encode_image` is used. The
            embeddings of B are kept in memory, those of A are not unless A is B.
        cosine: pairs with at least this cosine are listed, independent of their hashes, see
            `MAX_SIMILAR`.
        workers: the number of threads, which does not change the result.

    Raises:
        ValueError: an argument is out of range, or there are more than `MAX_PAIRS` pairs.
    """
    if not 0 <= distance <= BITS or not -1 <= cosine <= 1 or workers < 1:
        raise ValueError(
            f"an audit needs a distance from 0 to {BITS}, a cosine from -1 to 1 and "
            f"workers >= 1, got {distance}, {cosine}, {workers}"
        )
    # Round the threshold to the embeddings' dtype, so that all comparisons agree.
    cosine = float(np.float32(cosine))
    within = source_a is source_b
    a = fingerprint(source_a, workers, "hash A")
    b = a if within else fingerprint(source_b, workers, "hash B")
    ranks = _shared_ranks(a, b, one_dataset or within)
    rows, columns = _near(a, b, ranks, distance)
    similar = None
    if model is not None:
        embedded_b = np.concatenate([part for _, part in _embed(model, source_b, b, workers, "B")])
        height = _SIMILAR_TILE[0]
        parts = (
            ((start, embedded_b[start : start + height]) for start in range(0, len(b), height))
            if within
            else _embed(model, source_a, a, workers, "A")
        )
        similar = _similar(parts, embedded_b, rows, columns, ranks, cosine, len(a))
    pairs = _pairs(a, b, rows, columns, similar, cosine)
    return Audit(
        a=a,
        b=b,
        pairs=pairs,
        distance=distance,
        cosine=None if model is None else cosine,
        similar=0 if similar is None else similar.count,
        affected=_affected(a, b, pairs, similar, ranks, distance),
    )


_Ranks = tuple[np.ndarray, np.ndarray]


def _shared_ranks(a: Fingerprints, b: Fingerprints, one_dataset: bool) -> _Ranks:
    """Return each picture's rank among the keys that A and B share, or -1 without a shared key."""
    shared = sorted(set(a.keys) & set(b.keys)) if one_dataset else []
    ranks = {key: rank for rank, key in enumerate(shared)}
    of_a, of_b = (np.array([ranks.get(k, -1) for k in x.keys], np.int64) for x in (a, b))
    return of_a, of_b


def _once(ranks: _Ranks, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mark the pairs to keep: no picture with itself, and one of (x, y) and (y, x)."""
    of_a, of_b = ranks
    return (of_b[columns] < 0) | (of_a[rows] < of_b[columns])


def _near(
    a: Fingerprints, b: Fingerprints, ranks: _Ranks, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find pairs within a distance: positions in A and in B, int64 `[n]` each, sorted."""
    parts = [np.empty((2, 0), np.int64)]
    count = 0
    height, width = _TILE
    with terminal.bar(total=len(a), desc="compare hashes", unit=" images") as progress:
        for top in range(0, len(a), height):
            block = a.hashes[top : top + height]
            for left in range(0, len(b), width):
                near = _distances(block, b.hashes[left : left + width]) <= distance
                near |= _distances(block, b.mirrored[left : left + width]) <= distance
                rows, columns = np.nonzero(near)
                rows, columns = rows + top, columns + left
                kept = _once(ranks, rows, columns)
                parts.append(np.stack([rows[kept], columns[kept]]))
                count += int(kept.sum())
                if count > MAX_PAIRS:
                    raise ValueError(
                        f"more than {MAX_PAIRS} pairs are within a distance of {distance}: use a "
                        "smaller --distance"
                    )
            progress.update(len(block))
    rows, columns = np.concatenate(parts, axis=1)
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]


def _distances(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Count the bits that differ: uint64 `[n, 4]` and `[m, 4]` to uint16 `[n, m]`."""
    # Word by word takes a quarter of the memory, which fits into the CPU's cache.
    total = np.zeros((len(hashes), len(others)), np.uint16)
    for mine, theirs in zip(hashes.T, others.T, strict=True):
        total += np.bitwise_count(mine[:, None] ^ theirs)
    return total


def _embed(
    model: Any, source: Sequence[Record], prints: Fingerprints, workers: int, label: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield embeddings in blocks: the position of the first, and float32 `[n, dim]`."""

    def read(position: int) -> np.ndarray:
        record = source[int(prints.indices[position])]
        return read_rgb(record["image"], key=record["key"])

    with (
        ThreadPoolExecutor(workers) as pool,
        terminal.bar(total=len(prints), desc=f"embed {label}", unit=" images") as progress,
    ):
        for start in range(0, max(1, len(prints)), _SIMILAR_TILE[0]):
            block = range(start, min(start + _SIMILAR_TILE[0], len(prints)))
            parts = []
            for first in range(0, max(1, len(block)), CHUNK):
                # Read few at a time, because they are decoded in full.
                parts.append(model.encode_image(list(pool.map(read, block[first : first + CHUNK]))))
                progress.update(len(parts[-1]))
            yield start, np.concatenate(parts)


@dataclass
class _Similar:
    """The result of comparing embeddings."""

    cosines: np.ndarray
    """Cosines of the pairs that the hash found, float32 `[n]`."""
    rows: np.ndarray
    """Positions in A of further pairs."""
    columns: np.ndarray
    """Positions in B of further pairs."""
    further: np.ndarray
    """Cosines of further pairs."""
    count: int
    """The number of pairs at or above the threshold, those found by hash included."""
    touched_a: np.ndarray
    """True for pictures of A that are in such a pair."""
    touched_b: np.ndarray
    """True for pictures of B that are in such a pair."""


def _similar(
    parts: Iterator[tuple[int, np.ndarray]],
    embedded_b: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    ranks: _Ranks,
    threshold: float,
    count_a: int,
) -> _Similar:
    """Compute cosines of the pairs (`rows`, `columns`), and find the most similar further pairs."""
    nothing = np.empty(0, np.int64)
    out = _Similar(
        cosines=np.zeros(len(rows), np.float32),
        rows=nothing,
        columns=nothing,
        further=np.empty(0, np.float32),
        count=0,
        touched_a=np.zeros(count_a, bool),
        touched_b=np.zeros(len(embedded_b), bool),
    )
    for top, block in parts:
        first, last = np.searchsorted(rows, (top, top + len(block)))
        for left in range(0, len(embedded_b), _SIMILAR_TILE[1]):
            cosines = block @ embedded_b[left : left + _SIMILAR_TILE[1]].T
            known = first + np.flatnonzero(
                (columns[first:last] >= left) & (columns[first:last] < left + cosines.shape[1])
            )
            place = rows[known] - top, columns[known] - left
            out.cosines[known] = cosines[place]
            r, c = np.nonzero(cosines >= threshold)
            values = cosines[r, c]
            by_hash = np.zeros(cosines.shape, bool)
            by_hash[place] = True
            fresh = ~by_hash[r, c]
            r, c = r + top, c + left
            kept = _once(ranks, r, c)
            out.count += int(kept.sum())
            out.touched_a[r[kept]] = True
            out.touched_b[c[kept]] = True
            kept &= fresh
            r, c = np.append(out.rows, r[kept]), np.append(out.columns, c[kept])
            values = np.append(out.further, values[kept])
            best = np.lexsort((c, r, -values))[:MAX_SIMILAR]
            out.rows, out.columns, out.further = r[best], c[best], values[best]
    return out


def _pairs(
    a: Fingerprints,
    b: Fingerprints,
    rows: np.ndarray,
    columns: np.ndarray,
    similar: _Similar | None,
    threshold: float,
) -> list[Pair]:
    by_hash = len(rows)
    cosines: np.ndarray | None = None
    if similar is not None:
        rows, columns = np.append(rows, similar.rows), np.append(columns, similar.columns)
        cosines = np.append(similar.cosines, similar.further)
    straight = np.bitwise_count(a.hashes[rows] ^ b.hashes[columns]).sum(axis=1)
    mirrored = np.bitwise_count(a.hashes[rows] ^ b.mirrored[columns]).sum(axis=1)
    identical = (a.digests[rows] == b.digests[columns]).all(axis=1)
    pairs = []
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        cosine = None if cosines is None else float(cosines[i])
        if identical[i]:
            kind = "identical"
        elif i >= by_hash:
            kind = "embedding"
        else:
            kind = "both" if cosine is not None and cosine >= threshold else "hash"
        pairs.append(
            Pair(
                row,
                column,
                a.keys[row],
                b.keys[column],
                kind,
                int(min(straight[i], mirrored[i])),
                cosine,
                bool(mirrored[i] < straight[i]),
            )
        )
    return sorted(
        pairs,
        key=lambda p: (p.distance, p.kind != "identical", -(p.cosine or 0.0), p.key_a, p.key_b),
    )


def _affected(
    a: Fingerprints,
    b: Fingerprints,
    pairs: Sequence[Pair],
    similar: _Similar | None,
    ranks: _Ranks,
    distance: int,
) -> dict[str, int]:
    """Count the pictures of B with a pair of each kind, see `Audit.affected`."""
    affected = {
        "identical": _touched(ranks, [p for p in pairs if p.kind == "identical"]),
        "hash": _touched(ranks, [p for p in pairs if p.distance <= distance]),
        "embedding": set[str](),
    }
    if similar is not None:
        affected["embedding"] = {b.keys[i] for i in np.flatnonzero(similar.touched_b)} | {
            a.keys[i] for i in np.flatnonzero(similar.touched_a & (ranks[0] >= 0))
        }
    affected["any"] = set().union(*affected.values())
    return {name: len(keys) for name, keys in affected.items()}


def _touched(ranks: _Ranks, pairs: Sequence[Pair]) -> set[str]:
    """Return the keys of the pictures of B in the pairs, also if a pair has one as its A."""
    return {p.key_b for p in pairs} | {p.key_a for p in pairs if ranks[0][p.a] >= 0}
