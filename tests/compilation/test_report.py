"""The report of a compiled step: its figures against those of a program worked out by hand."""

import importlib.util
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vclip_jax.compilation import topologies
from vclip_jax.compilation.compiler import Compilation, Memory, compile_for
from vclip_jax.compilation.cost import cost_of, ms_by_scope
from vclip_jax.compilation.report import format_report, make_report, write_report
from vclip_jax.compilation.topologies import Topology
from vclip_jax.devices.chips import chip_named
from vclip_jax.devices.sharding import BATCH, make_mesh

GIB = 2**30
TEXT = """HloModule jit_step

ENTRY %main (p: f32[]) -> f32[] {
  %a = bf16[4096,1024]{1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[1024,1024]{1,0:T(8,128)(2,1)} parameter(1)
  %c = bf16[4096,1024]{1,0:T(8,128)(2,1)} convolution(%a, %b), dim_labels=bf_io->bf, \
metadata={op_name="jit(step)/jvp(visual)/layer1/dot_general"}, \
backend_config={"window_config":{"estimated_cycles":"150000",\
"cost_model_type":"COST_MODEL_TYPE_CLASSIC"}}
  ROOT %d = bf16[4096,1024]{1,0:T(8,128)(2,1)} all-reduce(%c), channel_id=1
}
"""
MEMORY = Memory(
    argument_bytes=2 * GIB,
    output_bytes=GIB,
    alias_bytes=GIB,
    temp_bytes=3 * GIB,
    peak_bytes=5 * GIB,
)


@pytest.fixture
def topology():
    return Topology("v5e:2x2", chip_named("v5e"), (2, 2), 1, tuple(jax.devices()[:4]))


def report(topology, peak: int = 5 * GIB, **changes):
    memory = Memory(**{**MEMORY.__dict__, "peak_bytes": peak})
    return make_report(topology, Compilation(TEXT, memory, 12.34), global_batch=1024, **changes)


def test_a_report_has_the_figures_of_the_design(topology):
    got = report(topology)
    assert (got["topology"], got["devices"], got["global_batch"]) == ("v5e:2x2", 4, 1024)
    assert got["compile_seconds"] == 12.3
    # 0.1 ms of cycles; the all-reduce reads and writes 8 MiB.
    ms = 0.1 + 1e3 * 2 * 8 * 2**20 / 737e9
    assert got["per_device"] == {
        "argument_bytes": 2 * GIB,
        "temp_bytes": 3 * GIB,
        "output_bytes": GIB,
        "peak_bytes": 5 * GIB,
        "capacity_bytes": int(15.75 * GIB),
        "flops": 2 * 4096 * 1024 * 1024,
        "bytes_accessed": 4 * 8 * 2**20 + 2 * 2**20,
        "estimated_cycles": 150_000,
        "predicted_ms": pytest.approx(ms, rel=1e-12),
    }
    assert got["collectives"] == {"all-reduce": {"count": 1, "bytes": 8 * 2**20}}
    assert got["mfu"] == pytest.approx(2 * 4096 * 1024**2 / (ms / 1e3 * 197e12))
    assert got["examples_per_second"] == pytest.approx(1024 / (ms / 1e3))
    assert got["scopes"] == pytest.approx({"visual/layer1": 0.1, "(unnamed)": ms - 0.1})
    assert [kernel["name"] for kernel in got["kernels"]] == ["c", "d"]
    assert got["fits"]


def test_utilisation_is_of_the_arithmetic_that_a_step_needs(topology):
    # Half of what the program does: the rest is computed a second time.
    twice = report(topology, model_flops=4 * 4096 * 1024 * 1024)
    assert twice["mfu"] == pytest.approx(report(topology)["mfu"] / 2)
    assert twice["per_device"]["flops"] == 2 * 4096 * 1024 * 1024


def test_the_table_names_what_matters(topology):
    table = format_report(report(topology, placements={"params/a": "replicated"}), topology)
    assert "5.00 of 15.75 GiB at the peak" in table
    assert "all-reduce          1 with 8.4 MB" in table
    assert "visual/layer1" in table
    assert "DOES NOT FIT" not in table


