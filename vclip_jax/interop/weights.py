"""A model as it leaves or enters: its weights and the part of the configuration that they need."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.config import checks
from vclip_jax.interop import names
from vclip_jax.models import build
from vclip_jax.models.bert import Bert, BertConfig
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import Clip
from vclip_jax.models.keys import seeded
from vclip_jax.train.state import TrainState

KINDS = ("clip", "text")
_TRAINING_ONLY = ("batch_norm", "half_init", "whiten_pairs")
"""Keys of `config.model` that a trained model no longer depends on."""
_SECTIONS = {
    "model": tuple(key for key in config_lib.default().model if key not in _TRAINING_ONLY),
    "data": ("image_size", "fit", "image_mean", "image_std", "decode", "enhance"),
    "tokenizer": ("context_length", "vocab_size"),
}
_DEFAULT_VOCAB_SIZE = 21128
_MOST_SIZE = 2**16
_MOST = {
    "vision_layers": 200,
    "text_layers": 200,
    "image_size": 4096,
    "context_length": 4096,
    "vocab_size": 2_000_000,
    "text_heads": 1024,
}
"""What is refused before anything is made of it: ten times the largest of today's models."""
_LONGEST = 16
"""Numbers in a list."""


@dataclass(frozen=True)
class Weights:
    """A model, or its text tower alone, in the host's memory.

    Attributes:
        config: see `complete_config`.
        arrays: dotted name -> float32 array; see `vclip_jax.interop.names`.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @cached_property
    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """`params` and `batch_stats` as `state.split_model` returns them; of a text tower alone,
        `params` has only `bert`."""
        return names.unflatten(self.arrays)

    @property
    def count(self) -> int:
        """Number of parameters, without batch statistics."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables[0]))


