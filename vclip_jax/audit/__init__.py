"""The audit of two datasets for near-duplicates, by perceptual hashes and embeddings; a command.

What its options are by default stands here, so that the command line is read before NumPy is
imported.
"""

from typing import Final

DISTANCE: Final = 40
"""Bits of 256 that the hashes of near-duplicates differ in at most, see `near_duplicates`."""
COSINE: Final = 0.98
"""Of the embeddings of near-duplicates, at least."""
