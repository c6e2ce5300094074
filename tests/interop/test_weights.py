"""Weights into a training state: all of them, or the text tower alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import SingleDeviceSharding

from vclip_jax import config as config_lib
from vclip_jax.interop import names
from vclip_jax.interop.weights import adopt, into_state, make_clip
from vclip_jax.models.build import split_model
from vclip_jax.models.rng import seeded
from vclip_jax.train.state import TrainState


@pytest.fixture(scope="module")
def state(tiny_weights):
    config = tiny_weights().config
    _, params, batch_stats = split_model(nnx.eval_shape(lambda: make_clip(config, seeded(0))))
    # NumPy's zeros, as JAX would compile a program for every shape.
    zeros = jax.tree.map(
        lambda leaf: jnp.asarray(np.zeros(leaf.shape, np.float32)), (params, batch_stats)
    )
    return TrainState(jnp.zeros((), jnp.int32), *zeros, optax.EmptyState())


@pytest.fixture(scope="module")
def shardings(state):
    return jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), state)


def test_a_model_replaces_everything(state, shardings, tiny_weights):
    weights = tiny_weights()
    new = into_state(weights, state, shardings, origin="folder")
    got = names.flatten(new.params, new.batch_stats)
    assert got.keys() == weights.arrays.keys()
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_a_text_tower_leaves_the_image_tower_alone(state, shardings, tiny_weights):
    weights = tiny_weights("text")
    new = into_state(weights, state, shardings, origin="folder")
    for name, value in names.flatten(new.params, new.batch_stats).items():
        want = weights.arrays[name] if name.startswith("bert.") else 0
        np.testing.assert_array_equal(value, np.broadcast_to(want, value.shape))


def test_weights_of_another_size_are_refused_with_every_name(state, shardings, tiny_weights):
    with pytest.raises(ValueError, match="folder does not fit") as caught:
        into_state(tiny_weights(embed_dim=12), state, shardings, origin="folder")
    assert "text_projection has the shape [64, 12], not [64, 10]" in str(caught.value)
    assert "visual.attnpool.c_proj.bias has the shape [12], not [10]" in str(caught.value)


def test_a_config_that_takes_over_a_models_sizes_is_a_copy(tiny_weights):
    config = config_lib.default()
    config.evals.mine = config_lib.zero_shot_eval("mine", "labels")
    before = config.to_dict()
    adopted = adopt(config, tiny_weights())
    assert config.to_dict() == before
    assert adopted.model.embed_dim == 10 != config.model.embed_dim
    assert adopted.data.image_size == 64 != config.data.image_size
    adopted.evals.mine.split = "test"
    adopted.model.vision_layers = (1,)
    assert config.to_dict() == before
    assert adopted.is_locked == config.is_locked
    with pytest.raises(ValueError, match="only a text tower"):
        adopt(config, tiny_weights("text"))
