"""The photographs of a table, as paths, which `predict` accepts besides images and folders."""

import os
from pathlib import Path

from vclip_jax.datasets.formats.tables import read_tables
from vclip_jax.datasets.own.columns import Wanted
from vclip_jax.datasets.own.folders import only_folders, walk
from vclip_jax.datasets.own.lookup import Photographs
from vclip_jax.datasets.own.photograph_columns import by_eye, image_finder
from vclip_jax.datasets.own.rows import find, is_rooted
from vclip_jax.files.errors import few


def listed_paths(table: str | os.PathLike[str], notes: list[str] | None = None) -> list[Path]:
    """List a table's photographs, in its order; each may or may not exist.

    The table is read as by `build generic`: any encoding, separator and format, columns of usual
    names, and paths or ids as people write them.

    Args:
        table: .csv, .tsv, .xlsx, .jsonl, .parquet and so on.
        notes: receives a sentence on each guess, and on rows that name no photograph.

    Raises:
        ValueError: one line: the table cannot be read, no column is known to hold photographs, or
            no row names one.
    """
    path, wanted = Path(table), Wanted()
    near = Photographs(only_folders(path.parent, [""]).photographs)
    tables = read_tables(path, image_finder(wanted))
    named = [(one, by_eye(one, path.parent, near, wanted)) for one in tables]
    if not any(eyes for _, eyes in named):
        raise ValueError(
            f"{path}: there is no column 'image' or of another usual name, only "
            f"{few(map(repr, tables[0].columns), 20)}"
        )
    rows = [row.get(name, "") for one, eyes in named for _, row in one.rows for _, name in eyes]
    cells = [cell for cell in rows if cell]
    if not cells:
        raise ValueError(f"{path}: the list names no image")
    if notes is not None:
        notes += [f"{path}: {note}" for one, _ in named for note in one.notes]
        if len(cells) < len(rows):
            notes.append(f"{path}: {len(rows) - len(cells)} of {len(rows)} rows name no image")
    paths = [_direct(path.parent, cell) for cell in cells]
    exist = list(map(os.path.isfile, paths))
    if all(exist):
        return paths
    # The other cells are ids, or paths of another computer.
    far = Photographs(walk(path.parent).photographs)
    start = far.below(cells)
    rooted = is_rooted(cells, start, far)
    keys = [find(cell, start, rooted, far) for cell in cells]
    # A photograph that two paths fit by their end is named by neither.
    naming: dict[str, set[str]] = {}
    for cell, is_there, (key, _, end) in zip(cells, exist, keys, strict=True):
        if not (is_there and end):
            naming.setdefault(key, set()).add(cell)
    clear = [
        not is_there and not reason and not (end and len(naming[key]) > 1)
        for is_there, (key, reason, end) in zip(exist, keys, strict=True)
    ]
    if notes is not None and (ends := sum(k[2] and c for k, c in zip(keys, clear, strict=True))):
        notes.append(f"{path}: {ends} rows name paths outside the folder by their end")
    return [
        path.parent / key if ok else one
        for one, (key, _, _), ok in zip(paths, keys, clear, strict=True)
    ]


def _direct(home: Path, cell: str) -> Path:
    """Return the path as written if it exists, else with Windows' backslashes replaced."""
    text = cell.replace("\0", "?")
    as_written = home / text
    return as_written if os.path.isfile(as_written) else home / text.replace("\\", "/")
