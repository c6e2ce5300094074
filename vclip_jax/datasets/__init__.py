"""Datasets as TFDS ArrayRecord directories: build them, list them, read them in any order."""

from vclip_jax.datasets.ingest.prepare import SourceNeededError, prepare
from vclip_jax.datasets.records import DatasetError, RecordSource, open_source

__all__ = ["DatasetError", "RecordSource", "SourceNeededError", "open_source", "prepare"]
