"""The default configuration, made from the declarations in `keys`, and a small one.

A recipe in `configs/` begins with `config = default()` and sets the keys that differ. Any key can
be set on the command line, `--config.data.image_size=224`. An unknown key is refused, and so is
anything else that `checks` finds wrong.
"""

import os

from ml_collections import ConfigDict

from vclip_jax.config.keys import KEYS, USER_NAMED_SECTIONS
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.files import packaged
from vclip_jax.files.foreign import read_json


def default() -> ConfigDict:
    """Return the paper's recipe (Chinese-CLIP's defaults), without a dataset.

    Examples:
        >>> from vclip_jax import config
        >>> recipe = config.default()
        >>> recipe.model.embed_dim, recipe.data.image_size, recipe.loss.kind
        (1024, 224, 'softmax')
    """
    config = ConfigDict()
    for key in KEYS:
        section, _, name = key.name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        # A mapping is copied: the declaration stays what it is.
        value = ConfigDict(key.default) if isinstance(key.default, dict) else key.default
        (config[section] if section else config)[name] = value
    for section in USER_NAMED_SECTIONS:
        config[section] = ConfigDict()
    return config


def small() -> ConfigDict:
    """Return `default` with towers that 2 CPU cores train in minutes, for fundus photographs.

    The model has a million parameters and sees 128 px. Short runs need initial weights that
    already separate captions (mean pooling, larger values, whitened projections), and images that
    do not show which camera took them.

    Examples:
        >>> from vclip_jax import config
        >>> mine = config.small()
        >>> mine.data.dataset, mine.total_steps = "mine", 300
        >>> mine.model.embed_dim, mine.data.image_size
        (256, 128)
    """
    config = default()
    config.data.image_size = 128
    config.data.fit = "fundus"
    config.data.decode = "fast"
    config.data.enhance = True
    config.data.augment = "geometry"

    config.model.embed_dim = 256
    config.model.vision_layers = (1, 1, 1, 1)
    config.model.vision_width = 16
    config.model.vision_pool = "mean"
    config.model.text_width = 128
    config.model.text_layers = 2
    config.model.text_heads = 4
    config.model.text_mlp_width = 256
    config.model.text_max_positions = 64
    config.model.text_dropout = 0.0
    config.model.text_initializer_range = 0.08
    config.model.text_pool = "mean"
    config.model.whiten_pairs = 480

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.beta2 = 0.98
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_grad_norm = 1.0
    return config


_SEEN = ("image_size", "fit", "image_mean", "image_std", "decode", "enhance")
"""The keys of `data` that decide what a model sees of a photograph."""


def starting_from(model: str | os.PathLike[str]) -> ConfigDict:
    """Return `small` for training a model further: its sizes, preprocessing, context and weights.

    The learning rate is a tenth of that from random weights. The vocabulary comes with the weights,
    so write captions in words that the model knows.

    Args:
        model: a workdir, a portable folder or the name of a packaged model.

    Raises:
        ValueError, OSError: one line: there is no such model, or its config.json is damaged.

    Examples:
        >>> from vclip_jax import config
        >>> mine = config.starting_from("retina-small")
        >>> mine.data.image_size, mine.restore_from, mine.optimizer.learning_rate
        (192, 'retina-small', 0.0003)
    """
    path = packaged.path_of(model) / "config.json"
    raw = read_json(path)
    config = small()
    for section, keys in (("model", None), ("data", _SEEN), ("tokenizer", ("context_length",))):
        given = raw.get(section) if isinstance(raw, dict) else None
        if not isinstance(given, dict):
            raise ValueError(f"{path} is not the configuration of a model: it has no {section!r}")
        for key, value in given.items():
            if key in config[section] and (keys is None or key in keys):
                config[section][key] = tuple(value) if isinstance(value, list) else value
    config.model.whiten_pairs = 0  # only for random weights
    config.optimizer.learning_rate = 3e-4
    config.restore_from = os.fspath(model)
    return config


def entry(section: str, **values: str | float) -> ConfigDict:
    """Return an entry of one of `USER_NAMED_SECTIONS`; keys that are not given get defaults.

    Raises:
        TypeError: the section has no key of that name.
    """
    keys = {key.name: key.default for key in USER_NAMED_SECTIONS[section]}
    if unknown := sorted(values.keys() - keys.keys()):
        raise TypeError(f"{unknown[0]} is no key of config.{section}.NAME: use {', '.join(keys)}")
    return ConfigDict(keys | values)


def zero_shot_eval(dataset: str, prompts: str, **others: str | float) -> ConfigDict:
    """Return the entry of one zero-shot evaluation in `config.evals`.

    Args:
        dataset, prompts, others: the keys of an entry, see "evals" in `docs/config.md`.

    Examples:
        >>> from vclip_jax import config
        >>> mine = config.small()
        >>> mine.evals.fives = config.zero_shot_eval("fives", "zh/fives", split="test")
        >>> mine.evals.fives.prompts
        'zh/fives'
    """
    return entry("evals", dataset=dataset, prompts=prompts, **others)


def published_eval(name: str) -> ConfigDict:
    """Return the entry of a dataset in `config.evals`: NAME or NAME/CONFIG.

    Prompts and split are those of the catalogue, see `vclip datasets list`. For another name, of a
    dataset built by `vclip datasets build generic`, they are those of `generic`.

    Examples:
        >>> from vclip_jax import config
        >>> mine = config.small()
        >>> mine.evals.fives = config.published_eval("fives")
        >>> mine.evals.fives.split
        'train+test'
    """
    dataset = DATASETS.get(name.partition("/")[0], DATASETS["generic"])
    return zero_shot_eval(name, dataset.prompts, split=dataset.split)


def system(weights: str = "", **others: str) -> ConfigDict:
    """Return the entry of one model in `config.systems`.

    Args:
        weights, others: the keys of an entry, see "systems" in `docs/config.md`.

    Examples:
        >>> from vclip_jax import config
        >>> mine = config.small()
        >>> mine.systems.quickstart = config.system("runs/quickstart")
        >>> mine.systems.quickstart.weights
        'runs/quickstart'
    """
    return entry("systems", weights=weights, **others)
