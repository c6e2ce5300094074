"""The training step: the same on every mesh, learns, clamps, and draws dropout from its step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from vclip_jax import config
from vclip_jax.devices import sharding
from vclip_jax.devices.tree import path_string
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import MAX_LOGIT_SCALE
from vclip_jax.models.losses import contrastive_loss
from vclip_jax.models.rng import seeded
from vclip_jax.train.optim import make_optimizer
from vclip_jax.train.state import TrainState, init_state, with_logit_bias
from vclip_jax.train.step import jit_train_step, make_train_step

STEPS = 5
RATE = 1e-3
MESHES = {"one": (1, 1), "data": (8, 1), "fsdp": (8, 4), "four": (4, 2)}
"""Name -> devices, and how many of them along `fsdp`."""
RULES = ((".*", "fsdp"),)
QUICK_COMPILE = {"xla_backend_optimization_level": 0}
"""For what runs once."""
SMALLEST = 2**8
"""Sharded from this size on, as a tiny model has nothing of the real threshold's size."""


def batch(seed: int, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Noise under a colour of its own, lest all images look alike.
    image = rng.integers(0, 64, (size, 32, 32, 3)) + rng.integers(0, 192, (size, 1, 1, 3))
    tokens = rng.integers(1, 50, (size, 10)) * (np.arange(10) < rng.integers(3, 11, (size, 1)))
    caption_id = rng.integers(0, size // 2, size)
    return {
        "image": image.astype(np.uint8),
        "tokens": tokens.astype(np.int32),
        "caption_id": caption_id.astype(np.int32),
    }


@pytest.fixture(scope="module")
def optimizer():
    settings = config.default().optimizer
    settings.update({"learning_rate": RATE, "warmup_steps": 1})
    return make_optimizer(settings, 100)


@pytest.fixture(scope="module")
def graphdef(tiny_clip):
    return split_model(nnx.eval_shape(lambda: tiny_clip(seeded(0))))[0]


@pytest.fixture(scope="module")
def initial(tiny_clip, optimizer) -> TrainState:
    """The state at step 0, on the host."""
    init = functools.partial(init_state, tiny_clip, optimizer, 0)
    return jax.device_get(jax.jit(init)())


@pytest.fixture(scope="module")
def compiled(graphdef, optimizer, initial):
    """Mesh name -> the jitted step and functions that place states and batches on it."""

    @functools.cache
    def get(name):
        devices, fsdp = MESHES[name]
        # Devices in another order, as the network may have them, and rows that stay where they are.
        mesh = sharding.make_mesh(fsdp, jax.devices()[:devices][::-1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sharding, "MIN_SHARDED_SIZE", SMALLEST)
            state = sharding.state_sharding(initial, mesh, RULES)
        step = make_train_step(graphdef, optimizer, seed=0, mesh=mesh, placement=state)
        jitted = jit_train_step(step, mesh, state)
        rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
        return (
            jitted,
            functools.partial(jax.device_put, device=state),
            functools.partial(jax.device_put, device=rows),
        )

    return get


@pytest.fixture(scope="module")
def runs(compiled, initial):
    """Mesh name -> metrics of five steps on five batches, and the state after them."""

    @functools.cache
    def run(name):
        step, place_state, place_batch = compiled(name)
        state, log = place_state(initial), []
        for index in range(STEPS):
            state, metrics = step(state, place_batch(batch(index)))
            log.append({key: float(value) for key, value in metrics.items()})
        return log, state

    return run


def leaves(tree) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {path_string(path): np.asarray(leaf, np.float64) for path, leaf in flat}


# --- meshes --------------------------------------------------------------------------------------

# "fsdp" has both axes.
OTHERS = pytest.mark.parametrize("name", [pytest.param("data", marks=pytest.mark.slow), "fsdp"])


@OTHERS
def test_every_mesh_gives_the_metrics_of_one_device(runs, name):
    # Sums in another order: rounding of 2^-24 through some twenty layers, five times over.
    for got, want in zip(runs(name)[0], runs("one")[0], strict=True):
        assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)
        assert got["grad_norm"] == pytest.approx(want["grad_norm"], rel=1e-5)
        assert got["logit_scale"] == pytest.approx(want["logit_scale"], rel=1e-5)


@OTHERS
def test_every_mesh_gives_the_parameters_of_one_device(runs, initial, name):
    # Adam divides a gradient by its own size. So where the gradient is near zero, rounding decides
    # the direction of a full step, and differences are to be measured against what a parameter
    # moved, not against 2^-24 of its value. Among n gradients of order 1 that carry errors of about
    # 1e-6, a share of 1e-6 is that small, so the norm of the difference is about sqrt(1e-6) of the
    # norm of the update: 0.1 %, which is what is seen, and five times that is allowed. A wrong
    # reduction over devices gives 100 %.
    # The biases of keys are all noise: they add the same to every score of a softmax, so their
    # gradient is zero but for rounding, and all to be said is that no step exceeds Adam's.
    start, one, other = (leaves(state.params) for state in (initial, runs("one")[1], runs(name)[1]))
    for path, values in one.items():
        moved = np.linalg.norm(values - start[path])
        apart = np.linalg.norm(other[path] - values)
        if path.endswith(("key/bias", "k_proj/bias")):
            assert apart <= 2 * STEPS * RATE * 1.1 * math.sqrt(values.size), path
        else:
            assert moved > 0, path
            assert apart <= 5e-3 * moved, path


@OTHERS
def test_every_mesh_gives_the_batch_statistics_of_one_device(runs, name):
    one, other = (leaves(state.batch_stats) for state in (runs("one")[1], runs(name)[1]))
    for path, values in one.items():
        # Rounding, and that of the parameters above, in activations of order 1.
        np.testing.assert_allclose(other[path], values, rtol=1e-4, atol=1e-5, err_msg=path)


def test_states_lie_where_the_mesh_says(runs):
    rows = {}
    for name in ("one", "fsdp"):
        kernel = runs(name)[1].params["visual"]["attnpool"]["q_proj"]["kernel"]
        rows[name] = kernel.sharding.shard_shape(kernel.shape)[0]
    assert rows == {"one": 256, "fsdp": 64}
    state = runs("fsdp")[1]
    for tree in (state.params, state.opt_state):
        sharded = [leaf for leaf in jax.tree.leaves(tree) if not leaf.sharding.is_fully_replicated]
        assert sum(leaf.size for leaf in sharded) > 0.9 * sum(x.size for x in jax.tree.leaves(tree))


def test_a_step_is_deterministic_and_counted(compiled, initial, runs):
    step, place_state, place_batch = compiled("one")
    state, metrics = step(place_state(initial), place_batch(batch(0)))
    assert float(metrics["loss"]) == runs("one")[0][0]["loss"]
    again, _ = step(place_state(initial), place_batch(batch(0)))
    jax.tree.map(np.testing.assert_array_equal, state, again)
    assert (int(initial.step), int(state.step), int(runs("one")[1].step)) == (0, 1, STEPS)


# --- learning ------------------------------------------------------------------------------------


def test_the_loss_of_a_batch_seen_again_and_again_falls(compiled, initial):
    step, place_state, place_batch = compiled("one")
    state, same, losses = place_state(initial), place_batch(batch(0)), []
    for _ in range(40):
        state, metrics = step(state, same)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.2 * math.log(16)


@pytest.mark.parametrize(
    ("before", "low", "high"),
    [
        (4.7, MAX_LOGIT_SCALE, MAX_LOGIT_SCALE),
        (-0.1, 0.0, 0.0),
        (2.0, 2.0 - 2 * RATE, 2.0 + 2 * RATE),
    ],
)
def test_the_logit_scale_is_clamped_after_the_step(compiled, initial, before, low, high):
    step, place_state, place_batch = compiled("one")
    params = initial.params | {"logit_scale": np.float32(before)}
    state, metrics = step(place_state(initial.replace(params=params)), place_batch(batch(0)))
    assert np.float32(low) <= float(state.params["logit_scale"]) <= np.float32(high)
    assert float(metrics["logit_scale"]) == pytest.approx(math.exp(before), rel=1e-6)


# --- dropout -------------------------------------------------------------------------------------


def test_dropout_is_a_function_of_seed_and_step(tiny_clip, optimizer, initial):
    model = nnx.eval_shape(lambda: tiny_clip(seeded(0), text_dropout=0.5))
    graphdef = split_model(model)[0]

    @jax.jit
    def run(state, seed):
        return make_train_step(graphdef, optimizer, seed)(state, batch(0))[1]["loss"]

    def loss(seed, step):
        return float(run(initial.replace(step=np.int32(step)), seed))

    first = loss(0, 0)
    assert loss(0, 0) == first
    others = [loss(*key) for key in [(0, 1), (0, 2), (1, 0), (1, 1)]]
    assert len({first, *others}) == 5


# --- the batch in parts, on devices and in turn --------------------------------------------------

ROWS = np.arange(16)


@pytest.fixture(scope="module")
def reference(tiny_clip, initial):
    """Loss, gradients and batch statistics of a batch that is encoded in so many parts, written
    down plainly: a forward pass each, one loss."""
    known: dict = {}

    def get(parts: int, statistics_of, order=ROWS, **changes):
        key = (parts, statistics_of, tuple(order), *changes.items())
        if key not in known:
            known[key] = compute(parts, statistics_of, order, changes)
        return known[key]

    def compute(parts, statistics_of, order, changes):
        graphdef = split_model(nnx.eval_shape(lambda: tiny_clip(seeded(0), **changes)))[0]
        key = jax.random.fold_in(jax.random.key(0), 0)

        def loss(params, pairs):
            images, texts, statistics = [], [], []
            for part in np.split(order, parts):
                model = nnx.merge(graphdef, params, jax.tree.map(jnp.asarray, initial.batch_stats))
                images.append(model.encode_image(pairs["image"][part], train=True))
                keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(part)
                texts.append(model.encode_text(pairs["tokens"][part], keys=keys))
                statistics.append(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
            image, text = jnp.concatenate(images), jnp.concatenate(texts)
            logits = jnp.exp(params["logit_scale"]) * image @ text.T
            own = jnp.diag(logits)
            rows, columns = (jax.nn.logsumexp(logits, axis=a) for a in (0, 1))
            return ((rows + columns) / 2 - own).mean(), statistics_of(statistics)

        both = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK_COMPILE)
        (value, statistics), grads = both(initial.params, batch(0))
        return float(value), leaves(grads), leaves(statistics)

    return get


def mean_of(trees):
    return jax.tree.map(lambda *x: sum(x) / len(x), *trees)


def step_of(tiny_clip, initial, name, changes, **choices):
    """Loss, gradients and batch statistics of the step under test."""
    graphdef = split_model(nnx.eval_shape(lambda: tiny_clip(seeded(0), **changes)))[0]
    descent = optax.sgd(1.0)
    start = initial.replace(opt_state=descent.init(initial.params))
    devices, fsdp = MESHES[name]
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "MIN_SHARDED_SIZE", SMALLEST)
        placement = sharding.state_sharding(start, mesh, RULES)
    # The clamp after a step of this size would hide the logit scale's gradient.
    choices |= {"mesh": mesh, "placement": placement, "clamp": "forward"}
    step = make_train_step(graphdef, descent, 0, **choices)
    rows = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    state, metrics = jax.jit(step, compiler_options=QUICK_COMPILE)(
        jax.device_put(start, placement), jax.device_put(batch(0), rows)
    )
    before, after = leaves(initial.params), leaves(state.params)
    grads = {path: before[path] - after[path] for path in before}
    return float(metrics["loss"]), grads, leaves(state.batch_stats)


def assert_same(got, want):
    assert got[0] == pytest.approx(want[0], rel=1e-5)
    for path, gradient in want[1].items():
        # A difference of parameters of order 1 is exact to 2^-24.
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(
            got[1][path], gradient, rtol=1e-4, atol=1e-4 * largest + 3e-7, err_msg=path
        )
    for path, values in want[2].items():
        np.testing.assert_allclose(got[2][path], values, rtol=1e-5, atol=1e-6, err_msg=path)


DROPOUT = {"text_dropout": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "fsdp"])
def test_dropout_does_not_depend_on_the_mesh(tiny_clip, initial, reference, name):
    want = reference(1, mean_of, **DROPOUT)
    assert_same(step_of(tiny_clip, initial, name, DROPOUT), want)


