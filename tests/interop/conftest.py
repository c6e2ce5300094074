"""A tiny model of Chinese-CLIP's kind, and zips in PyTorch's layout made by hand."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.interop.weights import Weights, complete_config, expected_arrays

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"视网膜病变正常青光眼"]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(VOCABULARY)


@pytest.fixture(scope="session")
def tiny_weights() -> Callable[..., Weights]:
    """Makes weights of a 64 x 64 pixel model with random numbers.

    Keyword arguments replace values of `model`, and `kind`.
    """

    def make(kind: str = "clip", seed: int = 0, **changes) -> Weights:
        text = {
            "text_width": 64, "text_layers": 2, "text_heads": 1, "text_mlp_width": 24,
            "text_max_positions": 12,
        }  # fmt: skip
        vision = {"embed_dim": 10, "vision_layers": [1, 2, 1, 1], "vision_width": 8}
        sections = {"tokenizer": {"context_length": 12, "vocab_size": len(VOCABULARY)}}
        sections["model"] = {**text, **(vision if kind == "clip" else {}), **changes}
        if kind == "clip":
            sections["data"] = {"image_size": 64}
        config = complete_config({"kind": kind, **sections}, origin="test")
        rng = np.random.default_rng(seed)
        arrays = {
            name: rng.uniform(0.1, 1, leaf.shape).astype(np.float32)
            for name, leaf in expected_arrays(config).items()
        }
        return Weights(config, arrays)

    return make


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
