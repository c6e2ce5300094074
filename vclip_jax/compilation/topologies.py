"""Accelerators to compile for, which this machine need not have: `--topology v5e:4x4`.

    v5e:4x4       one slice of 16 chips; also v3, v4:2x2x1, v5p:2x2x2, v6e:4x4, 7x:2x2x1
    2xv5e:4x4     two such slices, joined by the data centre's network
    h100:8        one host of 8 GPUs; 16, 24, ... are hosts of 8

TPUs need libtpu (`pip install 'vclip_jax[tpu]'`), GPUs the CUDA plugin
(`pip install 'vclip_jax[cuda]'`); neither needs a device.
"""

import importlib.util
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from vclip_jax.devices.chips import Chip, chip_named
from vclip_jax.files.errors import first_line

GPUS_PER_HOST = 8

# The description of a GPU that XLA needs if there is none: as in jax-ml/jax issue 28376, with the
# `runtime_version` of openxla/xla pull request 25919, without which nothing compiles.
H100_CONFIG = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Topology:
    """Devices to compile for."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    """TPUs: chips of a slice along each axis of its network; GPUs: hosts, and GPUs of each."""
    slices: int
    devices: tuple[jax.Device, ...]
    """Descriptions of devices for a mesh; they cannot hold arrays."""


def use_no_device() -> None:
    """Keep JAX on CPUs, and let libtpu compile while other processes use it.

    Call it before JAX touches a device.
    """
    jax.config.update("jax_platforms", "cpu")
    # JAX would cache programs of other devices, and then warn that it cannot read them.
    jax.config.update("jax_enable_compilation_cache", False)
    # Without the first, libtpu would wait for a TPU host's metadata server; without the second, one
    # of two processes would abort because of the other's lock file.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # Any host and slice will do: without them libtpu complains on standard error.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def parse(name: str) -> Topology:
    """Return the topology of a name, see the top of this module.

    Raises:
        ValueError: one line: the name is malformed, there is no such slice, or the compiler is not
            installed.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(?:tpu)?(\w+):(\d+(?:x\d+)*)", name)
    if match is None:
        raise ValueError(
            f"--topology={name}: write v5e:4x4, 2xv5e:4x4 for two slices, or h100:8 for GPUs"
        )
    slices = int(match[1] or 1)
    chip = chip_named(match[2])
    shape = tuple(int(length) for length in match[3].split("x"))
    if chip.platform == "cuda":
        return _gpus(name, chip, shape, slices)
    _need("libtpu", f"--topology={name} needs libtpu: pip install 'vclip_jax[tpu]'")
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chip.name in ("v4", "v5p"):
        # Make both cores of a chip one device; otherwise each core would be a device.
        options |= {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1)}
    if math.prod(shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    family = "tpu7x" if chip.name == "7x" else chip.name
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{family}:{match[3]}", **options
        )
    except jax.errors.JaxRuntimeError as error:
        reason = first_line(error)
        raise ValueError(f"--topology={name}: libtpu knows no such slice: {reason}") from None
    return Topology(name, chip, shape, slices, tuple(topology.devices))


def _gpus(name: str, chip: Chip, shape: tuple[int, ...], slices: int) -> Topology:
    count = math.prod(shape)
    if chip.name != "h100":
        raise ValueError(f"--topology={name}: of GPUs only h100 can be compiled for: use h100:8")
    if slices > 1 or len(shape) > 1 or (count > GPUS_PER_HOST and count % GPUS_PER_HOST):
        raise ValueError(
            f"--topology={name}: write the number of GPUs alone, up to {GPUS_PER_HOST} or a "
            f"multiple of it, for example h100:{GPUS_PER_HOST}"
        )
    _need("jax_cuda12_plugin", f"--topology={name} needs: pip install 'vclip_jax[cuda]'")
    hosts = -(-count // GPUS_PER_HOST)
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name=chip.name,
        target_config=H100_CONFIG,
        topology=f"1x{hosts}x{count // hosts}",
    )
    return Topology(name, chip, (hosts, count // hosts), 1, tuple(topology.devices))


def _need(module: str, message: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(message)


def lower(jitted: Callable[..., Any], topology: Topology, *arguments: Any) -> jax.stages.Lowered:
    """Lower a function for a topology's platform, as `jitted.lower(*arguments)` would.

    Args:
        jitted: a function from `jax.jit`.
        topology: the devices of the mesh.
        arguments: trees of `jax.ShapeDtypeStruct` with shardings over that mesh.
    """
    traced = jitted.trace(*arguments)  # type: ignore[attr-defined]
    return traced.lower(lowering_platforms=(topology.chip.platform,))