@pytest.mark.slow
def test_micro_batches_with_dropout_and_norms_are_those_of_the_whole_batch(
    tiny_clip, initial, reference
):
    want = reference(2, mean_of, **DROPOUT)
    assert_same(step_of(tiny_clip, initial, "one", DROPOUT, micro_batches=2), want)


@pytest.mark.slow
def test_micro_batches_have_the_gradients_of_the_whole_batch(light):
    _, graphdef, initial = light
    whole, parts = (gradients(graphdef, initial, micro_batches=n) for n in (1, 4))
    for name, gradient in whole.items():
        # A difference of parameters of order 1 is exact to 2^-24.
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(
            parts[name], gradient, rtol=1e-5, atol=1e-5 * largest + 3e-7, err_msg=name
        )


@pytest.mark.slow
def test_micro_batches_of_several_devices_are_normalised_together(tiny_clip, initial, reference):
    # Device d has rows 2d and 2d + 1, the first of which is in its first part.
    want = reference(2, mean_of, ROWS.reshape(8, 2).T.ravel())
    assert_same(step_of(tiny_clip, initial, "data", {}, micro_batches=2), want)


@pytest.mark.slow
def test_norms_per_device_see_its_rows_and_keep_the_first_ones_statistics(
    tiny_clip, initial, reference
):
    changes = {"per_device_norm": True}
    want = reference(4, lambda trees: trees[0], **changes)
    assert_same(step_of(tiny_clip, initial, "four", changes), want)


