"""The device mesh, and the sharding of arrays over it.

Axes: `data` replicates parameters, `fsdp` shards them (ZeRO-3 style: parameters, optimizer state
and gradients). The batch is sharded over both. One list of rules decides, by regular expressions
over paths such as `params/visual/layer1/0/conv1/kernel`.
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
    """Return a mesh of all devices with `fsdp` of them along the `fsdp` axis, the rest along
    `data`.

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
        except NotImplementedError:  # no axis of the network has this length: 4 of v6e's 8 x 8
            placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
            return Mesh(placed, AXES, axis_types=types)
    # Only the data axis spans slices: parameters are gathered far more often than gradients.
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
    """Return the rows of a global batch that lie on one process's devices.

    A mesh follows the network, so on most TPU slices these rows are not consecutive.
    `jax.make_array_from_process_local_data` takes them in this order.

    Args:
        mesh: the mesh over which the batch is sharded (`BATCH`).
        rows: the number of rows of the global batch; a multiple of the number of devices.
        process: the index of the process; None for this one.

    Returns:
        int64 `[rows / processes]`, rising.
    """
    process = jax.process_index() if process is None else process
    each = rows // mesh.size
    places = [p for p, device in enumerate(mesh.devices.flat) if device.process_index == process]
    return (np.array(places, np.int64)[:, None] * each + np.arange(each)).ravel()


def _fsdp_spec(shape: tuple[int, ...], size: int) -> PartitionSpec:
    """Shard the longest dimension that `size` divides along `fsdp`; replicate if there is none."""
    candidates = [axis for axis, length in enumerate(shape) if length % size == 0]
    if math.prod(shape) < MIN_SHARDED_SIZE or not candidates:
        return PartitionSpec()
    axis = max(candidates, key=lambda candidate: shape[candidate])
    return PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))


def state_sharding(state: Any, mesh: Mesh, rules: Sequence[tuple[str, str]]) -> Any:
    """Return a tree of `NamedSharding` like `state`.

    Args:
        state: a tree of arrays or `jax.ShapeDtypeStruct`.
        mesh: the mesh from `make_mesh`.
        rules: `(regular expression, "replicate" | "fsdp")`; the first whose expression is found
            in a leaf's path decides, and a leaf without a rule is replicated.
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
    """Return a tree of `jax.ShapeDtypeStruct` with the shardings of another tree."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        placement,
    )


def describe(arrays: Any) -> dict[str, str]:
    """Map each leaf's path to its dtype, shape and placement, as in `float32[768,3072] over (None,
    'fsdp')`.

    Args:
        arrays: a tree of arrays, or the tree from `abstract_arrays`.
    """
    return {
        path_string(path): f"{leaf.dtype}{list(leaf.shape)} "
        + (f"over {tuple(leaf.sharding.spec)}" if any(leaf.sharding.spec) else "replicated")
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }


def bytes_per_device(arrays: Any) -> int:
    """Return the bytes that one device holds of a tree of arrays or of `abstract_arrays`."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )
