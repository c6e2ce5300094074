"""The audit of two datasets for near-duplicates, by perceptual hashes and embeddings; a command.

The defaults of its options are here, so that the command line is parsed without importing NumPy.
"""

from typing import Final

DISTANCE: Final = 40
"""The largest distance of near-duplicates' hashes, in bits of 256, see `near_duplicates`."""
COSINE: Final = 0.98
"""The smallest cosine of near-duplicates' embeddings."""
