"""State dictionaries in the files of other systems, and sizes inferred from their shapes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vclip_jax.files.foreign import check_regular
from vclip_jax.interop.pytorch import checkpoints

Look = Callable[[dict[str, tuple[int, ...]], dict[str, str]], None]
"""A function of the shapes and the metadata of a file, called before the arrays are read; it may
raise."""


def read_safetensors(
    path: str | Path, look: Look | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: name -> array, and the metadata.

    Raises:
        ValueError: the file is damaged, has a type that NumPy lacks, or does not fit into memory;
            or an error of `look`.
        OSError: the file cannot be read.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="np") as file:
            keys, metadata = file.keys(), file.metadata() or {}
            if look is not None:
                look({name: tuple(file.get_slice(name).get_shape()) for name in keys}, metadata)
            return {name: file.get_tensor(name) for name in keys}, metadata
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): get it again") from error
    except MemoryError as error:
        raise ValueError(f"{path} does not fit into this machine's memory ({error})") from error
    except (AttributeError, TypeError) as error:  # safetensors raises these for 8-bit floats
        raise ValueError(f"{path} has arrays of a type that cannot be read ({error})") from error


def find(source: str | Path, candidates: Sequence[str]) -> Path:
    """Return the file with the weights: `source`, or the first candidate in it if it is a folder.

    Raises:
        ValueError: the folder has none of the candidates.
    """
    source = Path(source)
    if not source.is_dir():
        return source
    path = next((source / name for name in candidates if (source / name).is_file()), None)
    if path is None:
        *others, last = candidates
        raise ValueError(f"{source} has neither {', '.join(others)} nor {last}")
    return path


def read(path: str | Path) -> dict[str, Any]:
    """Read a state dictionary, name -> array, from a file of safetensors or of `torch.save`.

    It may be the entry `state_dict` of a dictionary, and names may start with `module.`, as
    distributed training writes them.

    Raises:
        ValueError: one line: see `checkpoints.read`, or the file has no state dictionary.
        OSError: the file cannot be read.
    """
    if Path(path).suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = checkpoints.read(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path} holds no state_dict")
    return {name.removeprefix("module."): array for name, array in state.items()}


def size(found: Mapping[str, Any], default: int, *places: tuple[str, int]) -> int:
    """Return the length of an axis, from the first (name, axis) that exists, else the default."""
    for name, axis in places:
        shape = getattr(found.get(name), "shape", ())
        if len(shape) > axis:
            return shape[axis]
    return default


def blocks(found: Mapping[str, Any], stem: str) -> int:
    """Return the number of numbered modules after a stem: one more than the highest number."""
    numbers = {name.removeprefix(stem).partition(".")[0] for name in found if stem in name}
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)
