"""The `config.json` of a run: written at its start, compared with the config of a later start."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vclip_jax.config.defaults import default
from vclip_jax.config.keys import KEYS, SECTIONS, keys_of
from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_text

FREE_ON_RESUME = {key.name for key in KEYS if key.on_resume == "free"} | {
    section
    for section in SECTIONS
    if section and all(key.on_resume == "free" for key in keys_of(section))
}
"""Keys that may differ between a run and its resumption, and sections of which every key may, keys
of earlier versions included."""

KEPT_ON_RESUME = {key.name: key.before for key in KEYS if key.on_resume == "kept"}
"""Keys that a resumed run takes from its own config.json -> the behaviour of runs from before the
key existed."""


def flatten(config: Any, prefix: str = "", *, empty: bool = False) -> dict[str, Any]:
    """Return a nested config as dotted keys, with tuples as lists (as JSON would have them).

    Sections without keys are left out, unless `empty`.

    Examples:
        >>> from vclip_jax import config
        >>> config.flatten({"model": {"vision_layers": (1, 1)}, "seed": 0})
        {'model.vision_layers': [1, 1], 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict) and (value or not empty):
            flat |= flatten(value, f"{prefix}{key}.", empty=empty)
        else:
            flat[prefix + key] = json.loads(json.dumps(value))
    return flat


def as_text(config: ConfigDict) -> str:
    """Return a line `key = value` for every key, sorted, with values as JSON."""
    return "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in sorted(flatten(config).items())
    )


def read(path: Path) -> dict[str, Any]:
    """Read the `config.json` of a run.

    Raises:
        ValueError: one line: the file is not one that a run writes.
    """
    try:
        content = read_json(path, constants=True)
    except ValueError as error:
        raise ValueError(f"{error}: bring it back from a copy") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object: bring it back from a copy")
    return content


def has_begun(workdir: Path) -> bool:
    """Return whether a workdir has checkpoints or the metrics of a step.

    A start that was refused leaves none, and an evaluation of another model leaves its own metrics.
    """
    if any((workdir / "checkpoints").glob("[0-9]*")):
        return True
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return any('"loss":' in line for line in file)


def save_or_check(config: ConfigDict, workdir: Path, *, save: bool = True) -> None:
    """Write `config.json`; if a run `has_begun` in the workdir, compare the config with it first.

    Of several processes, one should `save`. Keys of `KEPT_ON_RESUME` are set in `config`, and with
    `config.epochs` the steps of the run's start.

    Raises:
        ValueError: the run began with another value of a key that its numbers depend on, or
            `config.json` is damaged or not of a run.
    """
    path = workdir / "config.json"
    kept = read(path) if path.exists() else {}
    if kept and "total_steps" not in kept:
        raise ValueError(f"{path} is not of a run, and is kept: choose another --workdir")
    if kept and has_begun(workdir):
        # A run of an earlier version behaved as the defaults of later keys.
        old = flatten(default()) | KEPT_ON_RESUME | flatten(kept)
        for key in KEPT_ON_RESUME:
            config.update_from_flattened_dict({key: old[key]})
        # The steps of the epochs were counted when the run began.
        if config.epochs and config.epochs == old["epochs"] and type(old["total_steps"]) is int:
            config.total_steps = old["total_steps"]
        new = flatten(config)
        for key in sorted(old.keys() | new.keys()):
            free = any(key == f or key.startswith(f + ".") for f in FREE_ON_RESUME)
            if not free and old.get(key) != new.get(key):
                raise ValueError(
                    f"{workdir} was trained with config.{key}={old.get(key)!r}, not "
                    f"{new.get(key)!r}: set it back, or choose another --workdir (which can start "
                    f"from this run: --config.restore_from={workdir})"
                )
    if save:
        write_text(path, json.dumps(config.to_dict(), indent=2) + "\n")
