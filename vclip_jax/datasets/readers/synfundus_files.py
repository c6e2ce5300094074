"""The files of SynFundus-1M: its tables in three forms, and its images.

See `synfundus` for the forms.
"""

import codecs
import csv
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, Blob
from vclip_jax.datasets.synthetic.annotation import DISEASES
from vclip_jax.files.errors import few, one_line
from vclip_jax.files.foreign import check_regular

POSITIVE: Final = ("dr_grade", *DISEASES)
"""Columns in the order of the classes, from 1."""
ADVICE: Final = "diagnosticAdvice"
CAPTIONS: Final = (ADVICE, "text", "caption")
_DEPTH: Final = 4


@dataclass
class SourceTable:
    """A form of the dataset, streamed."""

    path: Path
    kind: str
    header: list[str]
    rows: Iterator[tuple[str, Blob | None, list[Any]]]
    """Key, image (if the row holds it), and cells."""


def open_table(root: Path, table: str) -> SourceTable:
    """Open a form of the dataset: "annotation", "gen_cond", or "auto" for the first that is there.

    Raises:
        ValueError: one line: the form is not there, or its table lacks a column.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder")
    for kind, pattern in (("annotation", "*annotation*.[ct]sv"), ("gen_cond", "*gen_cond*.[ct]sv")):
        paths = [*sorted(root.glob(pattern)), *sorted(root.glob(f"*/{pattern}"))]
        # The distributed table is preferred to others.
        distributed = [path for path in paths if path.stem == f"SynFundus-1M_{kind}"]
        if table in ("auto", kind) and paths:
            return _open_csv((distributed or paths)[0], kind)
    shards = [path for path in parquet.shards(root) if parquet.image_column(path)]
    if table == "auto" and shards:
        return _open_parquet(root, shards)
    wanted = ("annotation", "gen_cond") if table == "auto" else (table,)
    raise ValueError(
        f"{root}: not SynFundus-1M as distributed, it lacks "
        + " or ".join(f"SynFundus-1M_{kind}.csv" for kind in wanted)
        + (" or .parquet shards with images" if table == "auto" else "")
    )


def _open_csv(path: Path, kind: str) -> SourceTable:
    lines = _lines(path)
    header = next(lines, [])
    needed = ["file_name", ADVICE] if kind == "annotation" else [*POSITIVE]
    if missing := [name for name in needed if name not in header]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(missing)}, got {few(map(repr, header), 20)}"
        )
    # Rows of the conditions are numbered, by a column or by their order.
    place = (
        header.index("file_name" if kind == "annotation" else "idx")
        if (kind == "annotation" or "idx" in header)
        else -1
    )

    def rows() -> Iterator[tuple[str, Blob | None, list[Any]]]:
        number = 0
        for cells in lines:
            if not any(cells):
                continue
            if len(cells) < len(header):
                cells += [""] * (len(header) - len(cells))
            yield _stem(cells[place]) if place >= 0 else str(number), None, cells
            number += 1

    return SourceTable(path, kind, header, rows())


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield a table's cells, a line at a time; the file may have a gigabyte.

    Cells are separated by commas, tabs or semicolons, whichever is most frequent in the first line.
    The encoding is UTF-8, UTF-16 with a byte order mark, or else GB18030.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            start = file.read(1 << 20)
        start = start[: start.rfind(b"\n") + 1] or start  # not half a character
        encoding = "utf-8-sig"
        if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            encoding = "utf-16"
        elif not _is_utf8(start):
            encoding = "gb18030"
        with open(path, encoding=encoding, newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",\t;", key=first.count))
            for line in reader:
                if any("\n" in cell or "\r" in cell for cell in line):
                    raise csv.Error(f"line {reader.line_num} ends within quotes: is one too many?")
                yield [cell.strip() for cell in line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot read the table: {one_line(error)}") from error


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def _open_parquet(root: Path, shards: Sequence[Path]) -> SourceTable:
    header = parquet.flat_columns(shards[0])
    if not any(name in header for name in CAPTIONS):
        raise ValueError(
            f"{shards[0]}: expected the column text or caption, got {few(map(repr, header), 20)}"
        )
    image = parquet.image_column(shards[0])
    names = [_stem(name) for path in shards for name, _ in parquet.rows(path, image, ())]
    named = parquet.can_be_keys(names)

    def rows() -> Iterator[tuple[str, Blob | None, list[Any]]]:
        number = 0
        for path in shards:
            place = path.relative_to(root).with_suffix("").as_posix()
            for row, (_, values) in enumerate(parquet.rows(path, image, header)):
                key = names[number] if named else f"{place}/{row}"
                number += 1
                yield key, Blob(str(path), f"{image}:{row}"), values

    return SourceTable(shards[0], "parquet", header, rows())


# --- Images.


def index_images(root: Path) -> dict[str, Blob]:
    """Map names without suffix to images; a file is preferred to a member of a .zip."""
    images: dict[str, Blob] = {}
    archives: list[str] = []
    _walk(str(root), _DEPTH, images, archives)
    for archive in sorted(archives):
        try:
            check_regular(archive)
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{archive}: not a readable .zip ({one_line(error)})") from error
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES) and "__MACOSX" not in name:
                images.setdefault(_stem(name), Blob(archive, name))
    return images


def _walk(folder: str, depth: int, images: dict[str, Blob], archives: list[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name.lower()
            if name.startswith("."):
                continue
            if name.endswith(IMAGE_SUFFIXES):
                if images.setdefault(_stem(name), Blob(entry.path)).path != entry.path:
                    first = images[_stem(name)]
                    raise ValueError(f"two images are called {_stem(name)}: {first}, {entry.path}")
            elif name.endswith(".zip"):
                archives.append(entry.path)
            elif depth and entry.is_dir():
                _walk(entry.path, depth - 1, images, archives)


def _stem(name: str) -> str:
    """Return "0" for "Part0/0.PNG"; a number stays as it is."""
    last = name.replace("\\", "/").rpartition("/")[2].lower()
    return last.rpartition(".")[0] if last.endswith(IMAGE_SUFFIXES) else last
