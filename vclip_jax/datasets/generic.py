"""Any dataset of fundus photographs, by what is found in its folder.

In this order:

* WebDataset shards: `*.tar`, here or one or more folders down (see `webdataset`);
* tables with the column `image`: `*.csv`, `*.tsv`, `*.xlsx`, `*.xls`, `*.jsonl` or `*.parquet`. The
  column holds a path relative to the table's folder or, in .parquet as Hugging Face writes it, the
  image itself. Further columns: `caption` (or `text`), a label (by the option, else `label`),
  `split`. Hugging Face's own `metadata.csv` and `metadata.jsonl` call the paths `file_name`. A
  folder of .parquet shards is searched at any depth, other tables lie in the folder itself;
* folders of images, one a class, with train / validation / test folders above them or not.

Without a split of its own a photograph goes to train, validation or test by a hash of its key,
8:1:1; shards and tables may be named after their split (train-00000-of-00002.parquet). Where there
is no caption the class name is the caption; a label of -1 or nothing is no class.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vclip_jax.datasets import parquet, webdataset
from vclip_jax.datasets.listing import (
    IMAGE_SUFFIXES,
    Blob,
    Item,
    Listing,
    Reject,
    split_by_hash,
)
from vclip_jax.datasets.tables import read_table

SPLITS: Final = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What folders, files and cells call them."""

IMAGE_COLUMNS: Final = ("image", "file_name")
CAPTION_COLUMNS: Final = ("caption", "text")
_TABLES: Final = (".csv", ".tsv", ".xlsx", ".xls", ".jsonl")


@dataclass
class _Found:
    """What was listed, before classes have numbers."""

    key: str
    image: Blob | None
    caption: str
    label: str
    split: str
    """"" if it has none."""
    reason: str = ""
    """Why it cannot be used, if so."""
    detail: str = ""


def scan(source: str | os.PathLike[str], *, name: str = "generic", label: str = "") -> Listing:
    """List a dataset.

    Args:
        source: its folder, or one table, shard or .tar.
        name: of the built dataset.
        label: the column (or, in WebDataset's .json, the entry) that holds the class; by default
            "label", if there.

    Raises:
        ValueError: one line: nothing of the above is there, a table cannot be read, or a name or
            column is not what it must be.
    """
    root = Path(source)
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"the name of a dataset is letters, digits and underscores, got {name!r}")
    if not root.exists():
        raise ValueError(f"{root}: there is no such folder")
    tables = [root] if root.is_file() else _tables(root)
    names: tuple[str, ...] = ()
    if root.suffix == ".tar" or (root.is_dir() and webdataset.shards(root)):
        found = _from_tars(root, label)
    elif tables:
        found = []
        for table in tables:
            home = root if root.is_dir() else root.parent
            if table.suffix.lower() == ".parquet" and parquet.image_column(table):
                names = names or parquet.class_names(table, label or "label")
                found += _from_shard(table, home, label)
            else:
                found += _from_table(table, home, label, several=len(tables) > 1)
        if not any(_is_shard(table) for table in tables):
            found += _unlisted(found, root if root.is_dir() else root.parent)
    elif label:
        raise ValueError(f"{root}: there is no table, so no column {label!r}")
    else:
        _check_readable(root)
        found = _from_folders(root)
    return _listing(name, found, names)


def _listing(name: str, found: Sequence[_Found], names: tuple[str, ...]) -> Listing:
    for one in found:
        one.label = "" if one.label == "-1" else one.label
        # File names need not be UTF-8, and JSON can write halves of characters.
        fields = [_escaped(text) for text in (one.key, one.detail, one.caption, one.label)]
        if fields != [one.key, one.detail, one.caption, one.label]:
            one.key, one.detail, one.caption, one.label = fields
            one.reason = one.reason or "not Unicode"
    labels = {one.label for one in found if one.label and not one.reason}
    if names and all(text.isdecimal() and int(text) < len(names) for text in labels):
        classes, numbers = names, {str(index): index for index in range(len(names))}
    else:
        classes = _in_order(labels)
        numbers = {text: index for index, text in enumerate(classes)}
    items: list[Item] = []
    rejects: list[Reject] = []
    seen: set[str] = set()
    for one in found:
        number = numbers.get(one.label, -1)
        caption = one.caption or (classes[number] if number >= 0 else "")
        if one.reason:
            rejects.append(Reject(one.key, one.reason, one.detail))
        elif one.key in seen:
            rejects.append(Reject(one.key, "duplicate row", one.detail))
        elif not caption:
            rejects.append(Reject(one.key, "empty caption", one.detail))
        elif one.image is None:
            rejects.append(Reject(one.key, "missing image", one.detail))
        else:
            seen.add(one.key)
            split = one.split or split_by_hash(one.key)
            items.append(Item(one.key, split, one.image, caption, number))
    notes = []
    if written := sum(not one.caption and bool(one.label) for one in found if not one.reason):
        notes.append(f"{written} captions are the name of the class, for want of a caption.")
    if any(not one.split for one in found):
        notes.append("Photographs without a split of their own are split by a hash of their key.")
    return Listing(
        name=name,
        classes=classes,
        items=items,
        rejects=rejects,
        notes=notes,
        description="Fundus photographs, read by the generic reader.",
    )


