"""Parquet shards as Hugging Face's `datasets` writes them: an image column, text, labels."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from vclip_jax.data.foreign import check_regular, parse_json
from vclip_jax.datasets import limits

_USUAL_NAMES: Final = ("image", "img", "picture", "jpg", "png")


def shards(folder: Path) -> list[Path]:
    """The .parquet files below a folder, in order of their paths; hidden ones are passed over."""
    found = (path for path in folder.rglob("*.parquet") if path.is_file())
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def image_column(path: Path) -> str:
    """The name of the column with encoded images (a struct with `bytes`, or binary), or "".

    Raises:
        ValueError: one line: it is no Parquet file.
    """
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        if kinds.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    found = [field.name for field in _schema(path) if holds_bytes(field.type)]
    usual = [name for name in _USUAL_NAMES if name in found]
    return (usual or found or [""])[0]


def flat_columns(path: Path) -> list[str]:
    """The names of the columns with numbers or text."""
    import pyarrow.types as kinds

    def flat(kind: Any) -> bool:
        return not (kinds.is_nested(kind) or kinds.is_binary(kind) or kinds.is_large_binary(kind))

    return [field.name for field in _schema(path) if flat(field.type)]


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """The names of a label column's values, where `datasets` noted them in the file's metadata."""
    note = (_schema(path).metadata or {}).get(b"huggingface", b"{}")
    try:
        feature = parse_json(note, "huggingface")["info"]["features"][column]
        return tuple(map(str, feature["names"]))
    except (ValueError, KeyError, TypeError):
        return ()


def rows(path: Path, image: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Every row's file name of the image, as noted beside its bytes ("" where it is not), and its
    values of `columns`. No image is read.

    Raises:
        ValueError: one line: the file is damaged.
    """
    import pyarrow
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
    except (pyarrow.ArrowException, OSError, limits.TooMuchError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def can_be_keys(keys: Sequence[str]) -> bool:
    """Whether names are there and all different, so that they can be keys."""
    return all(keys) and len(set(keys)) == len(keys)


def _schema(path: str | os.PathLike[str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        check_regular(path)
        return pyarrow.parquet.read_schema(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({' '.join(str(error).split())})") from error
