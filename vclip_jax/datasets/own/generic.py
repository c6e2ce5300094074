"""Any dataset of fundus photographs, recognised by the content of its folder.

In this order:

* Chinese-CLIP's files: `*_imgs.tsv` with `*_texts.jsonl`, or LMDB databases, at any depth (see
  `chinese_clip`);
* WebDataset shards: `*.tar`, at any depth (see `webdataset`);
* tables: `*.csv`, `*.tsv` (`.tab`, `.psv`), `*.xlsx`, `*.xls`, `*.jsonl`, `*.parquet` (`.pq`), and
  `*.json` and `*.txt` that list photographs, at any depth. A column holds paths or ids of
  photographs (see `columns` and `lookup`) or, in .parquet as Hugging Face writes it, the images
  themselves. Further columns: caption, class, split. A table that cannot be read or understood is
  an error: its folder is never read without it;
* folders of images, one a class, with or without train / validation / test folders above or below.

All photographs of the folder are listed or rejected. A photograph without a split of its own (from
a column, or the names of tables or folders) goes to train, validation or test by a hash of its key,
8:1:1. Photographs of one patient, and the eyes of a row that holds both, go by one hash. Without a
caption the class name is the caption. Columns of patient, eye, sex, age, camera, site, visit and
quality are kept (see `facts`). Several diseases of a photograph, from cells with several labels or
from columns of flags, are findings (see `rating`). Guesses are noted.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import parquet
from vclip_jax.datasets.formats.tables import Table, read_tables
from vclip_jax.datasets.listing import IMAGE_SUFFIXES, PARQUET, Listing
from vclip_jax.datasets.own import chinese_clip, configurations, embedded
from vclip_jax.datasets.own.assembly import listing_of
from vclip_jax.datasets.own.chosen import choose
from vclip_jax.datasets.own.class_folders import from_folders
from vclip_jax.datasets.own.classes import SPELLINGS, Classes
from vclip_jax.datasets.own.columns import Wanted
from vclip_jax.datasets.own.embedded import from_tars
from vclip_jax.datasets.own.folders import ARCHIVES, FOREIGN_TABLES, Folder, only_folders, walk
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.labels import listed
from vclip_jax.datasets.own.lookup import Photographs, check_tests, relative, split_of_path
from vclip_jax.datasets.own.names import given_names
from vclip_jax.datasets.own.photograph_columns import by_eye, image_finder
from vclip_jax.datasets.own.rows import found_in, unlisted
from vclip_jax.files.errors import few


def scan(
    source: str | os.PathLike[str],
    *,
    name: str = "generic",
    label: str = "",
    image_column: str = "",
    caption_column: str = "",
    label_column: str = "",
    split_column: str = "",
    group_column: str = "",
    finding_columns: str = "",
    classes: str = "",
    ordered: str = "no",
    spellings: str = "refuse",
) -> Listing:
    """List a dataset.

    Args:
        source: its folder, or one table, shard or .tar.
        name: name of the built dataset.
        label: the same as `label_column`.
        image_column: the column with paths or ids of photographs; by default one of a usual name.
        caption_column: the column with captions, likewise.
        label_column: the column (or, in WebDataset's .json, the entry) with classes, likewise.
        split_column: the column with train, validation and test, likewise.
        group_column: the column that names the patients, likewise.
        finding_columns: the columns that rate a disease or sign each, separated by commas; by
            default all columns of flags in a table with neither caption nor label.
        classes: the names of the classes in their order, separated by commas; labels that are
            numbers count from the first, 0. By default numbers in order, else names in alphabetical
            order, unless the files give an order.
        ordered: "yes" if the classes are grades, in this order.
        spellings: treatment of classes that differ only by case, width or white space: "refuse",
            "merge" or "keep".

    Raises:
        ValueError: one line: nothing of the above exists, a table cannot be read or understood, or
            an argument is invalid.
    """
    root = Path(source)
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"the name of a dataset is letters, digits and underscores, got {name!r}")
    if not root.exists():
        raise ValueError(f"{root}: there is no such folder")
    if label and label_column and label != label_column:
        raise ValueError(f"--label {label} and --label-column {label_column} contradict each other")
    if spellings not in SPELLINGS or ordered not in ("no", "yes"):
        raise ValueError(f"spellings are {', '.join(SPELLINGS)}, and ordered is no or yes")
    findings = given_names(finding_columns, "columns") if finding_columns else ()
    wanted = Wanted(
        image_column, caption_column, label_column or label, split_column, group_column, findings
    )
    given = given_names(classes) if classes else ()
    found, order, graded, notes = _read(root, wanted, bool(given))
    known = Classes(order, given, ordered == "yes" or (graded and not given), spellings)
    return listing_of(name, found, known, notes, patients_given=bool(group_column))


Kinds = tuple[list[Found], tuple[str, ...], bool, list[str]]
"""Photographs, the files' order of classes, whether they are grades, and notes."""


def _read(root: Path, wanted: Wanted, one_class: bool) -> Kinds:
    if root.is_file() and root.suffix.lower() == ".tar":
        names = [path for path in [root.with_name(embedded.CLASS_NAMES)] if path.is_file()]
        return _from_shards([root], root.parent, wanted, [] if one_class else names)
    if root.is_file():
        if splits := chinese_clip.splits_of_file(root):
            found, notes = chinese_clip.from_splits(splits, root.parent, wanted)
            return found, (), False, notes
        return _from_one_table(root, wanted)
    folder = walk(root)
    splits, derived = chinese_clip.splits_in(folder)
    if folder.foreign_tables:
        raise ValueError(
            f"{folder.foreign_tables[0]}: tables of this format are not read: unpack it, or save "
            "it as .csv or .parquet, or move it out of the folder"
        )
    names = [one for one in folder.perhaps_tables if one.name.lower() == embedded.CLASS_NAMES]
    names = names if folder.tars and not one_class else []
    folder.perhaps_tables = [path for path in folder.perhaps_tables if path not in names]
    listed = Photographs(folder.photographs if folder.perhaps_tables else ())
    tables = folder.tables + [
        path for path in folder.perhaps_tables if _is_table(path, listed, wanted)
    ]
    for path in set(folder.perhaps_tables) - set(tables):
        folder.others[path.suffix.lower()] += 1
    notes = folder.notes() + derived
    if splits:
        others = [*folder.tars, *tables]
        if others:
            raise ValueError(_two_kinds(root, splits[0].images, others[0]))
        found, more = chinese_clip.from_splits(splits, root, wanted)
        return found + unlisted(found, folder, everywhere=True), (), False, notes + more
    if folder.tars:
        if tables:
            raise ValueError(_two_kinds(root, folder.tars[0], tables[0]))
        found, order, graded, more = _from_shards(folder.tars, root, wanted, names)
        return found + unlisted(found, folder, everywhere=True), order, graded, notes + more
    if tables:
        if form := next((path for path in tables if "submission" in path.stem.casefold()), None):
            raise ValueError(
                f"{form}: by its name it holds no labels, but is a competition's form to fill in: "
                "move it out of the folder, or rename it if its labels are right"
            )
        found, order, graded, more = _from_tables(tables, folder, wanted)
        return found + unlisted(found, folder, everywhere=True), order, graded, notes + more
    if wanted.named:
        raise ValueError(f"{root}: there is no table, so no column {wanted.named[0]!r}")
    if not any("/" in key for key in folder.photographs):
        raise ValueError(
            f"{root}: neither .tar shards, nor Chinese-CLIP's files, nor a table with the column "
            "'image' (.csv, .tsv, .xlsx, .parquet, .jsonl), nor folders of images named after "
            f"classes{_lies(folder)}"
        )
    found, more = from_folders(folder, one_class=one_class)
    return found, (), False, notes + more


def _two_kinds(root: Path, one: Path, other: Path) -> str:
    return (
        f"{root}: both {relative(one, root)} and {relative(other, root)} list photographs: give "
        "one of them as --source, or a folder of one kind"
    )


def _from_shards(tars: Sequence[Path], root: Path, wanted: Wanted, files: Sequence[Path]) -> Kinds:
    """Read WebDataset's shards, with the names of their classes if a file has them."""
    found, notes = from_tars(tars, root, wanted)
    if names := embedded.names_of_classes(files, found):
        notes.append(f"{files[0].name} names the classes: 0 is {names[0]!r}.")
    elif files:
        notes.append(f"{files[0].name} is not read: the labels are not numbers.")
    return found, names, False, notes


def _lies(folder: Folder) -> str:
    """Describe the files in a folder without a dataset, for an error message."""
    archives = [path.name for path in folder.archives[:3]]
    parts = [f"unpack {', '.join(archives)}"] if archives else []
    if folder.photographs:
        parts.append(f"{len(folder.photographs)} images are in no class folder")
    if folder.databases:
        parts.append(f"{folder.databases[0]} is not one of Chinese-CLIP's imgs and pairs")
    if folder.hidden:
        parts.append(f"{len(folder.hidden)} are hidden, such as {folder.hidden[0]}")
    if folder.unusable:
        key, (reason, detail) = next(iter(folder.unusable.items()))
        parts.append(f"{len(folder.unusable)} cannot be read, such as {key}: {reason}, {detail}")
    return f"; {'; '.join(parts)}" if parts else ""


def _from_one_table(path: Path, wanted: Wanted) -> Kinds:
    """Read a table that is the source itself: its photographs, and unlisted ones next to them."""
    if path.suffix.lower() in (*ARCHIVES, *FOREIGN_TABLES):
        remedy = "unpack it" if path.suffix.lower() in ARCHIVES else "save it as .csv or .parquet"
        raise ValueError(f"{path}: is not read: {remedy}")
    home = path.parent
    # The folders that the table names are enough if they hold all: other folders may be large.
    near = only_folders(home, _folders_named(path, wanted))
    found, order, graded, notes = _from_tables([path], near, wanted)
    if any(one.reason in ("missing image", "ambiguous image") for one in found):
        near = walk(home)
        found, order, graded, notes = _from_tables([path], near, wanted)
    return found + unlisted(found, near, everywhere=False), order, graded, notes


def _folders_named(path: Path, wanted: Wanted) -> set[str]:
    """Return the existing folders in a table's paths."""
    if path.suffix.lower() in PARQUET and embedded.image_column(path, wanted):
        return set()
    folders = {""}
    for table in read_tables(path, image_finder(wanted)):
        for column in table.columns:
            texts = {row.get(column, "").replace("\\", "/") for _, row in table.rows}
            folders |= {text.rpartition("/")[0] for text in texts if "\0" not in text}
    inside = {os.path.normpath(folder) for folder in folders if not os.path.isabs(folder)}
    usable = {folder.removeprefix(".") for folder in inside if not folder.startswith("..")}
    return {folder for folder in usable if os.path.isdir(path.parent / folder)}


def _from_tables(paths: Sequence[Path], folder: Folder, wanted: Wanted) -> Kinds:
    photographs = Photographs([*folder.photographs, *folder.unusable])
    configurations.check_one(
        folder.root, [path for path in paths if path.suffix.lower() in PARQUET]
    )
    check_tests([path.stem for path in paths], folder.root)
    found: list[Found] = []
    orders: list[tuple[tuple[str, ...], bool]] = []
    unnamed: list[Path] = []
    notes: list[str] = []
    unrelated: list[Table] = []
    for path in paths:
        is_parquet = path.suffix.lower() in PARQUET
        image = embedded.image_column(path, wanted) if is_parquet else ""
        if image:
            rows, names, more = embedded.from_parquet(path, image, folder.root, wanted)
            orders += names
            unnamed += [path] if _numbered(names, rows) else []
            found, notes = found + rows, notes + more
            continue
        for table in read_tables(path, image_finder(wanted)):
            eyes = by_eye(table, folder.root, photographs, wanted)
            unrelated += [] if eyes else [table]
            for one, column in eyes:
                chosen = choose(one, column, wanted)
                rows, more = found_in(one, chosen, folder, photographs)
                if is_parquet and chosen.label:
                    names = [parquet.class_names(path, chosen.label)]
                    orders += names
                    unnamed += [path] if _numbered(names, rows) else []
                found, notes = found + rows, notes + more
    if unrelated and not found:
        table = unrelated[0]
        raise ValueError(
            f"{table.path}: expected the column 'image' or another usual name, got "
            f"{few(map(repr, table.columns), 20)}: name it with --image-column, or move the table "
            "out of the folder if it does not list photographs"
        )
    notes += [f"{table.where} names no photograph and is not read." for table in unrelated]
    _split_by_folders(found, notes)
    if unnamed and any(names for names, _ in orders):
        raise ValueError(
            f"{unnamed[0]}: the labels are numbers, which have names in the other .parquet files "
            "and none in this one: name its classes, or leave it out"
        )
    order, graded, more = _order(orders)
    return found, order, graded, notes + more


def _numbered(names: Sequence[tuple[tuple[str, ...], bool]], rows: Sequence[Found]) -> bool:
    """Return whether a file's labels are numbers without names in the file."""
    labels = (label for one in rows for label in listed(one.label) or [one.label])
    return not any(one for one, _ in names) and any(map(str.isdecimal, labels))


def _split_by_folders(found: Sequence[Found], notes: list[str]) -> None:
    """Take the split from the photographs' folders if no column and no table gives one."""
    usable = [one for one in found if one.image and not one.image.member]
    if any(one.split for one in usable) or not any(split_of_path(one.key) for one in usable):
        return
    notes.append("Splits are those of the photographs' folders.")
    check_tests((part for one in usable for part in one.key.split("/")[:-1]), "the folders")
    for one in usable:
        one.split = split_of_path(one.key)
        if not one.split and not one.reason:
            one.reason = "no split"


def _order(
    orders: Sequence[tuple[tuple[str, ...], bool]],
) -> tuple[tuple[str, ...], bool, list[str]]:
    """Join the orders of classes of several files."""
    different = list(dict.fromkeys(names for names, _ in orders if names))
    order = tuple(dict.fromkeys(name for names in different for name in names))
    notes = []
    if len(different) > 1:
        notes.append(
            "The .parquet files number their classes in different ways: labels go by the names, in "
            "the order of the first."
        )
    return order, len(different) == 1 and all(graded for _, graded in orders), notes


_STRINGS: Final = re.compile(r'"([^"\\]{1,200})"')
_MENTIONS: Final = re.compile(r"\.(?:jpe?g|jfif|png|tiff?|bmp|webp|ppm|pgm)\s*\"", re.IGNORECASE)
_PEEK: Final = 1 << 20


def _is_table(path: Path, photographs: Photographs, wanted: Wanted) -> bool:
    """Return whether a .json or .txt lists photographs."""
    try:
        with open(path, "rb") as file:
            text = file.read(_PEEK).decode("utf-8", "replace")
        if path.suffix.lower() == ".json":
            words = set(_STRINGS.findall(text))
            if _MENTIONS.search(text) or sum(not photographs.find(one)[1] for one in words) > 1:
                return True  # it is read, or refused with the reason
        if path.suffix.lower() == ".txt":
            lines = [line.split() for line in text.splitlines() if line.strip()]
            first = [re.split(r"[,;\t]", line[0])[0] for line in lines]
            named = sum(
                one.lower().endswith(IMAGE_SUFFIXES) or not photographs.find(one)[1]
                for one in first
            )
            if lines and 2 * named >= len(lines):
                return True
        find = image_finder(wanted)
        tables = read_tables(path, find)
        return any(find(table.columns) >= 0 and len(table.columns) > 1 for table in tables)
    except (OSError, ValueError):
        return False
