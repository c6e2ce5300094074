"""Table 1 of the VisionCLIP paper, and which of a run's datasets stand beside which column."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

CITATION = (
    "H. Wei, B. Liu, M. Zhang, P. Shi, W. Yuan: VisionCLIP: An Med-AIGC based Ethical "
    "Language-Image Foundation Model for Generalizable Retina Image Analysis."
)
TITLE = "Zero-shot performance (accuracy) on the three external datasets."
DATASETS = ("MESSIDOR", "FIVES", "REFUGE")
TABLE_1: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "CLIP": (0.237, 0.250, 0.470),
        "BiomedCLIP": (0.224, 0.416, 0.540),
        "FLAIR": (0.545, 0.732, 0.899),
        "FLAIR_EK": (0.604, 0.735, 0.920),
        "VisionCLIP": (0.431, 0.739, 0.925),
    }
)

Kind = Literal["real", "stand-in"]


def column_of(name: str) -> tuple[str, Kind] | None:
    """The column of Table 1 that an evaluated dataset belongs under, and whether it is that data.

    Only `messidor`, `fives` and `refuge` themselves (a prefix such as `zh/` or a suffix such as
    `:test` aside) count as real. Any other name that holds one of the three, such as
    `messidor_like` or `messidor2`, is a stand-in: near the paper's dataset, but not it.
    """
    plain = name.lower().rsplit("/", 1)[-1].split(":", 1)[0]
    for dataset in DATASETS:
        if plain == dataset.lower() and "synthetic" not in name.lower():
            return dataset, "real"
        if dataset.lower() in name.lower():
            return dataset, "stand-in"
    return None


def columns(names: Iterable[str], kind: Kind) -> dict[str, str]:
    """Column of Table 1 -> the first of `names` that belongs there with this kind."""
    found: dict[str, str] = {}
    for name in names:
        if (place := column_of(name)) and place[1] == kind:
            found.setdefault(place[0], name)
    return found
