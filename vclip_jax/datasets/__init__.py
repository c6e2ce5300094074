"""Datasets as TFDS ArrayRecord directories: build them, list them, read them in any order."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vclip_jax.datasets.built import DatasetError
    from vclip_jax.datasets.ingest.prepare import SourceNeededError, prepare
    from vclip_jax.datasets.records import RecordSource, open_source

__all__ = ["DatasetError", "RecordSource", "SourceNeededError", "open_source", "prepare"]

_HOMES = {
    "DatasetError": "vclip_jax.datasets.built",
    "RecordSource": "vclip_jax.datasets.records",
    "SourceNeededError": "vclip_jax.datasets.ingest.prepare",
    "open_source": "vclip_jax.datasets.records",
    "prepare": "vclip_jax.datasets.ingest.prepare",
}


def __getattr__(name: str) -> Any:
    # Imported on demand: the catalogue alone should not need the modules that build and read.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
