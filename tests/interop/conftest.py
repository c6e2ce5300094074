"""Zips in PyTorch's layout made by hand."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vclip_jax.interop.weights import Weights


@pytest.fixture
def zip_of(tmp_path) -> Callable[..., Path]:
    """Writes `archive/data.pkl` and the storages `archive/data/KEY` into a zip, as it is told."""

    def write(
        pickled: bytes,
        storages: dict[str, bytes] | None = None,
        compression: int = zipfile.ZIP_STORED,
        **others: bytes,
    ) -> Path:
        path = tmp_path / "made.pt"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", pickled)
            for key, data in (storages or {}).items():
                archive.writestr(f"archive/data/{key}", data)
            for name, data in others.items():
                archive.writestr(f"archive/{name}", data)
        return path

    return write


def assert_same(left: Weights, right: Weights) -> None:
    """Equal configurations and, bit by bit, equal arrays."""
    assert left.config == right.config
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype == np.float32, name
        assert array.tobytes() == right.arrays[name].tobytes(), name
        assert array.shape == right.arrays[name].shape, name
