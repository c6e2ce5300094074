"""Random numbers that are a function of a few integers alone."""

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence


class _Hashed(ISeedSequence):
    """The seed of a bit generator: a hash of integers.

    NumPy's `SeedSequence` takes six times as long, and one picture needs a dozen seeds.
    """

    def __init__(self, *integers: int):
        self.content = struct.pack(f"<{len(integers)}Q", *integers)

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """Return `n_words` of `dtype`, at most 64 bytes."""
        size = n_words * np.dtype(dtype).itemsize
        return np.frombuffer(hashlib.blake2b(self.content, digest_size=size).digest(), dtype)


def generator(*integers: int) -> np.random.Generator:
    """Return a generator for these integers, each non-negative and below 2**64."""
    seed: Any = _Hashed(*integers)  # NumPy takes it, its types do not know
    return np.random.Generator(np.random.PCG64(seed))
