"""The building of a dataset: from a listing of photographs to shards of records, a data card and
the list of rejects.

How many rejects fail a build stands here, so that the command line is read before NumPy is
imported.
"""

from typing import Final

MAX_REJECTS: Final = 0.05
"""Share of what is listed."""
FEW_REJECTS: Final = 10
"""So many never fail a build: of a handful, a share says nothing."""
