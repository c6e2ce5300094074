"""The contrastive losses and their gradients against NumPy in float64, on every mesh, and their
symmetries."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from vclip_jax.devices.sharding import AXES, BATCH, make_mesh
from vclip_jax.models.losses import INITIAL_SIGMOID_BIAS, KINDS, contrastive_loss

value_and_grad = jax.jit(jax.value_and_grad(contrastive_loss, argnums=(0, 1, 2)))
loss = jax.jit(contrastive_loss)

# Few distinct shapes, because each is compiled.
sizes = st.tuples(st.integers(1, 5), st.sampled_from([1, 4]), st.integers(0, 2**32 - 1))
scales = st.floats(0, math.log(100))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pairs(b: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two towers' unit vectors that float32 holds exactly, as float64."""
    rng = np.random.default_rng(seed)
    towers = (unit(rng.standard_normal((b, d))) for _ in range(2))
    image, text = (tower.astype(np.float32).astype(np.float64) for tower in towers)
    return image, text


def reference(image, text, logit_scale) -> float:
    """The cross-entropy of both softmaxes, spelt out."""
    logits = np.exp(logit_scale) * image @ text.T
    rows = np.diagonal(scipy.special.log_softmax(logits, axis=1))
    columns = np.diagonal(scipy.special.log_softmax(logits, axis=0))
    return -(rows.mean() + columns.mean()) / 2


def central_difference(function, x: np.ndarray) -> np.ndarray:
    step, gradient = 1e-5, np.empty_like(x)
    for index in np.ndindex(x.shape):
        low, high = x.copy(), x.copy()
        low[index] -= step
        high[index] += step
        gradient[index] = (function(high) - function(low)) / (2 * step)
    return gradient


def single(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


@given(sizes, scales)
@settings(max_examples=40, deadline=None)
def test_value_and_gradients_equal_float64(size, logit_scale):
    image, text = pairs(*size)
    logit_scale = float(np.float32(logit_scale))
    got, grads = value_and_grad(*single(image, text, logit_scale))
    # Logits of up to 100 carry float32 errors of 100 * 2^-24 = 6e-6 or a few of those; gradients
    # with respect to embeddings multiply them by the scale once more.
    scale = math.exp(logit_scale)
    error = 4 * scale * 2**-24 + 1e-6
    assert float(got) == pytest.approx(reference(image, text, logit_scale), abs=error, rel=1e-6)
    want = (
        central_difference(lambda x: reference(x, text, logit_scale), image),
        central_difference(lambda x: reference(image, x, logit_scale), text),
        central_difference(lambda x: reference(image, text, x), np.array(logit_scale)),
    )
    for left, right in zip(grads, want, strict=True):
        np.testing.assert_allclose(left, right, atol=scale * error + 1e-6, rtol=1e-5)


@given(sizes, scales)
@settings(max_examples=25, deadline=None)
def test_the_towers_may_change_places(size, logit_scale):
    image, text = pairs(*size)
    one, other = single(image, text)
    scale = jnp.float32(logit_scale)
    error = 4 * math.exp(logit_scale) * 2**-24 + 1e-6
    assert float(loss(one, other, scale)) == pytest.approx(
        float(loss(other, one, scale)), abs=error, rel=1e-6
    )


@given(sizes, scales)
@settings(max_examples=25, deadline=None)
def test_the_order_of_pairs_does_not_matter_but_who_is_paired_does(size, logit_scale):
    image, text = pairs(*size)
    order = np.random.default_rng(size[2]).permutation(len(image))
    scale = jnp.float32(logit_scale)
    error = 4 * math.exp(logit_scale) * 2**-24 + 1e-6
    straight = float(loss(*single(image, text), scale))
    permuted = float(loss(*single(image[order], text[order]), scale))
    assert permuted == pytest.approx(straight, abs=error, rel=1e-6)
    apart = reference(image[order], text, logit_scale)
    assert float(loss(*single(image[order], text), scale)) == pytest.approx(
        apart, abs=error, rel=1e-6
    )


@given(st.integers(1, 5), scales)
@settings(max_examples=25, deadline=None)
def test_a_collapsed_model_has_the_logarithm_of_the_batch_size(b, logit_scale):
    point = np.repeat(pairs(1, 4, b)[0], b, axis=0)
    got = loss(*single(point, point), jnp.float32(logit_scale))
    # logsumexp of b equal logits of up to 100, less the logit.
    assert float(got) == pytest.approx(math.log(b), abs=100 * 2**-22)


def test_aligned_orthogonal_pairs_have_almost_no_loss_at_the_largest_scale():
    eye = jnp.eye(5)
    assert float(loss(eye, eye, jnp.float32(math.log(100)))) == pytest.approx(0, abs=1e-6)
    # And the exact value at scale 1: log(e + b - 1) - 1.
    want = math.log(math.e + 4) - 1
    assert float(loss(eye, eye, jnp.float32(0))) == pytest.approx(want, rel=1e-6)


def test_a_batch_of_one_pair_has_no_loss_and_no_gradient():
    value, grads = value_and_grad(*single(*pairs(1, 4, 0), 2.0))
    assert float(value) == 0
    assert not any(np.asarray(grad).any() for grad in grads)


def test_bfloat16_embeddings_give_a_float32_loss():
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in pairs(5, 4, 1))
    got = loss(image, text, jnp.float32(2.0))
    assert got.dtype == jnp.float32
    want = reference(np.asarray(image, np.float64), np.asarray(text, np.float64), 2.0)
    assert float(got) == pytest.approx(want, rel=1e-5)


