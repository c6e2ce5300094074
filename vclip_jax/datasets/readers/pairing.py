"""Pictures and the rows of label tables, joined by name.

Names are file names without the suffix, compared without regard to case: mirrors of a dataset
convert .tif to .png and lose capitals, while tables keep the names as published.
"""

import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vclip_jax.datasets.formats.tables import Row, whole
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, Blob, Reject


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file."""

    name: str
    """The file's name without its suffix."""
    blob: Blob


@dataclass(frozen=True, slots=True)
class NamedRow:
    """A row of a label table with the name of its picture, as spelt in the table."""

    name: str
    row: Row


def stem(name: str) -> str:
    """Return the name that a cell gives a picture; compare it without regard to case.

    It has no folders (with either slash), no white space around it and no image suffix; any other
    dot stays.
    """
    path = PurePosixPath(name.strip().replace("\\", "/"))
    return path.stem.rstrip() if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def pictures_below(folder: Path) -> list[Picture]:
    """List the images in a folder and its subfolders, deeper ones later.

    In one folder .jpg files come last: next to another file of the same name they are the copy.
    """
    paths = [path for path in folder.rglob("*") if _is_image(path.relative_to(folder).parts)]
    paths.sort(key=lambda path: (len(path.parts), path.suffix.lower() in (".jpg", ".jpeg"), path))
    return [Picture(path.stem, Blob(str(path))) for path in paths if path.is_file()]


def pictures_in_zip(path: Path) -> list[Picture]:
    """List the images in a .zip, sorted by name; only the archive's directory is read.

    Raises:
        ValueError: one line: the file cannot be read, or is not a .zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot read the archive: {error}") from error
    return [
        Picture(PurePosixPath(member).stem, Blob(str(path), member))
        for member in members
        if _is_image(PurePosixPath(member).parts)
    ]


def by_name(
    pictures: Iterable[Picture], rejects: list[Reject], *, prefix: str = ""
) -> dict[str, Picture]:
    """Map lower-case names to pictures; of several with one name the first is kept.

    Args:
        pictures: the pictures.
        rejects: receives the others, as "duplicate image".
        prefix: prefix of the rejects' keys.
    """
    named: dict[str, Picture] = {}
    for picture in pictures:
        first = named.setdefault(picture.name.lower(), picture)
        if first is not picture:
            detail = f"{picture.blob}, besides {first.blob}"
            rejects.append(Reject(prefix + picture.name, "duplicate image", detail))
    return named


def by_row(
    entries: Iterable[NamedRow],
    pictures: Container[str],
    values: Sequence[str],
    table: Path,
    rejects: list[Reject],
    *,
    prefix: str = "",
) -> dict[str, NamedRow]:
    """Map lower-case names to a table's rows, one row a picture, in the table's order.

    Args:
        entries: the rows.
        pictures: the lower-case names of the pictures.
        values: the columns that are compared.
        table: the table's path, for `rejects`.
        rejects: receives rows without a name ("missing name"), the second and later of rows that
            agree ("duplicate row"), all rows that do not agree ("conflicting rows"), since the
            correct one is unknown, and rows without a picture ("missing image").
        prefix: prefix of the rejects' keys.
    """
    grouped: dict[str, list[NamedRow]] = {}
    for entry in entries:
        grouped.setdefault(entry.name.lower(), []).append(entry)
    for entry in grouped.pop("", []):
        detail = f"{table.name}: {entry.row}"
        rejects.append(Reject(f"{prefix}row without a name", "missing name", detail))
    unique = {}
    for name, group in grouped.items():
        cells = [[entry.row[column] for column in values] for entry in group]
        plain = [[_plain(cell) for cell in row] for row in cells]
        agree = all(row == plain[0] for row in plain)
        if agree and name in pictures:
            unique[name] = group[0]
        elif agree:
            detail = f"{table.name} lists it, there is no such file"
            rejects.append(Reject(prefix + group[0].name, "missing image", detail))
        for entry, row in zip(group[agree:], cells[agree:], strict=True):
            reason = "duplicate row" if agree else "conflicting rows"
            detail = f"{table.name}: {entry.name} {', '.join(row)}"
            rejects.append(Reject(prefix + entry.name, reason, detail))
    return unique


def join(
    pictures: Mapping[str, Picture],
    rows: Sequence[Row],
    name: str,
    values: Sequence[str],
    table: Path,
    rejects: list[Reject],
    *,
    prefix: str = "",
) -> list[tuple[str, Row, Blob]]:
    """Return key, row and image of all names that have both, in the table's order.

    Args:
        pictures: the result of `by_name`.
        rows: the table's rows.
        name: the column with the pictures' names, with or without a suffix.
        values: the columns that are compared, see `by_row`.
        table: the table's path, for `rejects`.
        rejects: receives what `by_row` leaves out, and pictures without a row ("missing row").
        prefix: prefix of the keys.
    """
    entries = [NamedRow(stem(row[name]), row) for row in rows]
    unique = by_row(entries, pictures, values, table, rejects, prefix=prefix)
    listed = {entry.name.lower() for entry in entries}
    for lower, picture in pictures.items():
        if lower not in listed:
            detail = f"{picture.blob} is not in {table.name}"
            rejects.append(Reject(prefix + picture.name, "missing row", detail))
    return [
        (prefix + entry.name, entry.row, pictures[lower].blob) for lower, entry in unique.items()
    ]


def _plain(cell: str) -> str | int:
    """Return a cell for comparison: 2 and 2.0 are the same grade."""
    number = whole(cell, 10**9)
    return cell.strip() if number is None else number


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that a reader's option has one of its values.

    Raises:
        ValueError: one line: it has not.
    """
    if value not in choices:
        raise ValueError(f"{option} must be {' or '.join(choices)}, got {value!r}")


def _is_image(parts: Sequence[str]) -> bool:
    # Archives from macOS hold a shadow "._name" of every file.
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(parts[-1]).suffix.lower() in IMAGE_SUFFIXES
