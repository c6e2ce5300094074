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
from vclip_jax.files.errors import few
from vclip_jax.files.foreign import read_bytes

_SHARD: Final = re.compile(r"(.*?)-?(\d{4,5})(-of-\d{5})?\.(parquet|pq)", re.IGNORECASE)
_MOST_CARD: Final = 4 << 20


def check_one(root: Path, files: Sequence[Path]) -> None:
    """Check that .parquet files belong to one configuration.

    Args:
        root: the folder of the dataset.
        files: all .parquet files below it.

    Raises:
        ValueError: one line: there are several configurations.
    """
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
    folders = {folder for path in files for folder in path.parents}
    for folder in sorted(one for one in folders if one.is_relative_to(root)):
        named = _named(folder / "README.md")
        there = {
            name: [
                path
                for path in files
                if any(fnmatch.fnmatch(relative(path, folder), one) for one in patterns)
            ]
            for name, patterns in named.items()
        }
        found = {name: paths for name, paths in there.items() if paths}
        if len(found) > 1:
            return {
                name: paths[0].parent if len({path.parent for path in paths}) == 1 else paths[0]
                for name, paths in found.items()
            }
    return {}


def _named(card: Path) -> dict[str, list[str]]:
    """Return configuration -> patterns of its files, from the head of a dataset's card.

    The head is YAML. This function reads the form of the Hub's cards: a line for each name and for
    each pattern.
    """
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = read_bytes(card, _MOST_CARD).decode("utf-8", "replace")
    head = re.match(r"---\r?\n(.*?)\n---", text, re.DOTALL)
    block = re.search(
        r"^configs:[^\n]*\n((?:[ \t-][^\n]*\n?|\r?\n)*)", head[1] if head else "", re.M
    )
    found: dict[str, list[str]] = {}
    patterns: list[str] = []
    for line in (block[1] if block else "").splitlines():
        key, colon, value = line.strip().removeprefix("- ").partition(":")
        values = [one.strip(" \t\"'") for one in (value if colon else key).strip(" []").split(",")]
        if key.strip() == "config_name":
            patterns = found.setdefault(values[0], [])
        elif not colon or key.strip() in ("path", "data_files"):
            patterns += filter(None, values)
    return found