@pytest.mark.slow
@pytest.mark.parametrize(
    "remat",
    [{"image": "norms", "text": "products"}, {"image": "blocks", "text": "blocks"}],
)
def test_what_is_computed_again_is_the_same(tiny_clip, initial, reference, remat):
    want = reference(1, mean_of, **DROPOUT)
    assert_same(step_of(tiny_clip, initial, "data", DROPOUT, remat=remat), want)


# --- choices of the reference --------------------------------------------------------------------


@pytest.fixture(scope="module")
def light(tiny_clip, optimizer):
    """What makes a model without convolutions, which compiles fast; its structure; its state."""
    make = functools.partial(tiny_clip, vision_layers=(1,), vision_width=64)
    graphdef = split_model(nnx.eval_shape(lambda: make(seeded(0))))[0]
    init = functools.partial(init_state, make, optimizer, 0)
    return make, graphdef, jax.device_get(jax.jit(init)())


def gradients(graphdef, initial, **choices) -> dict[str, np.ndarray]:
    """The gradient of every parameter: what plain gradient descent with rate 1 subtracts."""
    descent = optax.sgd(1.0)
    start = TrainState(
        initial.step, initial.params, initial.batch_stats, descent.init(initial.params)
    )
    step = jax.jit(make_train_step(graphdef, descent, seed=0, **choices))
    after = leaves(step(start, batch(0))[0].params)
    before = leaves(initial.params)
    return {name: before[name] - after[name] for name in before}


