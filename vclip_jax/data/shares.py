"""The order of training on several groups of records, each with its share of the examples.

A group is a dataset of a mixture, or the records of a class. The groups take turns in a cycle that
spreads the places of each group evenly. The cycle is shuffled in blocks of 64 examples, so that a
group has no fixed rows in the batches. The records of a group come in a keyed permutation, as those
of a single dataset do, and in another permutation each time the group is passed through. So the
record at any place of the stream is a function of the seed and the place, in constant time.

Grain's `mix` is not used: its turns are the same in each batch, it cuts weights off to whole
hundredths of the smallest weight, and a later version may have another order.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from vclip_jax.data.order import permuted, record_at

LONGEST_CYCLE: Final = 10_000
"""Places of a cycle for weights that no shorter cycle holds exactly."""
_BLOCK: Final = 64
"""Places that are shuffled together: few, so that every stretch of the stream keeps the shares."""


@dataclass(frozen=True)
class Group:
    """Some records of a source, and their weight."""

    name: str
    """The order of the group's records depends on its name; no two groups have the same."""
    rows: Sequence[int] | npt.NDArray[np.int64]
    """Numbers of records in the source, at least one."""
    weight: Fraction


@dataclass(frozen=True, eq=False)
class Shares:
    """The turns of the groups, from their weights alone."""

    weights: tuple[Fraction, ...]

    def check(self) -> None:
        """Raise ValueError, one line, if a weight is too small for a place in the cycle."""
        _places(self.weights)

    @cached_property
    def cycle(self) -> npt.NDArray[np.int64]:
        """The number of the group at each place of a cycle, int64 `[places]`.

        Raises:
            ValueError: a weight is too small for a place.
        """
        counts = _places(self.weights)
        length, ours = sum(counts), np.array(counts)
        cycle = np.empty(length, np.int64)
        owed = np.zeros(len(counts), np.int64)  # in parts of a place
        for place in range(length):
            owed += ours
            cycle[place] = owed.argmax()
            owed[cycle[place]] -= length
        return cycle

    @cached_property
    def _counts(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.cycle, minlength=len(self.weights))

    @cached_property
    def _before(self) -> npt.NDArray[np.int64]:
        """The number of earlier places of the same group in the cycle."""
        before = np.empty_like(self.cycle)
        for group, count in enumerate(self._counts):
            before[self.cycle == group] = np.arange(count)
        return before

    def turn(self, index: int, seed: int) -> tuple[int, int]:
        """Return the group at `index` of the stream, and how many examples it had before."""
        block, within = divmod(index, _BLOCK)
        groups, ranks = _block(self, block, seed)
        return int(groups[within]), int(ranks[within])

    def counts(self, examples: int, seed: int) -> list[int]:
        """Return how many of the first `examples` of the stream are from each group."""
        block, within = divmod(examples, _BLOCK)
        cycles, rest = divmod(block * _BLOCK, len(self.cycle))
        whole = self._counts * cycles
        parts = (self.cycle[:rest], _block(self, block, seed)[0][:within])
        for part in parts:
            whole = whole + np.bincount(part, minlength=len(self.weights))
        return [int(count) for count in whole]

    def turns_of(
        self, block: int, seed: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return `turn` for all places of a block: groups and counts, int64 `[64]` each."""
        order = permuted(np.arange(_BLOCK), _BLOCK, derived(seed, "turns"), block)
        cycles, places = np.divmod(block * _BLOCK + order, len(self.cycle))
        groups = self.cycle[places]
        ranks = cycles * self._counts[groups] + self._before[places]
        # Within a block, a group's records still come in the group's own order.
        ranks[np.argsort(groups, kind="stable")] = ranks[np.lexsort((ranks, groups))]
        return groups, ranks


@lru_cache(maxsize=64)  # threads work on different batches
def _block(
    shares: Shares, block: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return shares.turns_of(block, seed)


def row_at(groups: Sequence[Group], shares: Shares, index: int, seed: int) -> int:
    """Return the row of the source at `index` of the stream.

    Args:
        groups: the groups, in the order of the weights of `shares`.
        shares: their turns.
        index: a place of the stream, counted over all epochs.
        seed: the seed of the order.
    """
    number, rank = shares.turn(index, seed)
    group = groups[number]
    return int(group.rows[record_at(rank, len(group.rows), derived(seed, group.name))])


@lru_cache(maxsize=4096)
def derived(seed: int, purpose: str) -> int:
    """Return the seed of one of several orders: groups of equal lengths must not go in step."""
    return int.from_bytes(hashlib.sha256(f"shares:{purpose}:{seed}".encode()).digest()[:8], "big")


def _places(weights: Sequence[Fraction]) -> list[int]:
    """Return how many places of a cycle each weight gets: exactly its share, if a cycle holds it.

    Raises:
        ValueError: a weight is too small for a place in the longest cycle.
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    exact = math.lcm(*(share.denominator for share in shares))
    length = min(exact, LONGEST_CYCLE)
    least = min(range(len(shares)), key=shares.__getitem__)
    if shares[least] * LONGEST_CYCLE < 1:
        raise ValueError(
            f"the weight {float(weights[least]):g} of {float(total):g} is less than one example "
            f"in {LONGEST_CYCLE:,}: give a larger one"
        )
    counts = [math.floor(share * length) for share in shares]
    # The largest remainders are rounded up.
    order = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i] * length)
    for number in order[: length - sum(counts)]:
        counts[number] += 1
    return counts
