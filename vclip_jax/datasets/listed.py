"""The photographs that a table lists, as paths: what `predict` takes besides images and folders."""

import os
from pathlib import Path

from vclip_jax.datasets.columns import Wanted
from vclip_jax.datasets.folders import only_folders, walk
from vclip_jax.datasets.lookup import Photographs
from vclip_jax.datasets.rows import image_column, image_finder, path_of
from vclip_jax.datasets.tables import read_tables


def listed_paths(table: str | os.PathLike[str], column: str = "") -> list[Path]:
    """The photographs that a table lists, in its order; each may or may not be there.

    The table is read as `build generic` reads it: any encoding, separator and form, columns of
    usual names, and paths or ids as people write them.

    Args:
        table: .csv, .tsv, .xlsx, .jsonl, .parquet and so on.
        column: the column with the paths, which count from the table's folder; by default the one
            whose name is known.

    Raises:
        ValueError: one line: it cannot be read, no column is known to hold photographs, or no
            row names one.
    """
    path, wanted = Path(table), Wanted(image=column)
    near = Photographs(only_folders(path.parent, [""]).photographs)
    tables = read_tables(path, image_finder(wanted))
    cells = [
        row[name]
        for one in tables
        if (name := image_column(one, path.parent, near, wanted))
        for _, row in one.rows
        if row.get(name)
    ]
    if not cells:
        raise ValueError(
            f"{path}: the table lists no photograph (its columns are {list(tables[0].columns)})"
        )
    found = [_direct(path.parent, cell) for cell in cells]
    if any(map(os.path.isfile, found)):
        return found
    # None is there: ids, or paths of another computer.
    far = Photographs(walk(path.parent).photographs)
    start = far.below(cells)
    keys = [far.find(path_of(cell, start)) for cell in cells]
    return [
        one if reason else path.parent / key for one, (key, reason) in zip(found, keys, strict=True)
    ]


def _direct(home: Path, cell: str) -> Path:
    """The path as it stands, else with the slashes of Windows turned."""
    text = cell.replace("\0", "?")
    as_written = home / text
    return as_written if os.path.isfile(as_written) else home / text.replace("\\", "/")
