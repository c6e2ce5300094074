"""The record: what every dataset holds of one photograph."""

from typing import NotRequired, TypedDict


class Record(TypedDict):
    """What every dataset holds."""

    image: bytes
    """Encoded."""
    caption: str
    key: str
    """Unique within the dataset."""
    label: int
    """The class for zero-shot evaluation, -1 where there is none."""
    fitted: NotRequired[str]
    """How the picture was made a square when it was stored ready; absent for a photograph."""