def test_the_loss_of_a_sharded_batch_is_that_of_the_global_batch():
    image, text = single(*pairs(8, 4, 2))
    scale = jnp.float32(3.0)
    sharding = jax.sharding.NamedSharding(make_mesh(2), BATCH)
    value, grads = value_and_grad(*jax.device_put((image, text), sharding), scale)
    want, want_grads = value_and_grad(image, text, scale)
    assert len(grads[0].sharding.device_set) == 8
    assert float(value) == pytest.approx(float(want), rel=1e-6)
    for left, right in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


# --- All kinds, with groups, smoothing and meshes -------------------------------------------------

MESHES = {"1": (1, 1), "2": (2, 1), "4": (4, 1), "8": (8, 1), "2x4": (8, 4)}
"""Name -> devices, and how many of them along `fsdp`."""
each_kind = pytest.mark.parametrize("kind", KINDS)
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1])
seeds = st.integers(0, 2**32 - 1)


def takes_bias(kind: str) -> bool:
    return kind.startswith("sigmoid")


def mesh_of(name: str):
    devices, fsdp = MESHES[name]
    return make_mesh(fsdp, jax.devices()[:devices])


@functools.cache
def compiled(kind: str, mesh: str | None = None, smoothing: float = 0.0):
    """Value and gradients as `(image, text, logit_scale, logit_bias, group)` to arrays; the bias is
    left out where there is none, and `mesh` None is the global view."""
    biased = takes_bias(kind)

    def call(image, text, logit_scale, logit_bias, group):
        return contrastive_loss(
            image,
            text,
            logit_scale,
            kind=kind,
            logit_bias=logit_bias if biased else None,
            group=group,
            label_smoothing=smoothing,
            mesh=None if mesh is None else mesh_of(mesh),
        )

    gradient = jax.value_and_grad(call, argnums=(0, 1, 2, 3) if biased else (0, 1, 2))
    return jax.jit(gradient)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


def reference_of(kind, image, text, logit_scale, logit_bias, group, smoothing=0.0) -> float:
    """Every kind's loss in float64 from its definition, a loop over pairs and their partners."""
    b = len(image)
    group = np.arange(b) if group is None else group
    total = 0.0
    logits = np.exp(logit_scale) * image @ text.T
    for i in range(b):
        same = np.array([float(group[i] == group[j]) for j in range(b)])
        if takes_bias(kind):
            target = (1 - smoothing) * same + smoothing / 2
            row = logits[i] + logit_bias
            total -= np.sum(target * log_sigmoid(row) + (1 - target) * log_sigmoid(-row))
        else:
            target = (1 - smoothing) * same / same.sum() + smoothing / b
            total -= target @ scipy.special.log_softmax(logits[i]) / 2
            total -= target @ scipy.special.log_softmax(logits[:, i]) / 2
    return total / b


