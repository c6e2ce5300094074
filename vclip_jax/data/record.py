"""The record: the data that every dataset holds for one photograph."""

from typing import Final, NotRequired, TypedDict

FACTS: Final = ("eye", "sex", "age", "camera", "site", "visit", "quality")
"""The facts about eye, patient and photograph that a record may hold, in the order of columns."""


class Record(TypedDict):
    """One photograph of a dataset."""

    image: bytes
    """The encoded image."""
    caption: str
    key: str
    """Unique within the dataset."""
    label: int
    """The class for zero-shot evaluation, -1 if there is none."""
    patient: NotRequired[str]
    """The person whose eye it is, "" if unknown; absent in a dataset without patients."""
    facts: NotRequired[dict[str, str]]
    """The known facts, by the names of `FACTS`; absent if there are none."""
    findings: NotRequired[dict[str, int]]
    """Name of a disease or sign -> 1 present, 0 absent, -1 not rated; several may be present.
    Absent in a dataset without findings."""
    fitted: NotRequired[str]
    """The fit that made a stored square of the picture; absent for a photograph."""
