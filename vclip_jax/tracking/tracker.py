"""The interface of a tracker, and what it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from vclip_jax import config as config_lib

PROJECT: Final = "vclip_jax"
# Keys whose values are paths of this machine; their names may tell more than they should.
_PATHS: Final = ("data_dir", "source", "restore_from", "vocab", "prompts", "weights", "where")


@dataclass(frozen=True)
class LoggedImage:
    """An image to show, uint8 `[h, w, 3]`; the slashes in its `name` group it."""

    name: str
    image: npt.NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class LoggedPoints:
    """Points to project."""

    name: str
    vectors: npt.NDArray[np.floating]
    """`[n, d]`."""
    columns: Mapping[str, Sequence[str]]
    """What is known of each point: title -> `n` words."""
    thumbnails: npt.NDArray[np.uint8] | None
    """`[n, s, s, 3]`, if the points are to be shown as pictures."""


class Tracker(Protocol):
    """Something that shows a run to people. Steps come in any order; a value of a step comes once,
    and again where it was measured again, which then counts."""

    id: str
    """What it calls the run."""

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """The values of a row of `metrics.jsonl`, written at `seconds` since 1970."""

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """Pictures of a step."""

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """Points that replace earlier ones of that name."""

    def close(self, ended: bool) -> None:
        """No more will come; the run has `ended`, or broke off."""


def parameters(config: ConfigDict) -> dict[str, Any]:
    """The config as trackers show it: dotted keys, without those that hold paths."""
    flat = config_lib.flatten(config)
    return {key: value for key, value in flat.items() if key.split(".")[-1] not in _PATHS}
