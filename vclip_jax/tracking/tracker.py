"""The interface of a tracker, and the images and points that it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from vclip_jax import config as config_lib

PROJECT: Final = "vclip_jax"
# Keys whose values are paths of this machine, which may reveal private names.
_PATHS: Final = (
    *("calibration", "data_dir", "predictions_secret", "prompts", "restore_from"),
    *("source", "vocab", "weights", "where"),
)


@dataclass(frozen=True)
class LoggedImage:
    """An image to show, uint8 `[h, w, 3]`; slashes in `name` put it into groups."""

    name: str
    image: npt.NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class LoggedPoints:
    """Points for the projector."""

    name: str
    vectors: npt.NDArray[np.floating]
    """`[n, d]`."""
    columns: Mapping[str, Sequence[str]]
    """The labels of the points: title -> `n` words."""
    thumbnails: npt.NDArray[np.uint8] | None
    """`[n, s, s, 3]`, or None to show plain points."""


class Tracker(Protocol):
    """A service that displays a run. Steps may come in any order. A value of a step comes once, or
    again if it was measured again; then the last one counts."""

    id: str
    """The service's name for the run."""

    def scalars(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Log the values of a row of `metrics.jsonl`, written at `seconds` since 1970."""

    def pictures(self, step: int, pictures: Sequence[LoggedImage]) -> None:
        """Log pictures of a step."""

    def embeddings(self, embeddings: LoggedPoints) -> None:
        """Log points; they replace earlier points of the same name."""

    def close(self, ended: bool) -> None:
        """Finish the log; `ended` is False if the run broke off."""


def parameters(config: ConfigDict) -> dict[str, Any]:
    """Return the config for trackers: dotted keys, without those that hold paths."""
    flat = config_lib.flatten(config)
    return {key: value for key, value in flat.items() if key.split(".")[-1] not in _PATHS}
