"""Names of topologies, and the devices that they stand for (these need libtpu or CUDA's plugin)."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vclip_jax.compilation import topologies
from vclip_jax.devices.sharding import make_mesh


@pytest.mark.parametrize(
    "name", ["v5e", "v5e:", "v5e:4x", "v5e:4x4x", ":4x4", "v5e 4x4", "v5e:4*4"]
)
def test_what_is_no_name_is_answered_with_examples(name):
    with pytest.raises(ValueError, match=r"write v5e:4x4, 2xv5e:4x4 for two slices, or h100:8"):
        topologies.parse(name)


@pytest.mark.parametrize("name", ["v9:4x4", "2xv9:4x4"])
def test_an_unknown_chip_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match="unknown chip 'v9'"):
        topologies.parse(name)


@pytest.mark.parametrize("name", ["h100:12", "h100:2x4", "2xh100:8"])
def test_gpus_are_counted_in_hosts_of_eight(name):
    with pytest.raises(ValueError, match="up to 8 or a multiple"):
        topologies.parse(name)


def test_a_gpu_without_a_description_is_refused():
    with pytest.raises(ValueError, match="use h100:8"):
        topologies.parse("a100:8")


@pytest.mark.parametrize(("name", "extra"), [("v5e:4x4", "tpu"), ("h100:8", "cuda")])
def test_what_is_not_installed_is_named(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=rf"pip install 'vclip_jax\[{extra}\]'"):
        topologies.parse(name)


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    ("name", "devices", "slices"),
    [
        # Cores are devices of v3 and 7x; chips are of the others.
        ("v3:2x2", 8, 1),
        ("v4:2x2x1", 4, 1),
        ("v5e:1x1", 1, 1),
        ("v5e:4x4", 16, 1),
        ("v5e:16x16", 256, 1),
        ("2xv5e:4x4", 32, 2),
        ("v5p:2x2x2", 8, 1),
        ("v6e:4x4", 16, 1),
        ("7x:2x2x1", 8, 1),
        ("tpu7x:2x2x1", 8, 1),
        ("2x7x:2x2x1", 16, 2),
    ],
)
def test_a_name_stands_for_devices_of_its_chip(name, devices, slices):
    pytest.importorskip("libtpu")
    topology = topologies.parse(name)
    assert (len(topology.devices), topology.slices) == (devices, slices)
    assert topology.devices[0].device_kind.startswith(topology.chip.device_kind)
    indices = {getattr(device, "slice_index", 0) for device in topology.devices}
    assert len(indices) == slices


@pytest.mark.tpu_compile
def test_a_slice_that_does_not_exist_is_one_line():
    pytest.importorskip("libtpu")
    with pytest.raises(ValueError, match="no such slice") as caught:
        topologies.parse("v5e:5x7")
    assert "\n" not in str(caught.value)


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    ("name", "module"), [("v5e:2x2", "libtpu"), ("h100:8", "jax_cuda12_plugin")]
)
def test_a_program_compiles_without_the_device(name, module):
    pytest.importorskip(module)
    topology = topologies.parse(name)
    mesh = make_mesh(1, topology.devices)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((64 * len(topology.devices), 128), jnp.bfloat16, sharding=rows)
    lowered = topologies.lower(jax.jit(lambda x: (x @ x.T).sum()), topology, x)
    assert "ENTRY" in lowered.compile().as_text()