@pytest.mark.slow
def test_a_gather_without_gradient_divides_those_of_the_towers_by_the_devices(light):
    _, graphdef, initial = light
    full = gradients(graphdef, initial)
    local = gradients(graphdef, initial, feature_gradient=0.25)
    for name, gradient in full.items():
        share = 1.0 if name == "logit_scale" else 0.25
        # A difference of parameters of order 1 is exact to 2^-24.
        np.testing.assert_allclose(local[name], share * gradient, rtol=1e-5, atol=3e-7)


def test_a_clamp_in_the_forward_pass_leaves_the_parameter_and_stops_its_gradient(light):
    _, graphdef, initial = light
    high = initial.replace(params=initial.params | {"logit_scale": np.float32(5.0)})
    assert gradients(graphdef, high, clamp="forward")["logit_scale"] == 0
    limit = initial.replace(params=initial.params | {"logit_scale": np.float32(np.log(100))})
    got, want = (gradients(graphdef, s, clamp="forward") for s in (high, limit))
    for name in got.keys() - {"logit_scale"}:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=3e-7)


@pytest.mark.slow
def test_half_initialisation_rounds_weights_and_spares_single_parameters(
    tiny_clip, optimizer, initial
):
    init = functools.partial(init_state, tiny_clip, optimizer, 0, half=True)
    plain, rounded = leaves(initial.params), leaves(jax.jit(init)().params)
    for name, value in plain.items():
        spared = name in ("logit_scale", "visual/attnpool/positional_embedding")
        half = rounded[name].astype(np.float16).astype(np.float64)
        assert spared or (half == rounded[name]).all()
        # Two compilations of the same draw may differ in its last bit.
        bits = 22 if spared else 10
        np.testing.assert_allclose(rounded[name], value, rtol=2.0**-bits, atol=2.0**-24)
    assert (rounded["text_projection"] != plain["text_projection"]).any()


