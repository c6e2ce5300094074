"""Twelve photographs of IDRiD's training set that come with the package, in IDRiD's layout.

`idrid_sample/LICENCE.txt` in the room `datasets` states authors, licence (CC BY 4.0), the rule of
the choice, and the changes. Twelve photographs show how a model treats real ones; they are too few
to compare models.

Split: `test` alone, so that no training takes the photographs. Keys, grades and captions are those
of `readers.idrid`.
"""

import os
from dataclasses import replace

from vclip_jax.datasets.listing import Listing
from vclip_jax.datasets.readers import idrid


def scan(source: str | os.PathLike[str]) -> Listing:
    """List the photographs.

    Args:
        source: the package's `datasets/idrid_sample`, or any folder in IDRiD's layout.

    Raises:
        ValueError: see `idrid.scan`.
    """
    listing = idrid.scan(source)
    return replace(
        listing,
        name="idrid_sample",
        items=[replace(item, split="test") for item in listing.items],
        description="Twelve fundus photographs of IDRiD's training set, which come with "
        "vclip_jax: (c) Prasanna Porwal, Samiksha Pachade and Manesh Kokare; scaled to 512 x 340 "
        "pixels.",
    )
