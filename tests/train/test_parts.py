"""Partial training: which parameters change, and that all others keep their bits."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from vclip_jax.devices import sharding
from vclip_jax.devices.tree import path_string
from vclip_jax.models.build import split_model
from vclip_jax.models.rng import seeded
from vclip_jax.train import parts
from vclip_jax.train.build import with_parts
from vclip_jax.train.state import init_state
from vclip_jax.train.step import jit_train_step, make_train_step

QUICK = {"xla_backend_optimization_level": 0}
FULL = {"image": "full", "text": "full"}
BLOCKS = {"image": "last:2", "text": "head"}
CHOICES = [
    BLOCKS,
    pytest.param({"image": "frozen", "text": "full"}, marks=pytest.mark.slow),
    pytest.param({"image": "head", "text": "frozen"}, marks=pytest.mark.slow),
    pytest.param({"image": "lora:2", "text": "lora:3"}, marks=pytest.mark.slow),
]
LORA = {"lora_alpha": 8.0, "lora_targets": ""}


def batch(seed: int, size: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (size, 32, 32, 3)).astype(np.uint8),
        "tokens": rng.integers(1, 50, (size, 10)).astype(np.int32),
    }


def shapes_of(make):
    return nnx.eval_shape(lambda: split_model(make(seeded(0)))[1])


def leaves(tree) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x) for p, x in flat}


def changed(before, after) -> set[str]:
    old, new = leaves(before), leaves(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name].tobytes() != new[name].tobytes()}


def compiled(init):
    return jax.jit(init, compiler_options=QUICK)()


def started(tiny_clip, train, optimizer, run=compiled, **model):
    """Return the structure of a model, its state at step 0 and the names of what is trained."""
    make, names = with_parts(functools.partial(tiny_clip, **model), LORA | train)
    names = names or frozenset(parts.names_in(shapes_of(make)))
    graphdef = split_model(nnx.eval_shape(lambda: make(seeded(0))))[0]
    init = functools.partial(init_state, make, optimizer, 0, trained=names)
    return graphdef, run(init), names


def _without_zero_scale(path, leaf):
    return leaf + 0.5 if path_string(path).endswith("bn3/scale") else leaf


@pytest.mark.parametrize("train", CHOICES, ids=lambda train: "-".join(train.values()))
def test_what_is_frozen_keeps_its_bits_for_twenty_steps(tiny_clip, train):
    optimizer = optax.adamw(1e-2)
    graphdef, first, names = started(tiny_clip, train, optimizer, text_dropout=0.1)
    # The last scale of a residual block starts at 0; frozen at 0, it would stop all gradients.
    first = first.replace(
        params=jax.tree_util.tree_map_with_path(_without_zero_scale, first.params)
    )
    # Three micro-batches: the mean of three equal values may be another value.
    step = jax.jit(
        make_train_step(graphdef, optimizer, seed=0, trained=names, micro_batches=3),
        compiler_options=QUICK,
    )
    state, losses = first, []
    for index in range(20):
        state, metrics = step(state, batch(index % 2))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert changed(first.params, state.params) == names
    moved = changed(first.batch_stats, state.batch_stats)
    norms = {name.rpartition("/")[0] for name in leaves(first.batch_stats)}
    trained_norms = {norm for norm in norms if f"{norm}/scale" in names}
    assert {name.rpartition("/")[0] for name in moved} == trained_norms
    moments = {name.partition("/mu/")[2] for name in leaves(state.opt_state) if "/mu/" in name}
    assert moments == names


def test_the_gradients_of_what_is_trained_are_those_of_full_training(tiny_clip):
    descent = optax.sgd(1.0)
    updates = []
    for train in (FULL, {"image": "full", "text": "head"}):
        graphdef, first, names = started(tiny_clip, train, descent)
        step = jax.jit(
            make_train_step(graphdef, descent, seed=0, trained=names), compiler_options=QUICK
        )
        after = leaves(step(first, batch(0))[0].params)
        before = leaves(first.params)
        updates.append({name: after[name] - before[name] for name in names})
    full, part = updates
    assert set(part) == {name for name in full if not name.startswith("bert/")}
    for name in part:
        np.testing.assert_allclose(part[name], full[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_mesh_with_shares_of_parameters_freezes_the_same(tiny_clip, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 2**8)
    optimizer = optax.adamw(1e-2)
    graphdef, first, names = started(tiny_clip, BLOCKS, optimizer)
    one = jax.jit(
        make_train_step(graphdef, optimizer, seed=0, trained=names), compiler_options=QUICK
    )(first, batch(0))
    mesh = sharding.make_mesh(2, jax.devices()[:4])
    place = sharding.state_sharding(first, mesh, ((".*", "fsdp"),))
    step = make_train_step(graphdef, optimizer, 0, mesh=mesh, placement=place, trained=names)
    rows = jax.device_put(batch(0), jax.sharding.NamedSharding(mesh, sharding.BATCH))
    placed = jax.device_put(jax.device_get(first), place)
    state, metrics = jit_train_step(step, mesh, place, QUICK)(placed, rows)
    assert float(metrics["loss"]) == pytest.approx(float(one[1]["loss"]), rel=1e-5)
    assert float(metrics["grad_norm"]) == pytest.approx(float(one[1]["grad_norm"]), rel=1e-4)
    # Some gradients are zero in the first step, because each block's last scale is.
    assert changed(first.params, state.params) == changed(first.params, one[0].params) < names


def test_frozen_parts_cost_no_gradient(tiny_clip):
    def operations(train) -> float:
        optimizer = optax.adamw(1e-2)
        graphdef, first, names = started(tiny_clip, train, optimizer, run=jax.eval_shape)
        step = jax.jit(make_train_step(graphdef, optimizer, seed=0, trained=names))
        return step.lower(first, batch(0)).cost_analysis()["flops"]

    full = operations(FULL)
    assert operations({"image": "frozen", "text": "full"}) < 0.6 * full
    assert operations({"image": "head", "text": "frozen"}) < 0.5 * full


VIT = {"vision_layers": (12,), "vision_width": 64, "vision_patch_size": 16}


@pytest.mark.parametrize(
    ("model", "train", "expected"),
    [
        (
            {"vision_layers": (1, 2, 1, 2)},
            {"image": "last:3", "text": "frozen"},
            ("visual/attnpool/", "visual/layer3/0/", "visual/layer4/0/", "visual/layer4/1/"),
        ),
        (
            VIT,
            {"image": "last:2", "text": "frozen"},
            (
                "visual/ln_post/",
                "visual/proj",
                "visual/transformer/resblocks/10/",
                "visual/transformer/resblocks/11/",
            ),
        ),
        (
            {"text_layers": 3},
            {"image": "frozen", "text": "last:1"},
            ("bert/layer/2/", "text_projection"),
        ),
        ({}, {"image": "frozen", "text": "head"}, ("text_projection",)),
    ],
)
def test_the_last_blocks_are_the_last_by_number(tiny_clip, model, train, expected):
    every = parts.names_in(shapes_of(functools.partial(tiny_clip, **model)))
    names = parts.trained_names(train, every) - {"logit_scale"}
    assert names == {name for name in every if name.startswith(expected)}
    assert all(any(name.startswith(start) for name in names) for start in expected)


def low_rank_names(tiny_clip, **train) -> dict[str, tuple[int, ...]]:
    train = {"image": "lora:2", "text": "frozen"} | LORA | train
    make, names = with_parts(functools.partial(tiny_clip, text_layers=2), train)
    shapes = leaves(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes_of(make)))
    return {name: shapes[name].shape for name in names if "/low_rank/" in name}


def test_low_rank_parts_are_in_blocks_alone_and_where_the_targets_say(tiny_clip):
    every = low_rank_names(tiny_clip, text="lora:3")
    assert every["visual/layer1/0/conv2/low_rank/down"] == (3, 3, 8, 2)
    assert every["visual/layer1/0/conv2/low_rank/up"] == (2, 8)
    assert every["bert/layer/1/attention/self_/query/low_rank/down"] == (16, 3)
    assert not any(name.startswith(("visual/conv", "visual/attnpool")) for name in every)
    chosen = low_rank_names(tiny_clip, text="lora:3", image="head", lora_targets="(query|value)$")
    assert {name.rsplit("/", 2)[0] for name in chosen} == {
        f"bert/layer/{layer}/attention/self_/{part}"
        for layer in (0, 1)
        for part in ("query", "value")
    }
    with pytest.raises(ValueError, match="lora_targets matches no layer"):
        low_rank_names(tiny_clip, lora_targets="q_proj")


def test_parts_that_a_tower_lacks_are_refused(tiny_clip):
    every = parts.names_in(shapes_of(tiny_clip))
    with pytest.raises(ValueError, match=r"config.train.image='last:5': this tower has 4 blocks"):
        parts.trained_names({"image": "last:5", "text": "full"}, every)
    with pytest.raises(ValueError, match="this tower has no parameter called proj or attnpool"):
        parts.trained_names({"image": "head", "text": "full"}, ["visual/own", "text_projection"])


def test_statistics_that_cannot_be_frozen_are_refused(tiny_clip):
    model = tiny_clip(seeded(0))
    model.visual.own = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    every = parts.names_in(split_model(model)[1])
    parts.check_statistics(model, {"visual/own/scale"})
    with pytest.raises(ValueError, match="the statistics of visual/own cannot be frozen"):
        parts.check_statistics(model, set(every) - {"visual/own/scale"})