# --- losses --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_bias(light):
    """Structure and initial state of the light model with a logit bias."""
    make, _, initial = light
    graphdef = split_model(nnx.eval_shape(lambda: with_logit_bias(make)(seeded(0))))[0]
    bias = {"logit_bias": np.float32(-10), "logit_scale": np.float32(math.log(10))}
    return graphdef, initial.replace(params=initial.params | bias)


@pytest.mark.parametrize("kind", ["softmax_ring", "sigmoid_ring"])
def test_a_ring_of_devices_gives_the_gradients_of_the_global_view(light, with_bias, kind):
    structure, start = with_bias if kind.startswith("sigmoid") else light[1:]
    loss = functools.partial(contrastive_loss, kind=kind, mesh=sharding.make_mesh(4))
    whole = functools.partial(contrastive_loss, kind=kind.removesuffix("_ring"))
    got, want = (
        gradients(structure, start, loss=function, targets="caption") for function in (loss, whole)
    )
    assert ("logit_bias" in want) == kind.startswith("sigmoid")
    for name in want:
        largest = np.abs(want[name]).max()
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5 * largest + 3e-7)


def test_captions_are_targets_only_where_the_config_says_so(light):
    _, graphdef, initial = light
    default, pair, caption = (
        gradients(graphdef, initial, **choice)
        for choice in ({}, {"targets": "pair"}, {"targets": "caption"})
    )
    assert all((pair[name] == default[name]).all() for name in default)
    assert (caption["text_projection"] != pair["text_projection"]).any()


def test_a_sigmoid_starts_at_its_papers_bias_and_temperature_and_trains_both(
    light, optimizer, with_bias
):
    make = with_logit_bias(light[0])
    start = jax.jit(functools.partial(init_state, make, optimizer, 0, half=True))()
    assert float(start.params["logit_bias"]) == -10
    assert float(start.params["logit_scale"]) == pytest.approx(math.log(10), rel=1e-6)
    loss = functools.partial(contrastive_loss, kind="sigmoid")
    step = jax.jit(make_train_step(with_bias[0], optimizer, seed=0, loss=loss))
    state, metrics = step(start, batch(0))
    assert float(metrics["logit_bias"]) == -10
    assert float(metrics["logit_scale"]) == pytest.approx(10, rel=1e-6)
    # Adam's first step is of the learning rate's size; the bias is not decayed, which would add
    # another fifth of ten times that.
    assert float(state.params["logit_bias"]) == pytest.approx(-10 + RATE, abs=1e-5)
    assert state.params["logit_scale"] != start.params["logit_scale"]
