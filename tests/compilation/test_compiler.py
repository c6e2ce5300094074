"""Compiling once for each program, and what is said of programs that are too large."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from vclip_jax.compilation import compiler, topologies
from vclip_jax.compilation.compiler import compile_for, needed_bytes, program_key, too_large
from vclip_jax.compilation.topologies import Topology
from vclip_jax.devices.chips import chip_named
from vclip_jax.devices.sharding import make_mesh

GIB = 2**30


@pytest.fixture
def topology():
    """CPUs in the place of a slice."""
    return Topology("v5e:2x2", chip_named("v5e"), (2, 2), 1, tuple(jax.devices()[:4]))


def lowered(name: str = "scope", factor: float = 2.0):
    def double(x):
        with jax.named_scope(name):
            return factor * x @ x

    return jax.jit(double).lower(jax.ShapeDtypeStruct((16, 16), jnp.float32))


def test_what_was_compiled_before_comes_from_the_cache(topology, tmp_path, monkeypatch):
    first = compile_for(topology, lowered(), cache_dir=tmp_path)
    assert "ENTRY" in first.text
    assert first.memory.argument_bytes == 16 * 16 * 4
    monkeypatch.setattr(compiler, "_compile", None)
    assert compile_for(topology, lowered(), cache_dir=tmp_path) == first
    assert [path.suffix for path in tmp_path.iterdir()] == [".gz"]


def test_without_a_cache_nothing_is_kept(topology, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compile_for(topology, lowered())
    assert list(tmp_path.iterdir()) == []


def test_the_same_program_has_the_same_name_wherever_it_stands(topology):
    assert program_key(topology, lowered()) == program_key(topology, lowered())


@pytest.mark.parametrize("change", ["program", "scope", "options", "topology", "flags"])
def test_what_changes_the_result_changes_the_name(topology, change, monkeypatch):
    before = program_key(topology, lowered())
    program, options = lowered(), None
    if change == "program":
        program = lowered(factor=3.0)
    elif change == "scope":
        program = lowered("other")
    elif change == "options":
        options = {"exec_time_optimization_effort": -1.0}
    elif change == "topology":
        topology = dataclasses.replace(topology, name="v5e:4x4")
    else:
        monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_tpu_something=true")
    assert program_key(topology, program, options) != before


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        # libtpu 0.0.42.1, and what it said in 2024.
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (21.30G) exceeds available HBM (15.75G).",
            21.3,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 21.95G of 15.48G hbm. Exceeded hbm capacity by 6.47G.",
            21.95,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (1.25T) exceeds available HBM (15.75G).",
            1280,
        ),
    ],
)
def test_the_compiler_tells_what_a_program_needs(message, gib):
    assert needed_bytes(message) == pytest.approx(gib * GIB)


@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: Couldn't find output tile sizes",
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space smem. Used 1.00M of 1.00M smem.",
    ],
)
def test_other_errors_are_not_about_main_memory(message):
    assert needed_bytes(message) is None


@pytest.mark.parametrize(
    ("suggestions", "end"),
    [
        ((), "15.75 GiB"),
        (["fsdp=4"], "15.75 GiB: try fsdp=4"),
        (
            ["fsdp=4", "micro_batches=2", "remat=..."],
            "15.75 GiB: try fsdp=4, micro_batches=2 or remat=...",
        ),
    ],
)
def test_advice_is_one_line(topology, suggestions, end):
    message = too_large(topology, int(21.3 * GIB), suggestions)
    assert message == f"a device of v5e:2x2 needs 21.3 of {end}"


@pytest.mark.tpu_compile
def test_a_program_that_does_not_fit_a_tpu_is_answered_with_advice():
    pytest.importorskip("libtpu")
    topology = topologies.parse("v5e:2x2")
    replicated = jax.sharding.NamedSharding(
        make_mesh(1, topology.devices), jax.sharding.PartitionSpec()
    )
    # 20 GiB of argument alone.
    x = jax.ShapeDtypeStruct((5 * 2**20, 1024), jnp.float32, sharding=replicated)
    program = topologies.lower(jax.jit(lambda x: x.sum()), topology, x)
    with pytest.raises(ValueError, match=r"^a device of v5e:2x2 needs 20\.0 of 15\.75 GiB: try A$"):
        compile_for(topology, program, suggestions=["A"])
