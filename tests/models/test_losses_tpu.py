"""What a large batch's losses need of a TPU's memory, from the compiler: no TPU is there.

Needs libtpu, in an environment of its own, and `-m tpu_compile`:

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 pytest -m tpu_compile
"""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from vclip_jax.devices.sharding import BATCH, make_mesh
from vclip_jax.models.losses import contrastive_loss

pytestmark = pytest.mark.tpu_compile

PAIRS, WIDTH = 32768, 1024
MIB = 2**20


@pytest.fixture(scope="module")
def mesh():
    pytest.importorskip("libtpu")
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4")
    return make_mesh(4, topology.devices)


def temporary(mesh, kind: str, captions: bool = False) -> float:
    """MiB of a device's temporary memory for the value and all gradients.

    At the lowest effort the compiler keeps blocks in main memory, as it does at any effort where
    they exceed the 128 MiB of a core's own (there the ring's temporaries are under 1 MiB).
    """
    rows, everywhere = NamedSharding(mesh, BATCH), NamedSharding(mesh, PartitionSpec())
    embedding = jax.ShapeDtypeStruct((PAIRS, WIDTH), jnp.float32, sharding=rows)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    ids = jax.ShapeDtypeStruct((PAIRS,), jnp.int32, sharding=rows)

    def loss(image, text, logit_scale, logit_bias, group):
        return contrastive_loss(
            image,
            text,
            logit_scale,
            kind=kind,
            logit_bias=logit_bias if kind.startswith("sigmoid") else None,
            group=group if captions else None,
            mesh=mesh,
        )

    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
    lowered = gradient.lower(embedding, embedding, scalar, scalar, ids)
    program = lowered.compile(compiler_options={"exec_time_optimization_effort": -1.0})
    return program.memory_analysis().temp_size_in_bytes / MIB


@pytest.mark.parametrize("kind", ["softmax_ring", "sigmoid_ring"])
@pytest.mark.parametrize("captions", [False, True])
def test_a_ring_needs_a_few_blocks_of_one_device_against_one_other(mesh, kind, captions):
    # A block of logits is 16 MiB, a block of embeddings or of their gradients 8 MiB.
    assert temporary(mesh, kind, captions) <= 70


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_gathering_needs_blocks_of_one_device_against_all(mesh, kind):
    assert temporary(mesh, kind) >= PAIRS * PAIRS * 4 / 16 / MIB
