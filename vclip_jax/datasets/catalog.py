"""The datasets that can be built from files: what each is called and which module reads it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vclip_jax.datasets.listing import Listing


@dataclass(frozen=True)
class Dataset:
    """One dataset as distributed."""

    title: str
    """A line for people, with the licence."""
    scan: Callable[..., Listing]
    """`scan(source, **options)` lists it; raises ValueError if the layout is another's."""
    prompts: str = ""
    """The prompt set for its classes."""
    split: str = "test"
    """What is scored by default, in TFDS's notation."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keyword arguments of `scan` -> their choices, the default first; no choices means any."""
    fixture: Callable[[Path], None] | None = None
    """Writes a miniature in the distributed layout, quirks included."""


DATASETS: Final[dict[str, Dataset]] = {}
