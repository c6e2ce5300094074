"""The columns of the Parquet file, and the rows of embedded photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from vclip_jax.data.record import FACTS

FINDING: Final = "finding:"
"""The start of the name of a finding's column."""
_PICTURE, _ERROR = "sha256", "error"
"""The columns that only parts have: SHA-256 of the encoded picture, and the reason of a reject."""


@dataclass(frozen=True)
class Seen:
    """A photograph as it was read."""

    row: Mapping[str, Any]
    """The values of the columns but `gate` and `vector`, by name; a missing value is null."""
    picture: str = ""
    """SHA-256 of the encoded picture in hexadecimal; "" if the file cannot be read."""
    square: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    """uint8 `[size, size, 3]`, the model's view; None if the photograph cannot be read."""
    gate: tuple[str, ...] = ()
    """The reasons to refuse the photograph, see `data.images.gate`."""
    error: str = ""
    """The reason why the photograph cannot be read, or ""."""


def schema(dimensions: int, findings: Sequence[str], captions: bool) -> pyarrow.Schema:
    """Return the columns of the file.

    Args:
        dimensions: the numbers of a vector.
        findings: the names of the findings.
        captions: whether there is a column for captions.
    """
    text = ["key", "split", "label", *(["caption"] if captions else []), "patient", *FACTS]
    return pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in text),
            *((f"{FINDING}{name}", pyarrow.int8()) for name in findings),
            ("gate", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32(), dimensions)),
        ]
    )


def texts(columns: pyarrow.Schema) -> list[str]:
    """Return the names of the columns of text, whose values repeat."""
    return [column.name for column in columns if column.type == pyarrow.string()]


def part(
    seen: Sequence[Seen], vectors: npt.NDArray[np.float32], columns: pyarrow.Schema
) -> pyarrow.Table:
    """Return the rows of photographs, those that cannot be read included.

    Args:
        seen: the photographs.
        vectors: float32 `[m, dimensions]`, of the `m` photographs that can be read.
        columns: the result of `schema`.
    """
    embedded = np.zeros((len(seen), columns.field("vector").type.list_size), np.float32)
    embedded[[not one.error for one in seen]] = vectors
    values: dict[str, list[Any]] = {
        "gate": ["; ".join(one.gate) for one in seen],
        _PICTURE: [one.picture for one in seen],
        _ERROR: [one.error for one in seen],
    }
    extended = columns
    for name in (_PICTURE, _ERROR):
        extended = extended.append(pyarrow.field(name, pyarrow.string()))
    arrays: list[pyarrow.Array] = []
    for column in extended:
        if column.name == "vector":
            flat = pyarrow.array(embedded.ravel())
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, type=column.type))
        else:
            cells = values.get(column.name) or [one.row.get(column.name) for one in seen]
            arrays.append(pyarrow.array(cells, column.type))
    return pyarrow.Table.from_arrays(arrays, schema=extended)


def kept(rows: pyarrow.Table) -> pyarrow.Table:
    """Return the rows of a part that belong into the file."""
    good = rows.filter(pyarrow.compute.equal(rows[_ERROR], ""))
    return good.drop_columns([_PICTURE, _ERROR])


def rejects(rows: pyarrow.Table) -> list[tuple[str, str]]:
    """Return key and reason of each photograph of a part that cannot be read."""
    return [
        (key, error)
        for key, error in zip(rows["key"].to_pylist(), rows[_ERROR].to_pylist(), strict=True)
        if error
    ]


def sums(rows: pyarrow.Table) -> bytes:
    """Return a line for each embedded photograph of a part, in the format of `sha256sum`."""
    columns = (rows[name].to_pylist() for name in (_PICTURE, "key", _ERROR))
    lines = (
        f"{picture}  {key}\n" for picture, key, error in zip(*columns, strict=True) if not error
    )
    return "".join(lines).encode()
