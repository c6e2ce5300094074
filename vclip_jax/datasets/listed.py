"""The photographs that a table lists, as paths: what `predict` takes besides images and folders."""

import os
from pathlib import Path

from vclip_jax.datasets.columns import image_column, named
from vclip_jax.datasets.tables import read_table


def listed_paths(table: str | os.PathLike[str], column: str = "") -> list[Path]:
    """The photographs that a table lists, in its order; each may or may not be there.

    Args:
        table: any that `read_table` reads.
        column: the column with the paths, which count from the table's folder; by default the one
            whose name is known.

    Raises:
        ValueError: one line: it cannot be read, no column is known to hold photographs, or no
            row names one.
    """
    table = Path(table)
    rows = read_table(table)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        column = named(columns, column, "--image-column") if column else image_column(columns)
    except ValueError as error:
        raise ValueError(f"{table}: {error}") from error
    if not column and rows:
        raise ValueError(f"{table}: there is no column 'image', only {columns}")
    cells = [row.get(column, "") for row in rows]
    found = [table.parent / cell.replace("\\", "/") for cell in cells if cell]
    if not found:
        raise ValueError(f"{table}: the table lists no photograph")
    return found
