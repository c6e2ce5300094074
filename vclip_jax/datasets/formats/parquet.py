"""Parquet shards as Hugging Face's `datasets` writes them: an image column, text, labels."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.own.labels import REPEATED_NUMBER, listed, value_of, whole_number
from vclip_jax.files import limits
from vclip_jax.files.errors import one_line, shown
from vclip_jax.files.foreign import check_regular, parse_json

USUAL_NAMES: Final = ("image", "img", "picture", "jpg", "png")
"""Usual names of a column with images."""


def shards(folder: Path) -> list[Path]:
    """List the .parquet files below a folder by path, without hidden ones."""
    paths = (path for path in folder.rglob("*.parquet") if path.is_file())
    return sorted(
        path
        for path in paths
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def image_columns(path: Path) -> list[str]:
    """List the columns with encoded images (a struct with `bytes`, or binary), usual names first.

    Raises:
        ValueError: one line: the file is not a Parquet file.
    """
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        if kinds.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    columns = [field.name for field in _schema(path) if holds_bytes(field.type)]
    usual = [name for name in USUAL_NAMES if name in columns]
    return usual + [name for name in columns if name not in usual]


def image_column(path: Path) -> str:
    """Return the likeliest of `image_columns`, or ""."""
    return next(iter(image_columns(path)), "")


def flat_columns(path: Path) -> list[str]:
    """List the columns with numbers or text, or lists of them."""
    import pyarrow.types as kinds

    def flat(kind: Any) -> bool:
        if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
            return flat(kind.value_type)
        return not (kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind))

    return [field.name for field in _schema(path) if flat(field.type)]


def class_names(path: Path, column: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of a label column's values, and whether they are ordered.

    The names come from the file's metadata as `datasets` writes it, or from pandas' ordered
    category; without either there are none.
    """
    schema = _schema(path)
    try:
        note = (schema.metadata or {}).get(b"huggingface", b"{}")
        feature = parse_json(note, "huggingface")["info"]["features"][column]
        while not isinstance(feature, dict) or "names" not in feature:  # a list of labels
            feature = feature[0] if isinstance(feature, list) else feature["feature"]
        return tuple(map(str, feature["names"])), False
    except (ValueError, KeyError, TypeError, IndexError):
        pass
    return _categories(path, column), bool(_categories(path, column))


def _categories(path: Path, column: str) -> tuple[str, ...]:
    import pyarrow

    schema = _schema(path)
    if column not in schema.names:
        raise ValueError(f"{path}: there is no column {shown(column)}")
    kind = schema.field(column).type
    if not (pyarrow.types.is_dictionary(kind) and kind.ordered):
        return ()
    try:
        with limits.open_parquet(path) as file:
            chunks = file.read(columns=[column]).column(column).chunks
    except limits.arrow_errors(OSError, limits.TooMuchError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    return tuple(map(str, chunks[0].dictionary.to_pylist())) if chunks else ()


def names_of(cell: str, names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the classes of a cell by the file's names for its numbers.

    Returns:
        (classes, ""), without a class, with one, or with several of a list; or ((), reason of a
        reject).

    Raises:
        ValueError: one line: a number has no name.
    """
    values = listed(cell)
    numbers = [whole_number(one) for one in ([cell] if values is None else values)]
    named = []
    for number in numbers:
        if not re.fullmatch(r"-?\d{1,9}", number, re.ASCII):
            named.append(value_of(number))
        elif int(number) >= len(names):
            raise ValueError(
                f"the label is {number}, but the file names {len(names)} classes, 0 to "
                f"{len(names) - 1}: correct the row or the names"
            )
        elif int(number) >= 0:
            named.append(names[int(number)])
    decimals = [number for number in numbers if number.isdecimal()]
    if len(set(decimals)) < len(decimals):  # such as a list of 0 and 1 for each class
        return (), REPEATED_NUMBER
    return tuple(dict.fromkeys(filter(None, named))), ""


def rows(path: Path, image: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Yield for each row the image's file name and the values of `columns`, without reading images.

    The file name is the one stored with the bytes, "" if there is none.

    Raises:
        ValueError: one line: the file is damaged.
    """
    import pyarrow.types as kinds

    kind = _schema(path).field(image).type
    named = kinds.is_struct(kind) and kind.get_field_index("path") >= 0
    wanted = [*([f"{image}.path"] if named else []), *columns]
    try:
        if not wanted:
            with limits.open_parquet(path) as file:
                count = file.metadata.num_rows
            yield from (("", []) for _ in range(count))
            return
        for batch in limits.parquet_batches(path, wanted):
            count = batch.num_rows
            names = [""] * count
            if named:
                names = [(value or {}).get("path") or "" for value in batch[image].to_pylist()]
            values = [batch[column].to_pylist() for column in columns]
            for row in range(count):
                yield names[row], [column[row] for column in values]
    except limits.arrow_errors(OSError, limits.TooMuchError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def can_be_keys(keys: Sequence[str]) -> bool:
    """Return whether names are non-empty and all different, so that they can be keys."""
    return all(keys) and len(set(keys)) == len(keys)


def _schema(path: str | os.PathLike[str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        check_regular(path)
        schema = pyarrow.parquet.read_schema(path)
    except limits.arrow_errors(OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({one_line(error)})") from error
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        name = shown(twice[0])
        raise ValueError(f"{path}: several columns are called {name}: rename all but one")
    return schema