def test_what_compiles_but_does_not_fit_says_so(topology):
    large = report(topology, peak=20 * GIB)
    assert not large["fits"]
    table = format_report(large, topology, ["fsdp=4"])
    assert "DOES NOT FIT: a device of v5e:2x2 needs 20.0 of 15.75 GiB: try fsdp=4" in table


def test_a_report_is_written_beside_the_program(topology, tmp_path):
    content = report(topology)
    write_report(tmp_path / "w", content, Compilation(TEXT, MEMORY, 1.0))
    assert json.loads((tmp_path / "w" / "compile.json").read_text()) == content
    assert (tmp_path / "w" / "compile_hlo.txt").read_text() == TEXT


# --- programs of the real compilers --------------------------------------------------------------

LAYERS, WIDTH, ROWS = 6, 256, 1024


def compiled(name: str):
    """A scan over layers and its gradient, `ROWS` rows a device."""

    def layer(x, weight):
        with jax.named_scope("layer"):
            return jax.nn.relu(x @ weight), None

    def loss(weights, x):
        with jax.named_scope("tower"):
            x, _ = jax.lax.scan(layer, x, weights)
        return jnp.square(x.astype(jnp.float32)).mean()

    topology = topologies.parse(name)
    mesh = make_mesh(1, topology.devices)
    rows = jax.sharding.NamedSharding(mesh, BATCH)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    weights = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16, sharding=everywhere)
    x = jax.ShapeDtypeStruct((ROWS * mesh.size, WIDTH), jnp.bfloat16, sharding=rows)
    program = topologies.lower(jax.jit(jax.value_and_grad(loss)), topology, weights, x)
    options = {"exec_time_optimization_effort": -1.0} if topology.chip.platform == "tpu" else None
    return topology, compile_for(topology, program, options=options)


# Forward, gradient of the weights, gradient of the input (of the first layer, too: the loop does
# not know that nobody asks for it).
FLOPS = 3 * LAYERS * 2 * ROWS * WIDTH**2


@pytest.mark.tpu_compile
@pytest.mark.parametrize("name", ["v5e:2x2", "h100:8"])
def test_loops_of_a_real_program_count_by_their_trips(name):
    module = "libtpu" if name.startswith("v") else "jax_cuda12_plugin"
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    topology, compilation = compiled(name)
    got = make_report(topology, compilation, global_batch=ROWS * len(topology.devices))
    assert got["per_device"]["flops"] == FLOPS
    assert got["notes"] == []
    # A gradient of every layer, and the loss.
    weights = LAYERS * WIDTH**2 * 2
    assert got["collectives"]["all-reduce"]["count"] in (LAYERS + 1, 2)
    assert weights <= got["collectives"]["all-reduce"]["bytes"] <= weights + 16
    assert 0 < got["mfu"] < 1
    total = Counter[str]()
    for scope, milliseconds in ms_by_scope(cost_of(compilation.text, topology.chip)).items():
        total[scope.partition("/")[0]] += milliseconds
    assert max(total, key=total.__getitem__) == "tower"


@pytest.mark.tpu_compile
def test_the_times_of_a_real_program_are_those_of_its_cycles_and_bytes():
    # The rule once more, in NumPy over columns instead of instruction by instruction.
    pytest.importorskip("libtpu")
    topology, compilation = compiled("v5e:2x2")
    kernels = cost_of(compilation.text, topology.chip).kernels
    columns = [(k.runs, k.cycles, k.hbm_bytes, k.flops > 0) for k in kernels]
    runs, cycles, size, product = (np.array(column) for column in zip(*columns, strict=True))
    seconds = np.maximum(size / 737e9, np.where(product, cycles / 1.5e9, 0.0))
    assert 1e3 * seconds.sum() == pytest.approx(sum(k.ms for k in kernels), rel=1e-9)
    # Products run in both loops, and take most of the time.
    assert set(runs[product]) == {LAYERS}
    assert seconds[product].sum() > 0.5 * seconds.sum()
