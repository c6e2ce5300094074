"""The order of training: for every epoch a permutation of the records, with random access.

The permutation is a Feistel network over the smallest near-square rectangle that holds the records
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): position -> record in constant
time and memory, whatever the number of records. A permutation drawn as a whole would take 8 bytes a
record in every process (800 MB for 10^8 of them), and NumPy does not promise the same one in its
next version.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vclip_jax.data.record import Record

EXAMPLES: Final = 2**48
"""Length of the training stream, "without end": Grain's own endless repeat overflows in `batch`."""

_ROUNDS: Final = 12
"""Four rounds make a permutation that is hard to tell from a random one (Luby and Rackoff, 1988);
more are for small datasets, where a round mixes little.
"""
_BLOCK: Final = 512
"""Positions that are computed together: a call of NumPy costs as much for one."""


def permuted(
    positions: npt.ArrayLike, count: int, seed: int, epoch: int = 0
) -> npt.NDArray[np.int64]:
    """Return the records at some positions of an epoch.

    Args:
        positions: int `[n]`, each in [0, count).
        count: the number of records, at least 1.
        seed, epoch: the order is a function of these; non-negative integers of any size.

    Returns:
        int64 `[n]`: over all positions, every number in [0, count) once.
    """
    digest = hashlib.shake_256(f"order:{seed}:{epoch}".encode()).digest(8 * _ROUNDS)
    keys = np.frombuffer(digest, "<u8")
    columns = math.isqrt(count - 1) + 1
    rows = -(-count // columns)
    numbers = _encipher(np.asarray(positions, np.uint64), rows, columns, keys)
    # The rectangle has up to `columns` surplus places: a number there is enciphered again.
    while (outside := numbers >= count).any():
        numbers[outside] = _encipher(numbers[outside], rows, columns, keys)
    return numbers.astype(np.int64)


def _encipher(
    numbers: npt.NDArray[np.uint64], rows: int, columns: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """Permute [0, rows * columns)."""
    row, column = np.divmod(numbers, np.uint64(columns))
    for even, odd in zip(keys[::2], keys[1::2], strict=True):
        row = (row + _mix(column ^ even)) % np.uint64(rows)
        column = (column + _mix(row ^ odd)) % np.uint64(columns)
    return row * np.uint64(columns) + column


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply SplitMix64's finaliser (Steele, Lea and Flood, 2014), halved to keep sums in range."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (words ^ (words >> np.uint64(31))) >> np.uint64(1)


def record_at(index: int, count: int, seed: int) -> int:
    """Return the record, of `count`, at `index` of the training stream, counted over all epochs."""
    epoch, position = divmod(index, count)
    block, within = divmod(position, _BLOCK)
    return int(_block(block, count, seed, epoch)[within])


@lru_cache(maxsize=1024)  # threads work on different batches, and batches on different groups
def _block(block: int, count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    first = block * _BLOCK
    return permuted(np.arange(first, min(first + _BLOCK, count)), count, seed, epoch)


@dataclass(frozen=True)
class Shuffled(Sequence["Record"]):
    """The records epoch after epoch, each in an order of its own; picklable if `source` is."""

    source: Sequence["Record"]
    seed: int

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> "Record":  # type: ignore[override]
        return self.source[record_at(index, len(self.source), self.seed)]
