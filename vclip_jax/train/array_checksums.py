"""A 64-bit fingerprint of every array, independent of the array's layout over devices.

Each element is hashed together with its position in the whole array, and the hashes are summed
modulo 2**32. Integer sums do not depend on their order, so every layout, and every number of
processes, gives the same bits, and only the sums leave the devices. The hash is MurmurHash3's
finaliser (Appleby, public domain). It detects faults, not forgery.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vclip_jax.devices.tree import path_string

SMALLEST_ON_DEVICE = 2**18
"""The number of elements below which NumPy is faster than compiling a program for every shape."""


def fingerprints(tree: Any) -> dict[str, str]:
    """Return the path of each array (from `path_string`) -> 16 hexadecimal digits.

    With several processes, all must call it together, on the same arrays.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    on_host = jax.device_get([leaf if _is_small(leaf) else None for _, leaf in leaves])
    sums = jax.device_get(
        [
            _sums_on_device(leaf) if small is None else _sums(np.asarray(small), np)
            for (_, leaf), small in zip(leaves, on_host, strict=True)
        ]
    )
    return {
        path_string(path): "".join(f"{int(lane):08x}" for lane in lanes)
        for (path, _), lanes in zip(leaves, sums, strict=True)
    }


def _is_small(array: Any) -> bool:
    whole = not isinstance(array, jax.Array) or array.is_fully_addressable
    return array.size < SMALLEST_ON_DEVICE and (whole or array.is_fully_replicated)


def _sums(array: Any, xp: ModuleType) -> Any:
    """Return uint32 `[2]`: the sums of two hashes of every element, by NumPy or `jax.numpy`."""
    if array.dtype == bool:
        array = array.astype(np.uint8)
    bits = array.view({1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32))
    place = xp.zeros((), np.uint32)
    for length in bits.shape:
        place = place[..., None] * np.uint32(length) + xp.arange(length, dtype=np.uint32)
    first = _mix(bits.astype(np.uint32) ^ _mix(place ^ np.uint32(0x9E3779B9)))
    second = _mix(first ^ np.uint32(0x85EBCA6B))
    return xp.stack([first.sum(dtype=np.uint32), second.sum(dtype=np.uint32)])


@jax.jit
def _sums_on_device(array: jax.Array) -> jax.Array:
    return _sums(array, jnp)


def _mix(x: Any) -> Any:
    with np.errstate(over="ignore"):  # NumPy warns when scalars wrap around
        x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
        return x ^ (x >> 16)
