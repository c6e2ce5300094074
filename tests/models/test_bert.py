"""BERT: padding, order, pooling, dropout, and a plain NumPy forward pass in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from flax import nnx

from vclip_jax.models.bert import COUNTED_PAD_ID, PAD_ID, Bert, BertConfig
from vclip_jax.models.dropout import row_keys
from vclip_jax.models.rng import seeded

CONFIG = BertConfig(
    vocab_size=30, width=12, layers=2, heads=3, mlp_width=20, max_positions=10, dropout=0.5
)
LENGTH = 7
# Two layers of float32 sums; layer norm divides by deviations of order 1.
ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


def captions(*rows: tuple[int, ...], length: int = LENGTH) -> jax.Array:
    """Token rows padded to `length`."""
    return jnp.array([(*row, *(PAD_ID,) * (length - len(row))) for row in rows], jnp.int32)


CAPTIONS = captions((1, 5, 9, 2), (1, 2), (1, 9, 5, 2), (1, 7, 29, 4, 3, 11, 2))


@pytest.fixture(scope="module")
def params(random_variables):
    """Parameters, the same for both pools."""
    return random_variables(lambda rngs: Bert(CONFIG, rngs=rngs))[1]


@pytest.fixture(scope="module")
def encode(params):
    """`encode(pool, tokens, key)`, jitted; no key, no dropout."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(pool, tokens, key=None):
        config = dataclasses.replace(CONFIG, pool=pool)
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: Bert(config, rngs=seeded(0))))
        keys = None if key is None else row_keys(key, jnp.arange(len(tokens)))
        return nnx.merge(graphdef, params)(tokens, keys=keys)

    return run


# --- a plain forward pass ------------------------------------------------------------------------


def layer_norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-12)
    return normed * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def attend(x, real, p):
    """Self-attention of one caption `[length, width]`, head by head, among real tokens only."""
    size = CONFIG.width // CONFIG.heads
    out = np.empty_like(x)
    for head in range(CONFIG.heads):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (dense(x, p[name])[:, part] for name in ("query", "key", "value"))
        scores = query @ key[real].T / np.sqrt(size)
        out[:, part] = scipy.special.softmax(scores, axis=-1) @ value[real]
    return out


