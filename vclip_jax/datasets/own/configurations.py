"""Several configurations of a dataset in one folder, as the Hugging Face Hub has them.

    configA/train-00000-of-00002.parquet  configA/test-00000-of-00001.parquet
    configB/train-00000-of-00003.parquet  README.md, which may name them and their files

Configurations are often the same photographs with another crop or other labels, so each is a
dataset of its own.
"""

import contextlib
import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vclip_jax.datasets.own.lookup import relative, split_of
from vclip_jax.datasets.own.rows import split_of_table
from vclip_jax.files.errors import few
from vclip_jax.files.foreign import read_bytes

_SHARD: Final = re.compile(r"(.*?)-?(\d{4,5})(-of-\d{5})?\.(parquet|pq)", re.IGNORECASE)
_MOST_CARD: Final = 4 << 20


def check_one(root: Path, files: Sequence[Path]) -> None:
    """Check that .parquet files belong to one configuration, and tell their splits by name.

    Args:
        root: the folder of the dataset.
        files: all .parquet files below it.

    Raises:
        ValueError: one line: there are several configurations; or README.md gives a file a split
            that neither its name nor its folders tell.
    """
    for card, declared in _cards(root, files):
        _check_splits(root, card, declared, files)
    if len(files) < 2:
        return
    named = _by_card(root, files) or _by_folder(root, files)
    if len(named) > 1:
        raise ValueError(
            f"{root}: the .parquet files are of several configurations of a dataset "
            f"({few(named)}), which may hold the same photographs: give one of them as --source, "
            f"such as {next(iter(named.values()))}, or move the others out of the folder"
        )


def _by_folder(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Return the folders that each have the same shard of the same split."""
    places: dict[tuple[str, str], dict[str, Path]] = {}
    for path in files:
        if not (shard := _SHARD.fullmatch(path.name)):
            continue
        parts = relative(path.parent, root).split("/")
        folder = "/".join(part for part in parts if not split_of(part))
        split = split_of(shard[1]) or next(filter(None, map(split_of, parts)), shard[1])
        home = path.parent.parent if split_of(path.parent.name) else path.parent
        places.setdefault((split, shard[2]), {})[folder or "the folder itself"] = home
    found = [group for group in places.values() if len(group) > 1]
    return dict(sorted(item for group in found for item in group.items()))


def _by_card(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Return the configurations of a README.md whose files exist."""
    for card, declared in _cards(root, files):
        found: dict[str, list[Path]] = {}
        for name, _, pattern in declared:
            found.setdefault(name, []).extend(_matching(card, pattern, files))
        found = {name: paths for name, paths in found.items() if name and paths}
        if len(found) > 1:
            return {
                name: paths[0].parent if len({path.parent for path in paths}) == 1 else paths[0]
                for name, paths in found.items()
            }
    return {}


def _check_splits(
    root: Path, card: Path, declared: Sequence[tuple[str, str, str]], files: Sequence[Path]
) -> None:
    """Refuse files whose split only the card tells, unless all are for training."""
    splits = {
        path: name
        for _, name, pattern in declared
        for path in _matching(card, pattern, files)
        if split_of(name)
    }
    if set(map(split_of, splits.values())) <= {"train"}:
        return
    for path, name in splits.items():
        told = split_of_table(path, root)
        if told != split_of(name):
            raise ValueError(
                f"{path}: {card.name} puts it into the split {name!r}, its own name says "
                f"{told or 'none'}: move it into a folder {name!r}, which counts"
            )


def _matching(card: Path, pattern: str, files: Sequence[Path]) -> list[Path]:
    return [path for path in files if fnmatch.fnmatch(relative(path, card.parent), pattern)]


def _cards(root: Path, files: Sequence[Path]) -> list[tuple[Path, list[tuple[str, str, str]]]]:
    """Return each README.md at or below the root with its configuration, split and pattern."""
    folders = {folder for path in files for folder in path.parents}
    cards = [one / "README.md" for one in sorted(folders) if one.is_relative_to(root)]
    return [(card, _declared(card)) for card in cards]


def _declared(card: Path) -> list[tuple[str, str, str]]:
    """Return configuration, split and pattern of a dataset's files, as its card declares them.

    The head of a card is YAML. This function reads the form of the Hub's cards: a line for each
    name and for each pattern.
    """
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = read_bytes(card, _MOST_CARD).decode("utf-8", "replace")
    head = re.match(r"---\r?\n(.*?)\n---", text, re.DOTALL)
    block = re.search(
        r"^configs:[^\n]*\n((?:[ \t-][^\n]*\n?|\r?\n)*)", head[1] if head else "", re.M
    )
    found: list[tuple[str, str, str]] = []
    config = split = ""
    for line in (block[1] if block else "").splitlines():
        key, colon, value = line.strip().removeprefix("- ").partition(":")
        values = [one.strip(" \t\"'") for one in (value if colon else key).strip(" []").split(",")]
        if key.strip() == "config_name":
            config, split = values[0], ""
        elif key.strip() == "split":
            split = values[0]
        elif not colon or key.strip() in ("path", "data_files"):
            found += [(config, split, pattern) for pattern in values if pattern]
    return found
