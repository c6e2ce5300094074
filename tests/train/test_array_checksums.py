"""Fingerprints: the same for every layout, another for every change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vclip_jax.devices import sharding
from vclip_jax.train import array_checksums

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool", "int8")


def of(array) -> str:
    return array_checksums.fingerprints({"a": array})["a"]


def some(dtype: str, shape=(24, 16)) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(shape) * 10
    return np.asarray(jnp.asarray(values).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_device_and_the_host_agree(monkeypatch, dtype):
    array = some(dtype)
    host = of(array)
    monkeypatch.setattr(array_checksums, "SMALLEST_ON_DEVICE", 0)
    assert of(jnp.asarray(array)) == host


@pytest.mark.parametrize("spec", [(), ("fsdp",), (None, "fsdp"), (("data", "fsdp"),)])
def test_the_layout_does_not_matter(monkeypatch, spec):
    monkeypatch.setattr(array_checksums, "SMALLEST_ON_DEVICE", 0)
    array = some("float32")
    placed = jax.device_put(array, NamedSharding(sharding.make_mesh(4), PartitionSpec(*spec)))
    assert of(placed) == of(array)


def test_every_flipped_bit_is_seen():
    array = some("float32", (4, 4))
    known = {of(array)}
    for position in range(array.nbytes * 8):
        changed = bytearray(array.tobytes())
        changed[position // 8] ^= 1 << position % 8
        known.add(of(np.frombuffer(changed, np.float32).reshape(4, 4)))
    assert len(known) == array.nbytes * 8 + 1


def test_signs_swaps_and_zeros_are_seen():
    array = some("float32")
    others = [-array, array[::-1], array.T.copy().reshape(24, 16), array * 0, np.roll(array, 1)]
    one = array.copy()
    one[[0, 5]] *= -1  # two flips of the highest bit
    assert len({of(x) for x in [array, one, *others]}) == len(others) + 2
    assert of(np.array([0.0], np.float32)) != of(np.array([-0.0], np.float32))


def test_scalars_and_empty_arrays_have_one_too():
    assert of(jnp.zeros((), jnp.int32)) != of(jnp.ones((), jnp.int32))
    assert of(np.zeros((0, 3), np.float32)) == "0" * 16


def test_names_are_paths():
    tree = {"params": {"visual": [np.zeros(2), np.zeros(3)]}}
    assert list(array_checksums.fingerprints(tree)) == ["params/visual/0", "params/visual/1"]
