"""The device mesh, and which axis of which array lies along it.

Axes: `data` replicates parameters, `fsdp` shards them (ZeRO-3 style: parameters, optimizer state
and gradients). The batch is sharded over both. One rule list decides, by regular expressions over
paths such as `params/visual/layer1/0/conv1/kernel`.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.devices.tree import path_string

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)
# Smaller arrays stay replicated: gathering them costs more than it saves.
MIN_SHARDED_SIZE = 2**16


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices with `fsdp` of them along the `fsdp` axis, the rest along `data`.

    Raises:
        ValueError: `fsdp` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(
            f"config.mesh.fsdp={fsdp} does not divide the {len(devices)} devices: "
            f"choose one of {[n for n in range(1, len(devices) + 1) if len(devices) % n == 0]}"
        )
    types = (jax.sharding.AxisType.Auto,) * 2
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        shape = (len(devices) // fsdp, fsdp)
        try:
            return jax.make_mesh(shape, AXES, devices=devices, axis_types=types)
        except NotImplementedError:  # no axis of the network is so long, as for 4 of v6e's 8 x 8
            placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
            return Mesh(placed, AXES, axis_types=types)
    # Between slices only the data axis: parameters are gathered far more often than gradients.
    each = len(devices) // slices
    if each % fsdp:
        raise ValueError(
            f"config.mesh.fsdp={fsdp} does not divide the {each} devices of a slice: choose one of "
            f"{[n for n in range(1, each + 1) if each % n == 0]}"
        )
    hybrid = mesh_utils.create_hybrid_device_mesh(
        (each // fsdp, fsdp), (slices, 1), devices, allow_split_physical_axes=True
    )
    return Mesh(hybrid, AXES, axis_types=types)


def rows_of_process(mesh: Mesh, rows: int, process: int | None = None) -> npt.NDArray[np.int64]:
    """Which rows of a global batch lie on one process's devices, rising, int64.

    A mesh follows the network, so on most TPU slices they are not one after another. In this order
    `jax.make_array_from_process_local_data` takes them.

    Args:
        mesh: over which the batch lies (`BATCH`).
        rows: of the global batch; the number of devices divides it.
        process: None for this one.
    """
    process = jax.process_index() if process is None else process
    each = rows // mesh.size
    places = [p for p, device in enumerate(mesh.devices.flat) if device.process_index == process]
    return (np.array(places, np.int64)[:, None] * each + np.arange(each)).ravel()


def _fsdp_spec(shape: tuple[int, ...], size: int) -> PartitionSpec:
    """The longest dimension that `size` divides goes along `fsdp`; none if there is none."""
    candidates = [axis for axis, length in enumerate(shape) if length % size == 0]
    if math.prod(shape) < MIN_SHARDED_SIZE or not candidates:
        return PartitionSpec()
    axis = max(candidates, key=lambda candidate: shape[candidate])
    return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))


def state_sharding(state: Any, mesh: Mesh, rules: Sequence[tuple[str, str]]) -> Any:
    """A tree of `NamedSharding` like `state`.

    Args:
        state: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: from `make_mesh`.
        rules: `(regular expression, "replicate" | "fsdp")`; the first whose expression is found
            in a leaf's path decides, and without one the leaf is replicated.
    """

    def spec(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_string(path)
        placement = next((how for pattern, how in rules if re.search(pattern, name)), "replicate")
        sharded = placement == "fsdp" and mesh.shape["fsdp"] > 1
        return NamedSharding(
            mesh, _fsdp_spec(leaf.shape, mesh.shape["fsdp"]) if sharded else PartitionSpec()
        )

    return jax.tree_util.tree_map_with_path(spec, state)


def abstract_arrays(abstract: Any, placement: Any) -> Any:
    """A tree of `jax.ShapeDtypeStruct` with shardings, from one without and one of shardings."""
    return jax.tree.map(
        lambda leaf, own: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=own),
        abstract,
        placement,
    )


def describe(arrays: Any) -> dict[str, str]:
    """Path -> type, shape and placement, such as `float32[768,3072] over (None, 'fsdp')`.

    Args:
        arrays: a tree of arrays, or from `abstract_arrays`.
    """
    return {
        path_string(path): f"{leaf.dtype}{list(leaf.shape)} "
        + (f"over {tuple(leaf.sharding.spec)}" if any(leaf.sharding.spec) else "replicated")
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def bytes_per_device(arrays: Any) -> int:
    """Bytes that one device holds of a tree of arrays, or of `abstract_arrays`."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )
