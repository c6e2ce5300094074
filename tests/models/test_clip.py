"""CLIP: its size, unit vectors in float32 whatever the computation's type, its temperature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.devices import tree
from vclip_jax.models.bert import BertConfig
from vclip_jax.models.clip import IMAGE_MEAN, IMAGE_STD, Clip, normalise, normalise_image
from vclip_jax.models.rng import seeded

# Noise under four colours: noise alone looks the same to a random model.
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8) // 4
IMAGES += np.array([[0, 0, 0], [190, 0, 0], [0, 190, 0], [190, 190, 190]], np.uint8)[:, None, None]
TOKENS = np.array([[1, 5, 9, 2, 0, 0], [1, 2, 0, 0, 0, 0], [1, 4, 4, 2, 0, 0], [1, 3, 3, 3, 3, 2]])


@pytest.fixture(scope="module")
def embeddings(tiny_clip, random_variables):
    """dtype -> image and text embeddings of the same weights, and the model's parameters."""

    def embed(dtype):
        graphdef, params, batch_stats = random_variables(lambda rngs: tiny_clip(rngs, dtype=dtype))

        @jax.jit
        def run(images, tokens):
            model = nnx.merge(graphdef, params, batch_stats)
            return model.encode_image(images), model.encode_text(tokens)

        return *run(IMAGES, TOKENS), params

    return {dtype: embed(dtype) for dtype in (jnp.float32, jnp.bfloat16)}


def test_the_full_model_has_the_papers_number_of_parameters():
    model = nnx.eval_shape(
        lambda: Clip(
            embed_dim=1024,
            image_size=224,
            vision_layers=(3, 4, 6, 3),
            vision_width=64,
            text=BertConfig(),
            rngs=seeded(0),
        )
    )
    assert tree.count(nnx.state(model, nnx.Param)) == 140_780_385


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_embeddings_are_unit_vectors_in_float32(embeddings, dtype):
    for vectors in embeddings[dtype][:2]:
        assert vectors.shape == (4, 8)
        assert vectors.dtype == jnp.float32
        # A few roundings of the sum, the root and the product.
        lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=5e-7)


def test_parameters_stay_float32_when_the_computation_is_bfloat16(tiny_clip):
    model = nnx.eval_shape(lambda: tiny_clip(seeded(0), dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}


def test_bfloat16_embeddings_point_where_float32_ones_do(embeddings):
    for wide, narrow in zip(embeddings[jnp.float32][:2], embeddings[jnp.bfloat16][:2], strict=True):
        cosines = np.einsum("nd,nd->n", wide, narrow)
        # Twenty layers with relative errors of 2^-8, at random: an angle of up to 5 / 256.
        assert cosines.min() > math.cos(5 / 256)
        assert np.abs(wide - narrow).max() > 1e-5  # it did compute in bfloat16


def test_different_images_and_captions_have_different_embeddings(embeddings):
    for vectors in embeddings[jnp.float32][:2]:
        distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
        assert distances[~np.eye(4, dtype=bool)].min() > 1e-3  # rounding is a thousandth of that


def test_the_initial_logit_scale_is_the_logarithm_of_one_over_seven_hundredths():
    text = BertConfig(vocab_size=4, width=4, layers=0, heads=1, mlp_width=4, max_positions=2)
    model = Clip(
        embed_dim=2, image_size=32, vision_layers=(), vision_width=8, text=text, rngs=seeded(0)
    )
    assert model.logit_scale[...].dtype == jnp.float32
    assert float(model.logit_scale[...]) == pytest.approx(math.log(1 / 0.07), rel=2**-24)


def test_images_are_normalised_by_channel_on_the_scale_of_zero_to_one():
    want = (IMAGES.astype(np.float64) / 255 - IMAGE_MEAN) / IMAGE_STD
    np.testing.assert_allclose(normalise_image(jnp.asarray(IMAGES)), want, rtol=1e-6, atol=1e-6)


def test_a_zero_embedding_stays_zero_with_a_finite_gradient():
    x = jnp.zeros((1, 4))
    np.testing.assert_array_equal(normalise(x), x)
    assert np.isfinite(jax.grad(lambda x: normalise(x)[0, 0])(x)).all()


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_normalising_is_blind_to_length(scale):
    x = np.random.default_rng(1).standard_normal((3, 5))
    want = x / np.linalg.norm(x, axis=1, keepdims=True)
    got = normalise(jnp.asarray(scale * x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-6)