def complete_config(config: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """The portable configuration, with the recipe's values for what is not said.

    It has `kind` ("clip" or "text", the text tower alone) and three sections: `model` with the
    configuration's `model` (only `text_...` of a text tower), `data` with `image_size`, `fit`,
    `image_mean`, `image_std`, `decode` and `enhance` (not of a text tower), `tokenizer` with
    `context_length` and `vocab_size`. It holds JSON's types alone.

    Raises:
        ValueError: one line that names an unknown key, or a value of another type.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"{origin}: the configuration is a {type(config).__name__}, not an object")
    kind = config.get("kind", "clip")
    if kind not in KINDS:
        raise ValueError(f"{origin}: kind is {kind!r}, not one of {', '.join(KINDS)}")
    default = config_lib.default().to_dict()
    default["tokenizer"]["vocab_size"] = _DEFAULT_VOCAB_SIZE
    complete: dict[str, Any] = {"kind": kind}
    for section, keys in _SECTIONS.items():
        if kind == "text":
            keys = tuple(key for key in keys if section == "tokenizer" or key[:5] == "text_")
        given = config.get(section, {})
        if not isinstance(given, Mapping) or not set(given) <= set(keys):
            wrong = sorted(set(given) - set(keys)) if isinstance(given, Mapping) else [given]
            raise ValueError(f"{origin}: {section} has what is not known there: {wrong}")
        if not keys:
            continue
        complete[section] = {key: given.get(key, default[section][key]) for key in keys}
        for key, value in complete[section].items():
            _check_value(f"{origin}: {section}.{key}", value, default[section][key])
    if unknown := sorted(set(config) - {"kind", *_SECTIONS}):
        raise ValueError(f"{origin}: the configuration has unknown sections: {unknown}")
    for section in complete.keys() - {"kind"}:
        for key, value in complete[section].items():
            if isinstance(value, tuple):
                complete[section][key] = list(value)
    try:
        checks.validate(full_config(complete), devices=1)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from error
    return complete


def portable_config(full: ConfigDict, vocab_size: int) -> dict[str, Any]:
    """The portable configuration of a training run's."""
    tokenizer = {"context_length": full.tokenizer.context_length, "vocab_size": vocab_size}
    sections = {
        section: {key: full[section][key] for key in _SECTIONS[section]}
        for section in ("model", "data")
    }
    return complete_config({**sections, "tokenizer": tokenizer}, origin="config")


def full_config(config: Mapping[str, Any]) -> ConfigDict:
    """The recipe's configuration with a portable one put in, ready for a dataset's name."""
    full = config_lib.default()
    full.data.dataset = "none"
    _put(full, config)
    return full


def adopt(full: ConfigDict, weights: Weights) -> ConfigDict:
    """Copy a run's configuration, with the sizes and the preprocessing of a trained model.

    Raises:
        ValueError: it is a text tower alone.
    """
    if weights.config["kind"] != "clip":
        raise ValueError("the weights are of a text tower alone, which cannot be evaluated")
    adopted = full.copy_and_resolve_references()
    _put(adopted, weights.config)
    return adopted


def _put(full: ConfigDict, config: Mapping[str, Any]) -> None:
    for section, keys in _SECTIONS.items():
        for key, value in config.get(section, {}).items():
            if key in keys and key != "vocab_size":
                full[section][key] = tuple(value) if isinstance(value, list) else value


def _check_value(what: str, value: Any, like: Any) -> None:
    key = what.rpartition(".")[2]
    most = _MOST.get(key, _MOST_SIZE)
    if isinstance(like, tuple):
        fits = isinstance(value, list | tuple) and 0 < len(value) <= _LONGEST
        if isinstance(like[0], float):
            fits = fits and all(type(item) in (int, float) for item in value)
            least = 1e-4 if key == "image_std" else -1e4
            fits = fits and all(least <= item <= 1e4 for item in value)  # nor is a NaN
        else:
            fits = fits and all(type(item) is int and 0 < item <= most for item in value)
            fits = fits and sum(value) <= most
    elif isinstance(like, float):
        fits = type(value) in (int, float) and -1e4 <= value <= 1e4
    else:
        fits = type(value) is type(like) and (type(value) is not int or 0 < value <= most)
    if not fits:
        raise ValueError(f"{what} is {reprlib.repr(value)}, expected something like {like!r}")


def expected_arrays(config: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Dotted name -> shape of every weight of a model, from its portable configuration."""
    if config["kind"] == "text":
        text = nnx.eval_shape(lambda: Bert(bert_config(config), rngs=seeded(0)))
        return names.flatten({"bert": nnx.to_pure_dict(nnx.state(text, nnx.Param))})
    _, params, batch_stats = split_model(nnx.eval_shape(lambda: make_clip(config, seeded(0))))
    return names.flatten(params, batch_stats)


def into_state(
    weights: Weights, state: TrainState, shardings: TrainState, *, origin: str
) -> TrainState:
    """`state` with the parameters and statistics of `weights`; a text tower leaves the rest alone.

    Raises:
        ValueError: every weight that is missing, unexpected or of another shape, in one line.
    """
    shapes = {n: leaf.shape for n, leaf in names.flatten(state.params, state.batch_stats).items()}
    if weights.config["kind"] == "text":
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("bert.")}
    names.check(weights.arrays, shapes, origin=origin)
    params, batch_stats = weights.variables
    return state.replace(
        params=jax.device_put(state.params | params, shardings.params),
        batch_stats=jax.device_put(state.batch_stats | batch_stats, shardings.batch_stats),
    )


def bert_config(config: Mapping[str, Any]) -> BertConfig:
    """Sizes of BERT as the text tower, from a portable configuration."""
    return build.bert_config(config["model"], config["tokenizer"]["vocab_size"])


def make_clip(config: Mapping[str, Any], rngs: nnx.Rngs, dtype: Any = jnp.float32) -> Clip:
    """The model that a portable configuration of kind "clip" describes, at random weights."""
    data = config["data"]
    return build.build_clip(
        config["model"],
        rngs,
        image_size=data["image_size"],
        vocab_size=config["tokenizer"]["vocab_size"],
        image_mean=data["image_mean"],
        image_std=data["image_std"],
        dtype=dtype,
    )