def _in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sorted as numbers if all are whole numbers, else as text."""
    labels = list(labels)
    if all(re.fullmatch(r"-?\d+", text, re.ASCII) for text in labels):
        return tuple(sorted(labels, key=lambda text: (int(text), text)))
    return tuple(sorted(labels))


def _escaped(text: str) -> str:
    """The text, with what is no character written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def split_of(text: str) -> str:
    """The split that a file or folder is named after ("train-00001", "Testing"), or ""."""
    first = re.match(r"[a-z]*", text.lower())
    return SPLITS.get(first.group() if first else "", "")


# --- Tables.


def _tables(root: Path) -> list[Path]:
    """The tables that list images."""
    found = [path for path in sorted(root.iterdir()) if path.suffix.lower() in _TABLES]
    visible = [path for path in found if not path.name.startswith((".", "~$"))]
    usable = [path for path in visible if _lists(path)]
    return usable + [path for path in parquet.shards(root) if _is_shard(path) or _lists(path)]


def _check_readable(root: Path) -> None:
    """Raises ValueError if a table in the folder is broken: it may be what lists the images."""
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in _TABLES and not path.name.startswith((".", "~$")):
            read_table(path)


def _lists(table: Path) -> bool:
    try:
        rows = read_table(table)
    except ValueError:
        return False  # some other table
    return any(column in row for row in rows[:1] for column in IMAGE_COLUMNS)


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == ".parquet" and bool(parquet.image_column(path))


def _from_table(table: Path, root: Path, label: str, *, several: bool) -> Iterator[_Found]:
    rows = read_table(table)
    columns = list(dict.fromkeys(name for row in rows for name in row))  # JSON lines may differ
    image = _first(IMAGE_COLUMNS, columns)
    if not image:
        raise ValueError(f"{table}: expected the column 'image', got {columns}")
    caption = _first(CAPTION_COLUMNS, columns)
    label = _label_column(table, label, columns)
    if not caption and not label:
        raise ValueError(f"{table}: expected the column 'caption' or 'label', got {columns}")
    files: dict[str, frozenset[str]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{table.name}, row {number}"
        one = _from_row(row.get(image, "").replace("\\", "/"), where, table, root, files)
        one.caption = row.get(caption, "")
        one.label = row.get(label, "")
        split = row.get("split", "")
        one.split = SPLITS.get(split.lower(), "")
        if not one.split and several:
            one.split = split_of(table.stem)
        if split and not one.split and not one.reason:
            one.reason, one.detail = "unknown split", f"{one.detail}: {split!r}"
        yield one


def _from_row(
    text: str, where: str, table: Path, root: Path, files: dict[str, frozenset[str]]
) -> _Found:
    """Key and image of a row by its path; `files` remembers what is in a folder."""
    if not text or "\0" in text:
        return _Found(where, None, "", "", "", "missing image", f"{where}: no path")
    path = os.path.normpath(table.parent / text)  # by the text alone: links may lead elsewhere
    if not Path(path).is_relative_to(os.path.normpath(root)) or text.startswith("/"):
        return _Found(text, None, "", "", "", "outside the folder", f"{where}: {text}")
    folder, file = os.path.split(path)
    if folder not in files:
        files[folder] = _names(folder)
    key = Path(path).relative_to(os.path.normpath(root)).as_posix()
    if file not in files[folder]:
        return _Found(key, None, "", "", "", "missing image", f"{where}: {path}")
    return _Found(key, Blob(path), "", "", "", "", where)


def _names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()


def _unlisted(found: Sequence[_Found], root: Path) -> list[_Found]:
    """Images that lie beside listed ones and that no table lists."""
    listed = {one.key for one in found}
    folders = {PurePosixPath(one.key).parent for one in found if one.image}
    missing = []
    for folder in sorted(folders):
        for name in sorted(_names(os.fspath(root / folder))):
            key = (folder / name).as_posix()
            if _is_image(name) and key not in listed:
                missing.append(_Found(key, None, "", "", "", "missing row", str(root / key)))
    return missing


def _from_shard(path: Path, root: Path, label: str) -> Iterator[_Found]:
    columns = parquet.flat_columns(path)
    image = parquet.image_column(path)
    caption = _first(CAPTION_COLUMNS, columns)
    label = _label_column(path, label, columns)
    if not caption and not label:
        raise ValueError(f"{path}: expected the column 'caption' or 'label', got {columns}")
    wanted = [column for column in (caption, label, "split") if column in columns]
    rows = list(parquet.rows(path, image, wanted))
    stem = path.relative_to(root).with_suffix("").as_posix()
    # Names are noted or not, and may be the same in every row: then the place is the key.
    named = parquet.can_be_keys([name for name, _ in rows])
    for number, (name, values) in enumerate(rows):
        cells = dict(zip(wanted, map(_cell, values), strict=True))
        split = SPLITS.get(cells.get("split", "").lower(), "") or split_of(path.stem)
        yield _Found(
            key=f"{stem}/{name if named else number}",
            image=Blob(str(path), f"{image}:{number}"),
            caption=cells.get(caption, ""),
            label=cells.get(label, ""),
            split=split,
            detail=f"{path.name}, row {number}",
        )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, float)) and value == int(value):
        return str(int(value))
    return str(value).strip()