def groups_of(b: int, seed: int) -> np.ndarray:
    """Some pairs alone, some in twos, threes and more; any int32."""
    rng = np.random.default_rng(seed)
    return rng.integers(-(2**31), 2**31, 4, np.int64).astype(np.int32)[rng.integers(0, 4, b)]


def close(got, want, tolerance: float) -> None:
    """Of arrays: to a share of the largest number, which is what carries the rounding."""
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        right = np.asarray(right, np.float64)
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * np.abs(right).max())


@each_kind
@each_smoothing
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("mesh", [None, "2x4"])
def test_every_kind_equals_its_definition_in_float64(kind, smoothing, grouped, mesh):
    image, text = pairs(16, 4, 3)
    scale, bias = float(np.float32(2.3)), -3.0
    group = groups_of(16, 3) if grouped else None
    value, grads = compiled(kind, mesh, smoothing)(*single(image, text, scale, bias), group)
    at = functools.partial(reference_of, kind, group=group, smoothing=smoothing)
    assert value.dtype == jnp.float32
    assert float(value) == pytest.approx(at(image, text, scale, bias), rel=1e-6)
    want = [
        central_difference(lambda x: at(x, text, scale, bias), image),
        central_difference(lambda x: at(image, x, scale, bias), text),
        central_difference(lambda x: at(image, text, x, bias), np.array(scale)),
        central_difference(lambda x: at(image, text, scale, x), np.array(bias)),
    ]
    close(grads, want[: len(grads)], 1e-5)


@each_kind
@each_smoothing
@pytest.mark.parametrize("mesh", MESHES)
def test_every_mesh_gives_what_the_global_view_does(kind, smoothing, mesh):
    arguments = *single(*pairs(64, 32, 4), math.log(20), -5.0), groups_of(64, 4)
    want = compiled(kind.removesuffix("_ring"), None, smoothing)(*arguments)
    close(compiled(kind, mesh, smoothing)(*arguments), want, 1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("each", [1, 3, 7])
def test_a_ring_takes_any_number_of_pairs_a_device(kind, each):
    arguments = *single(*pairs(8 * each, 5, each), math.log(20), -5.0), None
    want = compiled(kind)(*arguments)
    close(compiled(f"{kind}_ring", "2x4")(*arguments), want, 1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_ring_has_the_gradients_of_the_gathered_loss_to_float64s_last_digits(kind):
    image, text = pairs(24, 6, 5)
    with jax.enable_x64(True):
        arguments = *map(jnp.float64, (image, text, math.log(100), -10.0)), groups_of(24, 5)
        want = compiled(kind, None, 0.1)(*arguments)
        got = compiled(f"{kind}_ring", "8", 0.1)(*arguments)
    assert got[0].dtype == jnp.float64
    close(got, want, 1e-13)


@each_kind
def test_gradients_taken_on_the_devices_are_those_of_the_global_batch(kind):
    arguments = single(*pairs(24, 6, 6), 2.0, -4.0)
    specs = (BATCH, BATCH, PartitionSpec(), PartitionSpec())

    def local(image, text, logit_scale, logit_bias):
        return contrastive_loss(
            image,
            text,
            logit_scale,
            kind=kind,
            logit_bias=logit_bias if takes_bias(kind) else None,
            axes=AXES,
        )

    chosen = 4 if takes_bias(kind) else 3
    gradient = jax.value_and_grad(local, argnums=tuple(range(chosen)))
    sharded = jax.shard_map(
        gradient, mesh=mesh_of("2x4"), in_specs=specs, out_specs=(PartitionSpec(), specs[:chosen])
    )
    close(jax.jit(sharded)(*arguments), compiled(kind)(*arguments, None), 1e-6)


@pytest.mark.parametrize("kind", ["softmax_ring", "sigmoid_ring"])
def test_accumulated_embeddings_give_the_parameters_the_gradient_of_the_whole_batch(kind):
    rng = np.random.default_rng(7)
    weights = {name: rng.standard_normal((5, 4)).astype(np.float32) for name in ("image", "text")}
    batch = {name: rng.standard_normal((32, 5)).astype(np.float32) for name in weights}

    def encode(weights, part):
        embeddings = {name: part[name] @ weights[name] for name in weights}
        return {k: x / jnp.linalg.norm(x, axis=1, keepdims=True) for k, x in embeddings.items()}

    bias = jnp.float32(-3) if takes_bias(kind) else None

    def whole(weights):
        return contrastive_loss(
            **encode(weights, batch), logit_scale=jnp.float32(2), kind=kind, logit_bias=bias
        )

    def in_parts(weights, batch):
        parts = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
        step = jax.checkpoint(lambda _, part: (None, encode(weights, part)))
        embeddings = jax.lax.scan(step, None, parts)[1]
        embeddings = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), embeddings)
        return contrastive_loss(
            **embeddings, logit_scale=jnp.float32(2), kind=kind, logit_bias=bias, axes=AXES
        )

    sharded = jax.shard_map(
        jax.value_and_grad(in_parts),
        mesh=mesh_of("2x4"),
        in_specs=(PartitionSpec(), BATCH),
        out_specs=PartitionSpec(),
    )
    close(jax.jit(sharded)(weights, batch), jax.jit(jax.value_and_grad(whole))(weights), 1e-6)


