"""`python tests/permuted.py 0,1,0,1,0,1,0,1 ARGUMENTS`: the trainer, with a mesh as slices have it.

Where the network orders the chips, those of a process do not stand together: the numbers say whose
device stands at each place of the mesh.
"""

import sys
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from vclip_jax import main
from vclip_jax.config import command_line
from vclip_jax.devices import sharding


def permuted_mesh(order: Sequence[int], devices: Sequence[jax.Device], fsdp: int = 1) -> Mesh:
    """A mesh of the devices on which device i stands at a place of process `order[i]`."""
    own = {process: iter([d for d in devices if d.process_index == process]) for process in order}
    placed = np.array([next(own[process]) for process in order])
    types = (jax.sharding.AxisType.Auto,) * 2
    return Mesh(placed.reshape(-1, fsdp), sharding.AXES, axis_types=types)


if __name__ == "__main__":
    given = [int(process) for process in sys.argv.pop(1).split(",")]
    usual = sharding.make_mesh
    sharding.make_mesh = lambda fsdp=1, devices=None: (
        permuted_mesh(given, jax.devices(), fsdp) if devices is None else usual(fsdp, devices)
    )
    command_line.run(main.run_flags)
