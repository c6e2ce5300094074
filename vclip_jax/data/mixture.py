"""Several sources of records as one, and the groups in which training draws from them."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, SupportsIndex

from vclip_jax.data.order import EXAMPLES
from vclip_jax.data.record import Record
from vclip_jax.data.shares import Group, Shares, row_at


@dataclass(frozen=True, eq=False)
class Joined(Sequence[Record]):
    """The records of several sources, one source after another.

    With several sources a record's key begins with the name of its dataset, because two datasets
    may have the same keys.
    """

    sources: tuple[Any, ...]
    """Sources from `datasets.open_source`."""

    @property
    def name(self) -> str:
        """Return the names of the datasets."""
        return ", ".join(dict.fromkeys(str(source.name) for source in self.sources))

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of all opened splits."""
        return tuple(sorted({split for source in self.sources for split in source.splits}))

    @property
    def split(self) -> str:
        """Return the splits as one word."""
        return "+".join(self.splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the labels if all sources have the same, else nothing."""
        names = {tuple(source.class_names) for source in self.sources}
        return names.pop() if len(names) == 1 else ()

    def digest(self) -> str:
        """Return a digest of the sources' digests; "" if one of them is not known."""
        digests = [source.digest() for source in self.sources]
        if len(digests) == 1 or not all(digests):
            return str(digests[0]) if all(digests) else ""
        names = [f"{source.name}:{source.split}" for source in self.sources]
        lines = [f"{name} {digest}" for name, digest in zip(names, digests, strict=True)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(map(len, self.sources)))

    def rows_of(self, number: int) -> range:
        """Return the numbers of the records of one source."""
        return range(self._ends[number] - len(self.sources[number]), self._ends[number])

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]
        row = range(len(self))[index.__index__()]
        number = bisect_right(self._ends, row)
        source = self.sources[number]
        record: Record = source[row - self.rows_of(number).start]
        if len(self.sources) > 1:
            record = record | {"key": f"{source.name}/{record['key']}"}
        return record

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, eq=False)
class Mixture(Joined):
    """Joined sources from which training draws groups of records by their shares."""

    groups: tuple[Group, ...]
    origins: tuple[str, ...]
    """The name under which each group is counted: its dataset, or its class in a single dataset."""

    @cached_property
    def shares(self) -> Shares:
        """The turns of the groups."""
        return Shares(tuple(group.weight for group in self.groups))

    def in_order(self, seed: int) -> "Drawn":
        """Return the stream of training."""
        return Drawn(self, seed)

    def drawn_from(self, examples: int, seed: int) -> dict[str, int]:
        """Return origin -> how many of the first `examples` of the stream are from it."""
        return drawn_from(self.origins, self.shares, examples, seed)


def drawn_from(origins: Sequence[str], shares: Shares, examples: int, seed: int) -> dict[str, int]:
    """Return origin -> how many of the first `examples` are from it, see `Mixture`."""
    found = dict.fromkeys(origins, 0)
    for name, count in zip(origins, shares.counts(examples, seed), strict=True):
        found[name] += count
    return found


@dataclass(frozen=True)
class Drawn(Sequence[Record]):
    """The records of a mixture in the order of training, without end; picklable if sources are."""

    mixture: Mixture
    seed: int

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self.mixture[row_at(self.mixture.groups, self.mixture.shares, index, self.seed)]
