"""The weights of a model, with the part of the configuration that they need."""

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax.config import checks
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.errors import few
from vclip_jax.interop import names
from vclip_jax.models import build, low_rank
from vclip_jax.models.bert import Bert, BertConfig
from vclip_jax.models.build import split_model
from vclip_jax.models.clip import Clip
from vclip_jax.models.kinds import IMAGE_POOLS, IMAGE_TOWERS, TEXT_TOWERS
from vclip_jax.models.rng import seeded

if TYPE_CHECKING:
    from vclip_jax.train.state import TrainState

KINDS = ("clip", "text")
_TRAINING_ONLY = ("batch_norm", "half_init", "whiten_pairs")
"""Keys of `config.model` that matter only in training."""
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
"""The largest accepted sizes, ten times those of today's largest models."""
_ARRAYS_PER_LAYER = 8
"""Fewer arrays than any layer of our towers has."""
_LONGEST = 16
"""The largest accepted length of a list."""


@dataclass(frozen=True)
class Weights:
    """A model, or only its text tower, in the host's memory.

    Attributes:
        config: see `complete_config`.
        arrays: dotted name -> float32 array (see `as_float16` for others); see
            `vclip_jax.interop.names`.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @cached_property
    def variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return `params` and `batch_stats` as `build.split_model` does.

        Without an image tower, `params` has only `bert`.
        """
        return names.unflatten(self.arrays)

    @property
    def count(self) -> int:
        """Return the number of parameters, without batch statistics."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables[0]))


def digest(
    config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], tokenizer: Tokenizer
) -> str:
    """Return the SHA-256 of a model, in hexadecimal.

    The digest covers weights, configuration (with the preprocessing) and tokenizer. A checkpoint
    and the portable folder of the same step have the same digest, unless the folder's weights were
    rounded to float16.

    Args:
        config: the portable configuration.
        arrays: dotted name -> array, on the host or on a device.
        tokenizer: the model's tokenizer.
    """
    found = hashlib.sha256()
    # The strings from which pickle would make the tokenizer again.
    described = [config, tokenizer.__reduce__()[1]]
    found.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        if array.dtype == np.float16:  # loading makes it float32
            array = array.astype(np.float32)
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def as_float16(weights: Weights) -> Weights:
    """Return weights for a file of half the size; loading the file makes them float32 again.

    Arrays of two and more axes, nearly all numbers of a model, become float16, which keeps 11
    significant bits. Vectors and numbers (biases, scales, batch statistics, the temperature) stay
    float32: a variance may be larger than float16's largest number, and they take little space.

    Raises:
        ValueError: one line: a weight is beyond the range of float16.
    """
    arrays = {}
    for name, array in weights.arrays.items():
        if array.ndim < 2:
            arrays[name] = array
            continue
        if array.size and (largest := np.abs(array).max()) > np.finfo(np.float16).max:
            raise ValueError(
                f"{name} has the value {largest:.3g}, beyond the range of float16: export with "
                "--dtype float32"
            )
        arrays[name] = array.astype(np.float16)
    return Weights(weights.config, arrays)


def complete_config(config: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """Return a portable configuration with the recipe's values for missing keys.

    A portable configuration has `kind` ("clip", or "text" for only a text tower) and three
    sections: `model` with the configuration's `model` (for a text tower only `text_...`), `data`
    with `image_size`, `fit`, `image_mean`, `image_std`, `decode` and `enhance` (not for a text
    tower), and `tokenizer` with `context_length` and `vocab_size`. Values have JSON's types.

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
            raise ValueError(f"{origin}: {section} has unknown keys: {few(wrong)}")
        if not keys:
            continue
        complete[section] = {key: given.get(key, default[section][key]) for key in keys}
        for key, value in complete[section].items():
            _check_value(f"{origin}: {section}.{key}", value, default[section][key])
    if unknown := sorted(set(config) - {"kind", *_SECTIONS}):
        raise ValueError(f"{origin}: the configuration has unknown sections: {few(unknown)}")
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
    """Return the portable part of a training run's configuration."""
    tokenizer = {"context_length": full.tokenizer.context_length, "vocab_size": vocab_size}
    sections = {
        section: {key: full[section][key] for key in _SECTIONS[section]}
        for section in ("model", "data")
    }
    return complete_config({**sections, "tokenizer": tokenizer}, origin="config")


