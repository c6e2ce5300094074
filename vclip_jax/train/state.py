"""The state of training, and its random initialisation."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vclip_jax.devices.tree import path_string
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import Clip
from vclip_jax.models.losses import INITIAL_SIGMOID_BIAS, INITIAL_SIGMOID_SCALE
from vclip_jax.models.rng import seeded
from vclip_jax.train import parts

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """The values that a step changes. Model variables are nested dictionaries of arrays."""

    step: jax.Array
    """int32 scalar: steps done."""
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState

    @property
    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the model's variables, `params` and `batch_stats`."""
        return self.params, self.batch_stats


def with_logit_bias(make_model: Callable[[nnx.Rngs], Clip]) -> Callable[[nnx.Rngs], Clip]:
    """Extend `make_model` for the sigmoid loss: a `logit_bias`, and the loss's temperature."""

    def make(rngs: nnx.Rngs) -> Clip:
        model = make_model(rngs)
        model.logit_bias = nnx.Param(jnp.array(INITIAL_SIGMOID_BIAS, jnp.float32))
        model.logit_scale = nnx.Param(jnp.log(jnp.array(INITIAL_SIGMOID_SCALE, jnp.float32)))
        return model

    return make


def init_state(
    make_model: Callable[[nnx.Rngs], Clip],
    optimizer: optax.GradientTransformation,
    seed: int,
    half: bool = False,
    trained: frozenset[str] | None = None,
) -> TrainState:
    """Return a random state at step 0.

    A pure function of `seed`, so that it can be jitted with output shardings, or evaluated for
    shapes only.

    `half` rounds the weights to float16 and back, as Chinese-CLIP does with a new model
    (`convert_weights`, `convert_models_to_fp32`).

    `trained` are the names of the parameters that the optimizer changes, None for all.
    """
    _, params, batch_stats = split_model(make_model(seeded(seed)))
    if half:
        params = jax.tree_util.tree_map_with_path(_round_to_half, params)
    changed = params if trained is None else parts.pick(params, trained.__contains__)
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(changed))


def _round_to_half(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
    name = path_string(path)
    if name in ("logit_scale", "logit_bias") or (
        name.startswith("visual/") and name.endswith("_embedding")
    ):
        return leaf  # the conversion skips bare parameters of the image tower
    return leaf.astype(jnp.float16).astype(jnp.float32)
