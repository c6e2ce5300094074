"""One listed photograph, as the readers find it: the record that they hand over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vclip_jax.datasets.listing import Blob
from vclip_jax.datasets.own.flags import NO_FLAG, Flags, flags_in


@dataclass
class Found:
    """A listed photograph, before classes have numbers."""

    key: str
    image: Blob | None = None
    caption: str = ""
    label: str = ""
    """The cell, until it is read; then the one class."""
    split: str = ""
    """"" if there is none."""
    reason: str = ""
    """The reason why the photograph cannot be used, if any."""
    detail: str = ""
    source: str = ""
    """The path and sheet of the table, so that rows of several tables can be joined."""
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
    """True if the labels are names of classes as they stand, not a cell to be interpreted."""
    several: tuple[str, ...] = ()
    """The classes of a cell with several; the label is "" then."""
    labelled: bool = False
    """True if the table has a column of classes, whatever the photograph's cell."""
    findings: dict[str, int] = field(default_factory=dict)
    """Finding -> 1 present, 0 absent, -1 not rated."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the read cell."""
        return self.several or ((self.label,) if self.label else ())

    def set_classes(self, names: Sequence[str]) -> None:
        """Set the classes of the cell, once it is read."""
        self.label = names[0] if len(names) == 1 else ""
        self.several = tuple(names) if len(names) > 1 else ()

    def read_flags(self, cells: Mapping[str, str], columns: Sequence[Flags]) -> None:
        """Set the findings by the cells of the row; a cell that is no flag makes a reject."""
        self.findings, fault = flags_in(cells, columns)
        if fault and not self.reason:
            self.reason, self.detail = NO_FLAG, f"{self.detail}: {fault}"
