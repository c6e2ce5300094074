"""Find built datasets: data_dir/NAME/VERSION or data_dir/NAME/CONFIG/VERSION, TFDS's layout."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vclip_jax.datasets import foreign_folder
from vclip_jax.files.errors import few, first_line
from vclip_jax.files.foreign import check_paths


class DatasetError(ValueError):
    """A dataset is missing or not usable; the message is one line and says what to do."""


def built_datasets(data_dir: str | os.PathLike[str]) -> list[tuple[str, Path]]:
    """List the built datasets of a folder, sorted: ("NAME" or "NAME/CONFIG", its directory).

    Examples:
        >>> from vclip_jax.datasets.built import built_datasets
        >>> [name for name, _ in built_datasets(data_dir)]
        ['synthetic/messidor_like-32px-8-s1']
    """
    root = Path(data_dir)
    infos = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    directories = [info.parent for info in infos if _version(info.parent.name)]
    return sorted((d.parent.relative_to(root).as_posix(), d) for d in directories)


def find_dataset(name: str, data_dir: str | os.PathLike[str]) -> Path:
    """Return the directory of the newest version of a dataset.

    Raises:
        DatasetError: see `open_source`.
    """
    parts = name.split("/")
    if not 1 <= len(parts) <= 2 or not all(re.fullmatch(r"[\w.,+-]*\w", part) for part in parts):
        raise DatasetError(f"a dataset is called NAME or NAME/CONFIG, got {name!r}")
    matches = [built for built in built_datasets(data_dir) if built[0] == name]
    if not matches and len(parts) == 1:
        matches = [built for built in built_datasets(data_dir) if built[0].split("/")[0] == name]
        if len({built for built, _ in matches}) > 1:
            choices = few(sorted({built for built, _ in matches}))
            raise DatasetError(f"several datasets {name!r} are in {data_dir}, name one: {choices}")
    if not matches:
        raise DatasetError(
            f"the dataset {name!r} is not in {data_dir}: build it with "
            f"vclip datasets build {parts[0]}{_build_hint(name)} "
            f"--data-dir {data_dir}"
        )
    return max((directory for _, directory in matches), key=lambda d: _version(d.name))


def names_dataset(inputs: Sequence[str], data_dir: str | os.PathLike[str]) -> bool:
    """Return whether a command line's inputs are one built dataset, not photographs.

    Args:
        inputs: the name of one built dataset; or images, folders, lists, "-".
        data_dir: the folder of built datasets.

    Raises:
        ValueError: one line: there is neither, the name may mean both, a path does not exist, or a
            folder holds built datasets.
    """
    name = inputs[0]
    known = [one for built, _ in built_datasets(data_dir) for one in (built, built.split("/")[0])]
    built = len(inputs) == 1 and name in known
    there = name == "-" or os.path.lexists(name)
    if built and there:
        raise ValueError(
            f"{name} is both a file or folder here and a built dataset in {data_dir}: write "
            f".{os.sep}{name} for the former, or name the dataset's --split"
        )
    if len(inputs) == 1 and not (built or there):
        raise ValueError(
            f"{name}: there is no such file or folder here, and no such dataset in {data_dir} "
            "(--data-dir)"
        )
    if built:
        return True
    check_paths(inputs)
    for folder in filter(os.path.isdir, inputs):
        if inside := built_datasets(folder):
            raise ValueError(
                f"{folder} holds built datasets, not photographs: name a dataset, such as "
                f"{inside[0][0]}, and its --data-dir"
            )
    return False


def _build_hint(name: str) -> str:
    synthetic = re.fullmatch(r"synthetic/(\w+)-(\d+)px-(\d+)-s(\d+)", name)
    if synthetic:
        domain, size, count, seed = synthetic.groups()
        return f" --domain {domain} --size {size} --count {count} --seed {seed}"
    ready = re.search(r"/ready(\d+)px-(\w+)-", name)
    flags = f" --ready {ready[1]} --fit {ready[2]}" if ready else ""
    return "" if name.startswith("synthetic") else f" --source FOLDER{flags}"


def _version(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", name) else ()


def open_builder(name: str, data_dir: str | os.PathLike[str]) -> Any:
    """Return the read-only TFDS builder of a built dataset (see `open_source`)."""
    import tensorflow_datasets as tfds

    directory = find_dataset(name, data_dir)
    try:
        foreign_folder.check(directory)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{directory}: not a readable TFDS dataset: {error}") from error
    try:
        return tfds.builder_from_directory(os.fspath(directory))
    except Exception as error:  # TFDS raises many types for a damaged directory
        reason = first_line(error)
        raise DatasetError(f"{directory}: not a readable TFDS dataset: {reason}") from error
