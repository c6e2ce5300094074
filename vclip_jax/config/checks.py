"""The checks of a configuration, made before any time is spent.

An unknown key is refused with the key that was probably meant. A value that its key does not allow
(`keys`), or that contradicts another (`rules`), is refused with the values that would be allowed.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vclip_jax.config.defaults import default, entry
from vclip_jax.config.keys import KEYS, USER_NAMED_SECTIONS
from vclip_jax.config.rules import RULES, Use
from vclip_jax.files import packaged

MIXTURE = "config.data.mixture"
"""The key whose value is a mapping with names of the recipe's."""


def validate(
    config: ConfigDict, *, devices: int, processes: int = 1, training: bool = True
) -> None:
    """Check everything that needs no data; `training` needs a dataset, evaluation does not.

    Raises:
        ValueError: one line that names the key, its value and what is allowed.

    Examples:
        >>> from vclip_jax import config
        >>> from vclip_jax.config.checks import validate
        >>> mine = config.small()
        >>> validate(mine, devices=1)
        Traceback (most recent call last):
        ValueError: config.data.dataset is empty: name a dataset, for example idrid
        >>> mine.data.dataset = "idrid"
        >>> validate(mine, devices=1)
    """
    _check_keys(config, default())
    for key in KEYS:
        key.check(get(config, key.name))
    for section, keys in USER_NAMED_SECTIONS.items():
        for name, values in config[section].items():
            for key in keys:
                replace(key, name=f"{section}.{name}.{key.name}").check(
                    values.get(key.name, key.default)
                )
    for rule in RULES:
        rule(config, Use(devices, processes, training))


def of_key(key: str, error: Exception) -> ValueError:
    """Return an error about the file or dataset that a key names, beginning with the key."""
    where = isinstance(error, OSError) and error.strerror and f"{error.filename}: {error.strerror}"
    return ValueError(f"config.{key}: {where or error}")


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Put a key before the message of an error raised inside the context, see `of_key`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise of_key(key, error) from error


def check_names(config: ConfigDict) -> None:
    """Check that the datasets and files that a config names exist; builds and downloads nothing.

    Raises:
        ValueError: one line that names the key.
    """
    # Imported here, so that wrong values are refused without waiting for these imports.
    from vclip_jax import prompts
    from vclip_jax.datasets.ingest.prepare import needs_source

    if config.predictions_secret:
        with naming("predictions_secret"):
            if not os.stat(config.predictions_secret).st_size:
                raise ValueError(
                    f"{config.predictions_secret} is empty: put a random secret into it"
                )
    vocab = config.tokenizer.vocab
    if vocab != "captions" and not vocab.startswith("hub:"):
        with naming("tokenizer.vocab"):
            os.stat(vocab)
    sections = {f"evals.{name}": task for name, task in config.evals.items()}
    if config.data.dataset:
        sections["data"] = config.data
    for name in sorted(config.data.mixture):
        with naming(f"data.mixture.{name}"):
            needs_source(name.partition(":")[0], config.data.data_dir)
    for section, values in sections.items():
        with naming(f"{section}.dataset"):
            to_build = needs_source(values.dataset, config.data.data_dir)
        if to_build and values.source:
            with naming(f"{section}.source"):
                os.stat(values.source)
    for name, task in config.evals.items():
        if task.prompts != "labels" and not config.systems:  # each system has its own prompts
            with naming(f"evals.{name}.prompts"):
                prompts.load(task.prompts)


def check_scored(config: ConfigDict, workdir: Path) -> None:
    """Check that there is a model for `vclip eval`; one on the Hub is not asked for.

    Raises:
        ValueError: one line: `config.restore_from`, or else the workdir, names none.
    """
    if not config.restore_from and not (workdir / "checkpoints").is_dir():
        raise ValueError(
            f"{workdir} has no checkpoint to evaluate: train first, or name another model "
            "(vclip eval --model, config.restore_from)"
        )
    if config.restore_from and not config.restore_from.startswith("hub:"):
        with naming("restore_from"):
            packaged.check_named(config.restore_from)