# --- Properties -----------------------------------------------------------------------------------

views = pytest.mark.parametrize(
    ("kind", "mesh"),
    [("softmax", None), ("sigmoid", None), ("softmax_ring", "2x4"), ("sigmoid_ring", "2x4")],
)


@views
@given(seeds, scales)
@settings(max_examples=15)
def test_the_order_of_pairs_with_their_groups_does_not_matter(kind, mesh, seed, scale):
    image, text = pairs(16, 4, seed)
    group = groups_of(16, seed)
    order = np.random.default_rng(seed).permutation(16)
    function = compiled(kind, mesh, 0.1)
    value, grads = function(*single(image, text, scale, -5.0), group)
    permuted = function(*single(image[order], text[order], scale, -5.0), group[order])
    error = 4 * math.exp(scale) * 2**-24 + 1e-6  # of logits, as above
    assert float(permuted[0]) == pytest.approx(float(value), abs=error, rel=1e-6)
    for left, right in zip(permuted[1][:2], grads[:2], strict=True):
        np.testing.assert_allclose(
            left, np.asarray(right)[order], atol=math.exp(scale) * error + 1e-6, rtol=1e-5
        )


@views
@given(seeds)
@settings(max_examples=15)
def test_groups_that_are_all_distinct_are_no_groups(kind, mesh, seed):
    arguments = single(*pairs(16, 4, seed), 2.0, -5.0)
    distinct = np.random.default_rng(seed).choice(2**31 - 1, 16, replace=False).astype(np.int32)
    function = compiled(kind, mesh, 0.1)
    jax.tree.map(
        np.testing.assert_array_equal, function(*arguments, distinct), function(*arguments, None)
    )


@views
@given(seeds)
@settings(max_examples=15)
def test_which_numbers_name_the_groups_does_not_matter(kind, mesh, seed):
    arguments = single(*pairs(16, 4, seed), 2.0, -5.0)
    group = groups_of(16, seed)
    function = compiled(kind, mesh, 0.1)
    renamed = np.unique(group, return_inverse=True)[1].astype(np.int32)
    jax.tree.map(
        np.testing.assert_array_equal, function(*arguments, renamed), function(*arguments, group)
    )


@pytest.mark.parametrize("mesh", [None, "2x4"])
@given(seeds)
@settings(max_examples=15)
def test_smoothing_a_softmax_moves_it_towards_one_group_of_all(mesh, seed):
    kind = "softmax" if mesh is None else "softmax_ring"
    arguments = single(*pairs(16, 4, seed), 2.0, -5.0)
    group = groups_of(16, seed)
    plain, smooth = (compiled(kind, mesh, s)(*arguments, group) for s in (0.0, 0.1))
    uniform = compiled(kind, mesh)(*arguments, np.zeros(16, np.int32))
    close(smooth, jax.tree.map(lambda x, y: 0.9 * x + 0.1 * y, plain, uniform), 2e-6)


