"""One listed photograph, as the readers find it: the record that they hand over."""

from dataclasses import dataclass, field

from vclip_jax.datasets.listing import Blob


@dataclass
class Found:
    """A listed photograph, before classes have numbers."""

    key: str
    image: Blob | None = None
    caption: str = ""
    label: str = ""
    split: str = ""
    """"" if there is none."""
    reason: str = ""
    """The reason why the photograph cannot be used, if any."""
    detail: str = ""
    source: str = ""
    """What tells the table apart, so that rows of several tables can be joined."""
    people: dict[str, str] = field(default_factory=dict)
    """The columns that may identify the person, and their cells."""
    person: str = ""
    """The person, from the one of these that was chosen; "" if unknown."""
    group: str = ""
    """A value that photographs of one split share, such as the eyes of one row; "" for the key."""
    word: str = ""
    """A cell in the place of a label that is no label, such as "unknown"."""
    facts: dict[str, str] = field(default_factory=dict)
    """The known facts, by the names of `facts.FACTS`."""
    is_name: bool = False
    """True if the label is a class's name as it stands, not a cell to be interpreted."""
