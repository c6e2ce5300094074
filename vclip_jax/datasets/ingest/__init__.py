"""Building a dataset: from a listing of photographs to shards of records, a data card and the list
of rejects.

The limits of rejects are here, so that the command line is read before NumPy is imported.
"""

from typing import Final

MAX_REJECTS: Final = 0.05
"""Largest accepted share of rejects."""
FEW_REJECTS: Final = 10
"""Number of rejects that never fails a build: in a small dataset the share is meaningless."""
