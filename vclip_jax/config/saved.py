"""The `config.json` of a run: written at its start, held against what a later start asks for."""

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
"""What may differ between a run and its continuation: keys, and sections with all that they hold
or held in earlier versions."""

KEPT_ON_RESUME = {key.name: key.before for key in KEYS if key.on_resume == "kept"}
"""What a continued run takes from its own config.json, whatever it is asked for -> what it did
before there was such a key."""


def flatten(config: Any, prefix: str = "", *, empty: bool = False) -> dict[str, Any]:
    """Give nested objects as dotted keys, with tuples as lists (as JSON would have them).

    Objects without keys are left out unless they are wanted, as `empty`.

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
    """A line `key = value` for every key, sorted, with values as JSON has them."""
    return "".join(
        f"{key} = {json.dumps(value)}\n" for key, value in sorted(flatten(config).items())
    )


def read(path: Path) -> dict[str, Any]:
    """The `config.json` of a run.

    Raises:
        ValueError: one line: it is not what a run writes.
    """
    try:
        content = read_json(path, constants=True)
    except ValueError as error:
        raise ValueError(f"{error}: bring it back from a copy") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object: bring it back from a copy")
    return content


def has_begun(workdir: Path) -> bool:
    """Whether a run has left figures or checkpoints in its workdir; a start that was refused before
    its first step has not."""
    return (workdir / "metrics.jsonl").exists() or any((workdir / "checkpoints").glob("[0-9]*"))


def save_or_check(config: ConfigDict, workdir: Path, *, save: bool = True) -> None:
    """Write `config.json`, or hold it against the one of the run that is being continued.

    Of several processes one is to `save`. The keys of `KEPT_ON_RESUME` are set in `config`.
    Nothing is continued where no run `has_begun`.

    Raises:
        ValueError: the run was started with another value of a key that its numbers depend on, or
            `config.json` is damaged or none of a run.
    """
    path = workdir / "config.json"
    kept = read(path) if path.exists() else {}
    if kept and "total_steps" not in kept:
        raise ValueError(f"{path} is not of a run, and is kept: choose another --workdir")
    if kept and has_begun(workdir):
        # A run of an earlier version did what the defaults of later keys stand for.
        old = flatten(default()) | KEPT_ON_RESUME | flatten(kept)
        for key in KEPT_ON_RESUME:
            config.update_from_flattened_dict({key: old[key]})
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
