"""Speed and memory of one device of each accelerator, from which times and shares are computed.

A device is what JAX calls a device: a whole chip, except for v3 and 7x, whose chips have two cores,
each a device. Peaks and nominal bandwidths are the makers' (Cloud TPU's pages "TPU v3" to "TPU7x",
2026; NVIDIA's data sheets of A100, H100 SXM and H200, dense bfloat16). The compiler's figures for a
TPU come from libtpu 0.0.42.1: the memory that it refuses to exceed, and the bandwidth that the
`optimal_seconds` of its cost analysis imply for a copy. The clock follows from the peak and the
multiplications of a cycle, which are those of 4 matrix units of 128 x 128 in a core (2 in v3's) and
of 4 of 256 x 256 since v6e; it is rounded to the published values, if any.
"""

from dataclasses import dataclass
from typing import Any

GIB = 2**30
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_prefer_vector_width": 512}}
"""Platform -> changes of XLA's defaults; by default XLA uses half of AVX-512's width."""


@dataclass(frozen=True)
class Chip:
    """The figures of one device."""

    name: str
    platform: str
    """"tpu" or "cuda"."""
    device_kind: str
    """The start of `jax.Device.device_kind`."""
    peak_flops: float
    """Operations per second in bfloat16; a multiplication and an addition count as two."""
    hbm_bytes: int
    """Memory that a program may use, in bytes."""
    usable_bandwidth: float
    """Memory bandwidth for predictions, in bytes per second: on a TPU, the compiler's figure."""
    clock_hz: float
    """Clock of the matrix units, whose cycles a TPU's compiler estimates; 0 for GPUs."""


CHIPS = (
    Chip("v3", "tpu", "TPU v3", 61.5e12, int(15.48 * GIB), 429e9, 0.94e9),
    Chip("v4", "tpu", "TPU v4", 275e12, int(30.75 * GIB), 982e9, 1.05e9),
    Chip("v5e", "tpu", "TPU v5 lite", 197e12, int(15.75 * GIB), 737e9, 1.5e9),
    Chip("v5p", "tpu", "TPU v5", 459e12, int(95.74 * GIB), 2350e9, 1.75e9),
    Chip("v6e", "tpu", "TPU v6 lite", 918e12, int(31.25 * GIB), 1638e9, 1.75e9),
    Chip("7x", "tpu", "TPU7x", 1153.5e12, int(94.75 * GIB), 3686e9, 2.2e9),
    Chip("a100", "cuda", "NVIDIA A100", 312e12, 80 * 10**9, 2039e9, 0.0),
    # The driver reports this memory for "NVIDIA H100 80GB HBM3" (see topologies.H100_CONFIG).
    Chip("h100", "cuda", "NVIDIA H100", 989e12, 84929347584, 3352e9, 0.0),
    Chip("h200", "cuda", "NVIDIA H200", 989e12, 141 * 10**9, 4800e9, 0.0),
)


def chip_named(name: str) -> Chip:
    """Return the chip of a name such as `v5e`.

    Raises:
        ValueError: the name is unknown; the message lists the known names.
    """
    for chip in CHIPS:
        if chip.name == name:
            return chip
    raise ValueError(f"unknown chip {name!r}: use one of {', '.join(chip.name for chip in CHIPS)}")


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip of a `jax.Device.device_kind`; None for a CPU or an unknown device."""
    fitting = [chip for chip in CHIPS if device_kind.startswith(chip.device_kind)]
    # "TPU v5 lite" also starts with "TPU v5".
    return max(fitting, key=lambda chip: len(chip.device_kind), default=None)