def _first(names: Sequence[str], columns: Sequence[str]) -> str:
    return next((name for name in names if name in columns), "")


def _label_column(table: Path, label: str, columns: Sequence[str]) -> str:
    if label and label not in columns:
        raise ValueError(f"{table}: there is no column {label!r} for the label, only {columns}")
    return label or _first(("label",), columns)


# --- Shards of WebDataset.


def _from_tars(root: Path, label: str) -> list[_Found]:
    samples = webdataset.scan_tars(root)
    keys = [sample.key or sample.name for sample in samples]
    # Some count anew in every shard.
    first_seen: dict[str, Path] = {}
    clash = any(
        first_seen.setdefault(key, sample.shard) != sample.shard
        for key, sample in zip(keys, samples, strict=True)
    )
    home = root if root.is_dir() else root.parent
    found = []
    for key, sample in zip(keys, samples, strict=True):
        shard = sample.shard.relative_to(home).with_suffix("").as_posix()
        text = sample.extra.get(label) if label else sample.label
        found.append(
            _Found(
                key=f"{shard}/{key}" if clash else key,
                image=sample.image,
                caption=sample.caption,
                label=_cell(text),
                split=split_of(sample.shard.stem),
                reason="invalid text" if sample.broken else "",
                detail=sample.broken or f"{sample.shard.name}: {sample.name}",
            )
        )
    return found


# --- Folders.


def _from_folders(root: Path) -> list[_Found]:
    folders = _folders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    found = [_stray(path, root, "no class") for path in _images(root)]
    for folder in splits or [root]:
        split = SPLITS[folder.name.lower()] if splits else ""
        for group in _folders(folder):
            for path in _below(group):
                key = path.relative_to(root).as_posix()
                found.append(_Found(key, Blob(str(path)), "", group.name, split, "", str(path)))
    for folder in folders if splits else []:
        if folder in splits:
            found += [_stray(path, root, "no class") for path in _images(folder)]
        else:
            found += [_stray(path, root, "no split") for path in _below(folder)]
    if not any(one.image for one in found):
        names = [path.name for path in sorted(root.iterdir()) if path.suffix.lower() in _TABLES]
        raise ValueError(
            f"{root}: neither .tar shards, nor a table with the column 'image' (.csv, .tsv, .xlsx, "
            ".parquet, .jsonl), nor folders of images named after classes"
            + (f"; {', '.join(names)} is not such a table" if names else "")
        )
    return found


def _stray(path: Path, root: Path, reason: str) -> _Found:
    return _Found(path.relative_to(root).as_posix(), None, "", "", "", reason, str(path))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _is_image(p.name) and p.is_file())


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if _is_image(name))


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