def _check_keys(config: Any, reference: Any, prefix: str = "config") -> None:
    """Refuse keys that are not in the reference; `USER_NAMED_SECTIONS` may hold any names."""
    for key in config:
        _check_key(key, reference, prefix)
        named = prefix == "config" and key in USER_NAMED_SECTIONS
        if isinstance(config[key], ConfigDict) and f"{prefix}.{key}" != MIXTURE and not named:
            _check_keys(config[key], reference[key], f"{prefix}.{key}")
    if prefix == "config":
        for section in USER_NAMED_SECTIONS:
            for name, value in (config.get(section) or {}).items():
                _check_keys(value, entry(section), f"config.{section}.{name}")


def _check_key(key: str, reference: Any, prefix: str) -> None:
    if key in reference:
        return
    section = prefix.removeprefix("config").removeprefix(".")
    if close := suggestion(key, section):
        steps = "epoch" in key.lower() and close != "epochs"
        unit = " (steps, not epochs)" if steps else ""
        raise ValueError(f"unknown key {prefix}.{key}: did you mean config.{close}{unit}?")
    hint = f"{prefix} has {', '.join(reference)}" if section else "docs/config.md lists all keys"
    raise ValueError(f"unknown key {prefix}.{key}: {hint}")


def suggestion(name: str, section: str = "") -> str:
    """Return the key that was probably meant, with its section; "" if none is close.

    Args:
        name: the unknown key as it was written.
        section: the section in which it was written, "" for the top.
    """
    words = _plain(name.rpartition(".")[2])
    keys = list(_keys(default()))
    if (named := section.partition(".")[0]) in USER_NAMED_SECTIONS:
        keys = [f"{section}.{key}" for key in entry(named)]
    names: dict[str, list[str]] = {}
    for key in keys:
        names.setdefault(_plain(key.rpartition(".")[2]), []).append(key)
    here = [key for key in keys if key.rpartition(".")[0] == section]
    if words in names:  # the right name in the wrong section
        return names[words][0]
    for known in KEYS:
        if known.name in keys and words in map(_plain, known.aliases.split()):
            return known.name
    for among in (here, keys):
        close = difflib.get_close_matches(
            words, [_plain(key.rpartition(".")[2]) for key in among], n=1, cutoff=0.8
        )
        if close:
            return next(key for key in among if _plain(key.rpartition(".")[2]) == close[0])
    return ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, sections included."""
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")


def check_overrides(argv: Sequence[str]) -> None:
    """Check the keys in `--config.a.b=value` arguments, before any value is set.

    Raises:
        ValueError: one line that names the closest key.
    """
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)", argument)
        keys = match[1].split(".") if match else []
        reference: Any = default()
        for depth, key in enumerate(keys):
            prefix = ".".join(["config", *keys[:depth]])
            section = prefix.removeprefix("config.")
            if prefix == MIXTURE:  # all that follows is a name, dots included
                break
            if section in USER_NAMED_SECTIONS:  # this part is a name of the recipe's
                reference = entry(section)
                continue
            if not isinstance(reference, ConfigDict):
                raise ValueError(f"{prefix} is a value and has no key {key!r}")
            _check_key(key, reference, prefix)
            reference = reference[key]


def check_entries(argv: Sequence[str], recipe: ConfigDict) -> None:
    """Check that `--config.evals.NAME.key=value` and its like set entries that the recipe has.

    Raises:
        ValueError: one line that lists the recipe's entries.
    """
    for argument in argv:
        match = re.match(r"--?config\.(\w+)\.([^=.]+)", argument)
        if match is None or match[1] not in USER_NAMED_SECTIONS:
            continue
        section, name = match.groups()
        if name not in (names := sorted(recipe[section])):
            known = f"use {', '.join(names)}, or" if names else "it has none;"
            close = difflib.get_close_matches(name, names, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"{known} add it there"
            raise ValueError(f"config.{section}.{name}: the recipe has no such entry: {remedy}")


def get(config: Any, key: str) -> Any:
    """Return the value of a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