@views
@given(st.floats(0, math.log(100)))
@settings(max_examples=15)
def test_one_group_of_a_collapsed_model_has_no_gradient_across_it(kind, mesh, scale):
    point = np.repeat(pairs(1, 4, 0)[0], 16, axis=0)
    value, grads = compiled(kind, mesh)(*single(point, point, scale, -5.0), np.ones(16, np.int32))
    if takes_bias(kind):
        want = -16 * log_sigmoid(math.exp(scale) - 5)
        # The rounding of 256 equal terms adds up.
        assert float(value) == pytest.approx(want, rel=2e-6 * math.exp(scale) + 256 * 2**-24)
    else:
        assert float(value) == pytest.approx(math.log(16), abs=100 * 2**-21)
        np.testing.assert_allclose(np.concatenate(grads[:2]), 0, atol=1e-6 * math.exp(scale))


def test_the_category_as_group_is_flairs_co_occurrence_target():
    image, text = pairs(16, 4, 8)
    category = np.random.default_rng(8).integers(0, 5, 16).astype(np.int32)
    target = scipy.special.softmax(
        np.where(category[:, None] == category[None, :], 0.0, -np.inf), axis=1
    )
    logits = np.exp(2.0) * image @ text.T
    want = [
        -(target * scipy.special.log_softmax(x, axis=1)).sum(1).mean() for x in (logits.T, logits)
    ]
    value, _ = compiled("softmax")(*single(image, text, 2.0, 0.0), category)
    assert float(value) == pytest.approx(np.mean(want), rel=1e-6)


# --- Numbers at the edge --------------------------------------------------------------------------


@views
def test_the_largest_scale_leaves_everything_finite_and_a_perfect_model_alone(kind, mesh):
    eye = np.eye(16)
    value, grads = compiled(kind, mesh)(*single(eye, eye, math.log(100), -10.0), None)
    # Each of 15 negatives of the sigmoid costs log(1 + e^-10).
    want = 15 * math.log1p(math.exp(-10)) if takes_bias(kind) else 0.0
    assert float(value) == pytest.approx(want, rel=1e-6, abs=1e-12)
    assert all(np.isfinite(grad).all() for grad in grads)
    worst, grads = compiled(kind, mesh)(
        *single(eye, np.roll(eye, 1, 0), math.log(100), -10.0), None
    )
    # Each image has one wrong partner at 90 or 100, and its own at -10 or 0.
    want = 100.0 + 14 * math.log1p(math.exp(-10)) if takes_bias(kind) else 100.0
    assert float(worst) == pytest.approx(want, rel=32 * 2**-24)  # of sums of 16 terms twice
    assert all(np.isfinite(grad).all() for grad in grads)


@views
def test_bfloat16_embeddings_are_summed_in_float32_and_get_bfloat16_gradients(kind, mesh):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in pairs(16, 4, 1))
    wide = [np.asarray(x, np.float64) for x in (image, text)]
    value, grads = compiled(kind, mesh)(image, text, *single(2.0, -5.0), None)
    assert value.dtype == grads[2].dtype == jnp.float32
    assert float(value) == pytest.approx(reference_of(kind, *wide, 2.0, -5.0, None), rel=1e-5)
    exact = compiled(kind.removesuffix("_ring"))(*single(*wide, 2.0, -5.0), None)[1]
    for got, want in zip(grads[:2], exact[:2], strict=True):
        assert got.dtype == jnp.bfloat16
        close(got.astype(jnp.float32), want, 2**-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "hinge"}, "kind='hinge' must be one of softmax, softmax_ring, sigmoid"),
        ({"kind": "sigmoid"}, rf"needs a logit_bias, initially {INITIAL_SIGMOID_BIAS}"),
        ({"logit_bias": jnp.float32(-10)}, "has no effect with kind='softmax'"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must lie in \[0, 1\)"),
        ({"text": jnp.ones((4, 3))}, r"\(4, 2\) and \(4, 3\)"),
        ({"group": jnp.zeros(3, jnp.int32)}, r"integers of the shape \(4,\), got int32 \(3,\)"),
        ({"group": jnp.zeros(4)}, r"integers of the shape \(4,\), got float32 \(4,\)"),
        ({"mesh": make_mesh()}, "4 pairs do not divide by the mesh's 8 devices"),
        ({"mesh": make_mesh(), "axes": AXES}, "not both"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    arguments = {"image": jnp.ones((4, 2)), "text": jnp.ones((4, 2)), "logit_scale": jnp.zeros(())}
    with pytest.raises(ValueError, match=message):
        contrastive_loss(**(arguments | changes))
