"""The effect of a dataset's captions on training: their repetition and their length.

Pairs with the same caption are false negatives of a contrastive loss.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

MOST_FREQUENT: Final = 10
SOME: Final = 1000


@dataclass(frozen=True)
class DuplicateReport:
    """The result of `duplicates`."""

    pairs: int
    batch: int
    unique: int
    """Number of different captions."""
    share_with_twin: float
    """Expected share of the pairs in a batch that have another with the same caption in it."""
    effective: float
    """Number of equally frequent captions with the same entropy: its exponential."""
    effective_by_collision: float
    """Number of equally frequent captions that two random pairs share as often: 1 / sum p^2."""
    most_frequent: tuple[tuple[str, int], ...]
    """Captions with their counts."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


def duplicates(captions: Iterable[str], batch: int) -> DuplicateReport:
    """Count repeated captions, and their effect on a batch.

    A batch is drawn without replacement, as an epoch is. A pair whose caption occurs `c` times
    among `n` has no twin among the `batch - 1` others with the hypergeometric probability C(n - c,
    batch - 1) / C(n - 1, batch - 1).

    Args:
        captions: one a pair.
        batch: pairs in a batch; a number above that of all pairs counts as all.

    Raises:
        ValueError: the batch is smaller than one.
    """
    if batch < 1:
        raise ValueError(f"a batch has at least one pair, got {batch}")
    counts = Counter(captions)
    n = counts.total()
    if not n:
        return DuplicateReport(0, batch, 0, 0.0, 0.0, 0.0, ())
    others = min(batch, n) - 1
    frequencies = Counter(counts.values())  # far fewer terms than captions
    alone = sum(k * c / n * _without(n, c, others) for c, k in frequencies.items())
    entropy = -sum(k * c / n * math.log(c / n) for c, k in frequencies.items())
    collision = sum(k * (c / n) ** 2 for c, k in frequencies.items())
    # Ties are sorted by caption, not by occurrence.
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FREQUENT]
    return DuplicateReport(
        pairs=n,
        batch=batch,
        unique=len(counts),
        share_with_twin=min(1.0, max(0.0, 1 - alone)),
        effective=math.exp(entropy),
        effective_by_collision=1 / collision,
        most_frequent=tuple(frequent),
    )


def _without(n: int, c: int, others: int) -> float:
    """Return C(n - c, others) / C(n - 1, others)."""
    if c == 1:
        return 1.0
    if n - c < others:
        return 0.0
    return math.exp(
        math.lgamma(n - c + 1)
        - math.lgamma(n - c - others + 1)
        - math.lgamma(n)
        + math.lgamma(n - others)
    )


def some_of(source: Sequence[Any]) -> list[str]:
    """Return captions of up to `SOME` different records, spread evenly."""
    spread = np.unique(np.linspace(0, len(source) - 1, SOME).astype(int)) if len(source) else ()
    return [source[int(index)]["caption"] for index in spread]


def describe_lengths(
    captions: Sequence[str], encode: Callable[[Sequence[str], int], np.ndarray], context_length: int
) -> str:
    """Describe in a line how well captions fill a row of tokens: the padding, and the cut captions.

    Args:
        captions: a sample of the dataset's captions.
        encode: a function of texts and a length that returns int32 `[n, length]`, padded with 0.
        context_length: tokens of a row while training.
    """
    tokens = (encode(captions, 4 * context_length) != 0).sum(axis=1)
    cut = int((tokens > context_length).sum())
    padding = 1 - np.minimum(tokens, context_length).mean() / context_length
    line = (
        f"captions: of {len(captions):,} the longest has {tokens.max()} tokens, half have at most "
        f"{int(np.median(tokens))}; at config.tokenizer.context_length={context_length} "
        f"{padding:.0%} of the places are padding"
    )
    return line + (f" and {cut / len(captions):.1%} of the captions are cut" if cut else "")
