"""The record: the data that every dataset holds for one photograph."""

from typing import NotRequired, TypedDict


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
    fitted: NotRequired[str]
    """The fit that made a stored square of the picture; absent for a photograph."""
