"""The mesh, and which arrays of a state are sharded over it."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from vclip_jax.compilation import topologies
from vclip_jax.devices.sharding import (
    BATCH,
    MIN_SHARDED_SIZE,
    make_mesh,
    rows_of_process,
    state_sharding,
)

ALL = ((".*", "fsdp"),)


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def specs(state, fsdp: int, rules=ALL):
    return jax.tree.map(lambda s: s.spec, state_sharding(state, make_mesh(fsdp), rules))


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_the_mesh_has_fsdp_devices_along_one_axis_and_the_rest_along_the_other(fsdp):
    mesh = make_mesh(fsdp)
    assert dict(mesh.shape) == {"data": 8 // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.flat) == set(jax.devices())


def test_a_mesh_of_chosen_devices_has_those_only():
    mesh = make_mesh(2, jax.devices()[2:6])
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2}
    assert set(mesh.devices.flat) == set(jax.devices()[2:6])


@pytest.mark.parametrize("fsdp", [3, 16, 0, -1])
def test_a_size_that_does_not_divide_the_devices_is_refused_with_the_choices(fsdp):
    with pytest.raises(ValueError, match=rf"fsdp={fsdp} .* 8 devices.*\[1, 2, 4, 8\]"):
        make_mesh(fsdp)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((512, 128), ("fsdp", None)),
        ((128, 512), (None, "fsdp")),
        ((3, 3, 64, 256), (None, None, None, "fsdp")),
        ((1001, 512), (None, "fsdp")),  # the longest does not divide: the next
        ((2**16,), ("fsdp",)),
    ],
)
def test_the_longest_dimension_that_divides_is_sharded(shape, spec):
    assert specs({"w": array(*shape)}, 4)["w"] == PartitionSpec(*spec)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1024,),
        (2**8, 2**8 - 1),  # just below the smallest size
        (1001, 333),  # nothing divides
    ],
)
def test_small_and_indivisible_arrays_are_replicated(shape):
    assert specs({"w": array(*shape)}, 4)["w"] == PartitionSpec()


def test_the_smallest_sharded_array_has_the_stated_size():
    small, large = array(MIN_SHARDED_SIZE - 4), array(MIN_SHARDED_SIZE)
    assert specs([small, large], 4) == [PartitionSpec(), PartitionSpec("fsdp")]


def test_nothing_is_sharded_along_an_axis_of_one_device():
    state = {"w": array(512, 512)}
    assert specs(state, 1)["w"] == PartitionSpec()
    assert specs(state, 2)["w"] == PartitionSpec("fsdp", None)


def test_the_first_rule_that_is_found_decides():
    state = {
        "params": {"visual": {"kernel": array(512, 512)}, "bert": {"kernel": array(512, 512)}},
        "opt_state": [{"visual": {"kernel": array(512, 512)}}],
    }
    sharded, replicated = PartitionSpec("fsdp", None), PartitionSpec()
    rules = ((r"params/visual", "replicate"), (r"visual", "fsdp"), (r"params", "replicate"))
    placed = specs(state, 4, rules)
    assert placed["params"]["visual"]["kernel"] == replicated
    assert placed["opt_state"][0]["visual"]["kernel"] == sharded
    assert placed["params"]["bert"]["kernel"] == replicated
    turned = specs(state, 4, rules[::-1])
    assert turned["params"]["visual"]["kernel"] == replicated
    assert turned["opt_state"][0]["visual"]["kernel"] == sharded
    assert specs(state, 4, rules[1:])["params"]["visual"]["kernel"] == sharded


def test_rules_see_the_whole_path_and_without_one_an_array_is_replicated():
    state = {"params": {"layer1": [{"kernel": array(512, 512)}, {"kernel": array(512, 512)}]}}
    placed = specs(state, 4, ((r"^params/layer1/1/kernel$", "fsdp"),))["params"]["layer1"]
    assert placed[0]["kernel"] == PartitionSpec()
    assert placed[1]["kernel"] == PartitionSpec("fsdp", None)


@given(
    st.lists(st.sampled_from([1, 3, 4, 6, 8, 64, 100, 256, 1001, 2048]), max_size=4),
    st.sampled_from([2, 4, 8]),
)
@settings(max_examples=100, deadline=None)
def test_every_shape_splits_evenly_and_at_most_once(shape, fsdp):
    sharding = state_sharding(array(*shape), make_mesh(fsdp), ALL)
    part = sharding.shard_shape(tuple(shape))  # raises where it does not split evenly
    whole, piece = int(np.prod(shape)), int(np.prod(part))
    assert piece in (whole, whole // fsdp)
    if whole < MIN_SHARDED_SIZE:
        assert piece == whole
    elif any(length % fsdp == 0 for length in shape):
        assert piece == whole // fsdp


def test_a_sharded_array_takes_a_share_of_memory_on_every_device():
    mesh = make_mesh(4)
    values = np.arange(512 * 256, dtype=np.float32).reshape(512, 256)
    placed = jax.device_put(values, state_sharding(values, mesh, ALL))
    assert {shard.data.shape for shard in placed.addressable_shards} == {(128, 256)}
    np.testing.assert_array_equal(placed, values)


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_the_batch_lies_along_both_axes(fsdp):
    sharding = jax.sharding.NamedSharding(make_mesh(fsdp), BATCH)
    assert sharding.shard_shape((16, 5)) == (2, 5)


def mesh_of(order: list[int]) -> SimpleNamespace:
    places = np.array([SimpleNamespace(process_index=process) for process in order])
    return SimpleNamespace(devices=places, size=len(order))


def test_every_row_is_of_the_process_whose_device_stands_there(mesh_orders):
    for order in mesh_orders.values():
        mesh, owner = mesh_of(order), np.full(3 * len(order), -1)
        for process in set(order):
            rows = rows_of_process(mesh, 3 * len(order), process)
            assert (np.diff(rows) > 0).all()
            assert (owner[rows] == -1).all()
            owner[rows] = process
        np.testing.assert_array_equal(owner, np.repeat(order, 3))


def test_a_single_process_has_all_rows_in_order():
    np.testing.assert_array_equal(rows_of_process(make_mesh(2), 16), np.arange(16))


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    "name",
    [
        "v3:4x4",
        "v4:2x2x1",
        "v4:2x2x2",
        "v4:2x2x4",
        "v4:4x4x4",
        "v5p:2x2x2",
        "v5e:1x1",
        "v5e:2x2",
        "v5e:2x4",
        "v5e:4x4",
        "v5e:4x8",
        "v5e:8x8",
        "v5e:16x16",
        "2xv5e:2x4",
        "2xv5e:4x4",
        "v6e:4x4",
        "v6e:8x8",
        "7x:2x2x1",
        "7x:2x2x2",
        "2x7x:2x2x2",
    ],
)
def test_the_rows_of_a_process_are_those_that_jax_puts_on_its_devices(name, mesh_orders):
    pytest.importorskip("libtpu", reason="needs libtpu")
    devices = topologies.parse(name).devices
    for fsdp in (1, 4):
        if len(devices) % fsdp:
            continue
        mesh = make_mesh(fsdp, devices)
        size = 2 * len(devices)
        placed = NamedSharding(mesh, BATCH).devices_indices_map((size,))
        numbers = sorted({device.process_index for device in devices})
        for process in numbers:
            own = [range(size)[i[0]] for d, i in placed.items() if d.process_index == process]
            rows = sorted(itertools.chain.from_iterable(own))
            assert rows_of_process(mesh, size, process).tolist() == rows
        known = mesh_orders.get(name if fsdp == 1 else f"{name} fsdp={fsdp}")
        order = [numbers.index(device.process_index) for device in mesh.devices.flat]
        assert known is None or order == known


@pytest.mark.tpu_compile
@pytest.mark.parametrize("fsdp", [1, 4, 8, 16])
def test_slices_are_joined_along_the_data_axis(fsdp):
    pytest.importorskip("libtpu", reason="needs libtpu")
    from jax.experimental import topologies

    slices = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:4x4", num_slices=2
    ).devices
    mesh = make_mesh(fsdp, slices)
    assert dict(mesh.shape) == {"data": 32 // fsdp, "fsdp": fsdp}
    for row in mesh.devices:
        assert len({device.slice_index for device in row}) == 1
    with pytest.raises(ValueError, match=r"fsdp=32 does not divide the 16 devices of a slice"):
        make_mesh(32, slices)