def reference(params, caption):
    """States `[length, width]` of one caption after the last layer: post-norm, exact GELU."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tables = p["embeddings"]
    x = (
        tables["word_embeddings"]["embedding"][caption]
        + tables["position_embeddings"]["embedding"][: len(caption)]
        + tables["token_type_embeddings"]["embedding"][0]
    )
    x = layer_norm(x, tables["LayerNorm"])
    for index in range(CONFIG.layers):
        layer = p["layer"][index]
        attended = attend(x, caption != PAD_ID, layer["attention"]["self_"])
        output = layer["attention"]["output"]
        x = layer_norm(x + dense(attended, output["dense"]), output["LayerNorm"])
        hidden = dense(x, layer["intermediate"])
        hidden = hidden * 0.5 * (1 + scipy.special.erf(hidden / np.sqrt(2)))
        output = layer["output"]
        x = layer_norm(x + dense(hidden, output["dense"]), output["LayerNorm"])
    return x


def test_the_first_state_equals_a_plain_forward_pass(params, encode):
    want = [reference(params, caption)[0] for caption in np.asarray(CAPTIONS)]
    np.testing.assert_allclose(encode("first", CAPTIONS), want, **ROUNDING)


def test_mean_averages_the_states_of_real_tokens_only(params, encode):
    want = [reference(params, c)[c != PAD_ID].mean(axis=0) for c in np.asarray(CAPTIONS)]
    np.testing.assert_allclose(encode("mean", CAPTIONS), want, **ROUNDING)


def test_padding_that_counts_is_in_the_mean_and_is_attended_to_by_nobody(params, encode):
    width = 5  # of the longest caption of a class, of seven places
    tokens = captions((1, 5, 9, 4, 2), (1, 7, 2))
    counted = jnp.where((tokens == PAD_ID) & (jnp.arange(LENGTH) < width), COUNTED_PAD_ID, tokens)
    want = [reference(params, caption)[:width].mean(axis=0) for caption in np.asarray(tokens)]
    got = encode("mean", counted)
    np.testing.assert_allclose(got, want, **ROUNDING)
    assert np.abs(got[1] - encode("mean", tokens)[1]).max() > 0.01
    np.testing.assert_array_equal(encode("first", counted), encode("first", tokens))


# --- captions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_padding_does_not_change_a_captions_vector(encode, pool):
    rows = (1, 5, 9, 2), (1, 2), (1, 9, 5, 2), (1, 7, 2)
    vectors = [encode(pool, captions(*rows, length=length)) for length in (4, LENGTH)]
    np.testing.assert_allclose(*vectors, **ROUNDING)


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_captions_vector_does_not_depend_on_its_neighbours(encode, pool):
    together = np.asarray(encode(pool, CAPTIONS))
    others = np.asarray(encode(pool, CAPTIONS.at[1:].set(CAPTIONS[3])))
    np.testing.assert_array_equal(together[0], others[0])


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_the_order_of_tokens_matters(encode, pool):
    vectors = np.asarray(encode(pool, CAPTIONS))  # rows 0 and 2 are permutations of one another
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_a_caption_of_padding_alone_is_finite(encode, pool):
    vectors = np.asarray(encode(pool, CAPTIONS.at[1].set(PAD_ID)))
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], encode(pool, CAPTIONS)[0], **ROUNDING)


def test_the_gradient_of_a_batch_with_an_empty_caption_is_finite(params):
    config = dataclasses.replace(CONFIG, pool="mean")
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Bert(config, rngs=seeded(0))))

    @jax.jit
    def gradient(tokens):
        return jax.grad(lambda p: jnp.square(nnx.merge(graphdef, p)(tokens)).sum())(params)

    grads = gradient(CAPTIONS.at[1].set(PAD_ID))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    assert np.abs(grads["embeddings"]["word_embeddings"]["embedding"]).max() > 0


# --- dropout -------------------------------------------------------------------------------------


def test_without_dropout_the_result_is_the_same_every_time(encode):
    np.testing.assert_array_equal(encode("first", CAPTIONS), encode("first", CAPTIONS))


def test_dropout_depends_on_the_key_alone(encode):
    first, again, other = (encode("first", CAPTIONS, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert np.abs(first - encode("first", CAPTIONS)).max() > 0.1


def test_equal_captions_of_a_batch_drop_differently(encode):
    vectors = np.asarray(encode("first", CAPTIONS.at[1].set(CAPTIONS[0]), jax.random.key(3)))
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1


def test_a_rate_of_zero_drops_nothing_even_with_a_key(params):
    config = dataclasses.replace(CONFIG, dropout=0.0)
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Bert(config, rngs=seeded(0))))

    @jax.jit
    def run(tokens):
        bert = nnx.merge(graphdef, params)
        keys = row_keys(jax.random.key(0), jnp.arange(len(tokens)))
        return bert(tokens), bert(tokens, keys=keys)

    np.testing.assert_array_equal(*run(CAPTIONS))


@pytest.mark.parametrize("pool", ["first", "layers"])
def test_a_loop_over_layers_gives_what_the_layers_give_one_after_another(params, pool):
    keys = row_keys(jax.random.key(0), jnp.arange(len(CAPTIONS)))

    def run(params, scan):
        config = dataclasses.replace(CONFIG, pool=pool, scan=scan)
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: Bert(config, rngs=seeded(0))))
        out = nnx.merge(graphdef, params)(CAPTIONS, keys=keys)
        return jnp.square(out).sum(), out

    both = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=1)
    ((_, want), want_grads), ((_, got), grads) = both(params, False), both(params, True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, want_grads
    )


# --- types and sizes -----------------------------------------------------------------------------


def test_bfloat16_stays_close_to_float32(params, encode):
    graphdef = nnx.graphdef(
        nnx.eval_shape(lambda: Bert(CONFIG, dtype=jnp.bfloat16, rngs=seeded(0)))
    )
    vectors = jax.jit(lambda tokens: nnx.merge(graphdef, params)(tokens))(CAPTIONS)
    assert vectors.dtype == jnp.bfloat16
    # Eight bits of mantissa, a dozen roundings one after the other.
    np.testing.assert_allclose(
        vectors.astype(jnp.float32), encode("first", CAPTIONS), atol=12 * 2**-8
    )


def test_the_base_model_has_the_checkpoints_parameters():
    bert = nnx.eval_shape(lambda: Bert(BertConfig(), rngs=seeded(0)))
    shapes = jax.tree.map(lambda leaf: leaf.size, nnx.to_pure_dict(nnx.state(bert, nnx.Param)))
    # Without pooler: embeddings and their norm, then twelve layers (Devlin et al. 2019).
    embeddings = (21128 + 512 + 2) * 768 + 2 * 768
    layer = 4 * (768 * 768 + 768) + 2 * (2 * 768) + 2 * 768 * 3072 + 3072 + 768
    assert sum(jax.tree.leaves(shapes)) == embeddings + 12 * layer == 101_677_056


def test_weights_start_with_the_initializer_range():
    config = dataclasses.replace(CONFIG, width=96, vocab_size=500, layers=1, initializer_range=0.05)
    bert = Bert(config, rngs=seeded(0))
    for kernel in (bert.embeddings.word_embeddings.embedding, bert.layer[0].intermediate.kernel):
        values = np.asarray(kernel[...])
        # Four standard errors of a mean and of a deviation of n numbers.
        assert abs(values.mean()) < 4 * 0.05 / values.size**0.5
        assert values.std() == pytest.approx(0.05, rel=4 / (2 * values.size) ** 0.5)