def full_config(config: Mapping[str, Any]) -> ConfigDict:
    """Return the recipe's configuration with the values of a portable one, without a dataset."""
    full = config_lib.default()
    full.data.dataset = "none"
    _put(full, config)
    return full


def adopt(full: ConfigDict, weights: Weights) -> ConfigDict:
    """Return a copy of a run's configuration with the sizes and preprocessing of a trained model.

    Raises:
        ValueError: the weights are only a text tower.
    """
    if weights.config["kind"] != "clip":
        raise ValueError("the weights are only a text tower, which cannot be evaluated")
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
            fits = fits and all(least <= item <= 1e4 for item in value)  # False for NaN
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
    """Return the dotted name -> shape of every weight of a portable configuration's model."""
    if config["kind"] == "text":
        text = nnx.eval_shape(lambda: Bert(bert_config(config), rngs=seeded(0)))
        return names.flatten({"bert": nnx.to_pure_dict(nnx.state(text, nnx.Param))})
    _, params, batch_stats = abstract_clip(config)
    return names.flatten(params, batch_stats)


def expected_in(
    found: Sized, config: Mapping[str, Any], *, origin: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return `expected_arrays` for a file, if the file has arrays enough for all layers.

    Making a layer takes a fraction of a second, however many layers a configuration claims.

    Args:
        found: the file's arrays.
        config: the portable configuration.
        origin: the file's name in errors.

    Raises:
        ValueError: one line: the file has too few arrays for the layers.
    """
    model = config["model"]
    layers = model["text_layers"] if model["text_kind"] in ("bert", "clip") else 0
    if model.get("vision_kind") in ("clip", "imagenet"):  # a recipe's own tower has other layers
        layers += sum(model["vision_layers"])
    if len(found) < _ARRAYS_PER_LAYER * layers:
        raise ValueError(
            f"{origin} holds {len(found)} arrays, too few for the {layers} layers of its "
            "configuration: nothing was loaded"
        )
    return expected_arrays(config)


def into_state(
    weights: Weights, state: "TrainState", shardings: "TrainState", *, origin: str
) -> "TrainState":
    """Return `state` with the parameters and statistics of `weights`, or only its text tower.

    What only a training has, the sigmoid loss's bias and low-rank parts, stays as it is.

    Raises:
        ValueError: one line that names the first weights that are missing, unexpected or of another
            shape.
    """
    own = names.flatten(state.params, state.batch_stats)
    shapes = {name: leaf.shape for name, leaf in own.items() if not _is_added(name)}
    if weights.config["kind"] == "text":
        shapes = {name: shape for name, shape in shapes.items() if name.startswith("bert.")}
    names.check(weights.arrays, shapes, origin=origin)
    params, batch_stats = names.unflatten(own | weights.arrays)
    return state.replace(
        params=jax.device_put(params, shardings.params),
        batch_stats=jax.device_put(batch_stats, shardings.batch_stats),
    )


def _is_added(name: str) -> bool:
    """Return whether only a training has this parameter."""
    return name == "logit_bias" or f".{low_rank.NAME}." in name


def bert_config(config: Mapping[str, Any]) -> BertConfig:
    """Return the sizes of a BERT text tower, from a portable configuration."""
    return build.bert_config(config["model"], config["tokenizer"]["vocab_size"])


def abstract_clip(config: Mapping[str, Any], dtype: Any = jnp.float32) -> Any:
    """Return `build.split_model` of the model of `make_clip`, with shapes in place of arrays.

    The last results are kept, because loading a model needs its shapes twice.
    """
    model = config["model"]
    kinds = (
        IMAGE_TOWERS.get(model["vision_kind"]),
        IMAGE_POOLS.get(model["vision_pool"]),
        TEXT_TOWERS.get(model["text_kind"]),
    )
    return _abstract_clip(json.dumps(config), jnp.dtype(dtype), kinds)


@lru_cache(maxsize=4)
def _abstract_clip(config: str, dtype: Any, kinds: tuple[Any, ...]) -> Any:
    # `kinds` are a part of the key: a recipe may replace a tower under its name.
    return split_model(nnx.eval_shape(lambda: make_clip(json.loads(config), seeded(0), dtype)))


def make_clip(config: Mapping[str, Any], rngs: nnx.Rngs, dtype: Any = jnp.float32) -> Clip:
    """Make the model of a portable configuration of kind "clip", with random weights."""
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
