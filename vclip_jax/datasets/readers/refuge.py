"""REFUGE: 3 x 400 photographs with and without glaucoma (China), from the challenge of 2018.

Orlando et al., "REFUGE Challenge", Medical Image Analysis 59:101570, 2020. Each part has its own
archive and its own kind of labels; the folders may be inside others:

    Training400/{Glaucoma,Non-Glaucoma}/g0001.jpg, n0001.jpg ...    the folder is the label
    Annotation-Training400/Fovea_location.xlsx                      ImgName, Fovea_X, Fovea_Y
    REFUGE-Validation400/V0001.jpg ...
    REFUGE-Validation400-GT/Fovea_locations.xlsx                    with Glaucoma Label
    Test400/T0001.jpg ...
    REFUGE-Test-GT/Glaucoma_label_and_Fovea_location.xlsx           with Label(Glaucoma=1)

Outlines of disc and cup (.bmp) are not read.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject
from vclip_jax.datasets.readers import pairing, words

FILES: Final = ("all", "flair")

_IMAGE, _FOVEA = "ImgName", ("Fovea_X", "Fovea_Y")
_TRAINING_FOVEA: Final = "fovea_location.xlsx"
_CLASS_FOLDERS: Final = {"non-glaucoma": 0, "glaucoma": 1}


@dataclass(frozen=True)
class _Part:
    """A part whose labels are in a table; names in lower case."""

    split: str
    title: str
    folders: tuple[str, ...]
    table: str
    label: str


_TRAINING: Final = ("training400", "refuge-training400")
_GRADED_PARTS: Final = (
    _Part(
        split="validation",
        title="Validation400",
        folders=("refuge-validation400", "validation400"),
        table="fovea_locations.xlsx",
        label="Glaucoma Label",
    ),
    _Part(
        split="test",
        title="Test400",
        folders=("test400", "refuge-test400"),
        table="glaucoma_label_and_fovea_location.xlsx",
        label="Label(Glaucoma=1)",
    ),
)


def scan(source: str | os.PathLike[str], *, files: str = "all") -> Listing:
    """List REFUGE.

    `fovea_x` and `fovea_y` are in pixels of the image as distributed, -1.0 if not known.

    Args:
        source: the folder with the parts.
        files: "all", of which validation or test may be missing; "flair", the 400 photographs of
            the training part, on which FLAIR reports zero-shot scores (25_REFUGE.csv).

    Raises:
        ValueError: the training part is missing, or a part has images and no labels or labels and
            no images, or a table is not REFUGE's, or `files` has another value.
    """
    pairing.check_choice("files", files, FILES)
    root = Path(source)
    rejects: list[Reject] = []
    notes: list[str] = []
    # Of several folders with one name the highest is taken; "Test400/Test400" counts once.
    paths = sorted(root.rglob("*"), key=lambda path: (-len(path.parts), path.name))
    folders = {path.name.lower(): path for path in paths if path.is_dir()}
    tables = {path.name.lower(): path for path in paths if path.suffix.lower() == ".xlsx"}

    items = _read_training(root, _first(_TRAINING, folders), tables, rejects, notes)
    for part in _GRADED_PARTS if files == "all" else ():
        folder, table = _first(part.folders, folders), tables.get(part.table)
        if folder is None and table is None:
            notes.append(f"{part.title} is not there: no split {part.split!r}.")
        elif folder is None or table is None:
            lacking = part.folders[0] if folder is None else part.table
            raise ValueError(f"{root}: not REFUGE as distributed, {part.title} lacks {lacking}")
        else:
            items += _read_graded(part, folder, table, rejects)
    if files == "flair":
        notes.append("Only the 400 photographs of the training part, as in FLAIR's experiments.")
    return Listing(
        name="refuge",
        classes=words.GLAUCOMA_CLASSES,
        items=items,
        rejects=rejects,
        columns={"fovea_x": float, "fovea_y": float},
        variant="flair" if files == "flair" else "",
        notes=notes,
        no_photographs=("*.bmp", "*/disc_cup_masks/*"),
        description="Photographs with and without glaucoma, a tenth of them with, and where the "
        "fovea is. The training part was taken with another camera than the other two.",
        homepage="https://refuge.grand-challenge.org/",
        licence="research only, under the rules of the challenge",
    )


def _first(names: Iterable[str], folders: dict[str, Path]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)


def _pictures(folder: Path, rejects: list[Reject]) -> dict[str, pairing.Picture]:
    # Photographs are .jpg; outlines are .bmp of the same names, perhaps in the same folder.
    pictures = pairing.pictures_below(folder)
    photographs = [one for one in pictures if not one.blob.path.lower().endswith(".bmp")]
    return pairing.by_name(photographs, rejects)


def _read_training(
    root: Path,
    folder: Path | None,
    tables: dict[str, Path],
    rejects: list[Reject],
    notes: list[str],
) -> list[Item]:
    pictures = {} if folder is None else _pictures(folder, rejects)
    labels = {
        name: _CLASS_FOLDERS.get(Path(picture.blob.path).parent.name.lower())
        for name, picture in pictures.items()
    }
    missing = {0, 1} - set(labels.values())
    if missing:
        names = [f"Training400/{('Non-Glaucoma', 'Glaucoma')[label]}" for label in sorted(missing)]
        raise ValueError(f"{root}: not REFUGE as distributed, it lacks {', '.join(names)}")
    fovea: dict[str, pairing.NamedRow] = {}
    if (table := tables.get(_TRAINING_FOVEA)) is None:
        notes.append("Where the fovea is in Training400 is not known: no Fovea_location.xlsx.")
    else:
        rows = read_table(table)
        require(table, rows, (_IMAGE, *_FOVEA))
        entries = [pairing.NamedRow(pairing.stem(row[_IMAGE]), row) for row in rows]
        fovea = pairing.by_row(entries, pictures, _FOVEA, table, rejects)
    items = []
    for name, picture in pictures.items():
        label = labels[name]
        if label is None:
            detail = f"{picture.blob} is in neither Glaucoma nor Non-Glaucoma"
            rejects.append(Reject(picture.name, "invalid label", detail))
        else:
            row = fovea[name].row if name in fovea else {}
            items.append(_item(picture.name, "train", picture.blob, label, row))
    return items


def _read_graded(part: _Part, folder: Path, table: Path, rejects: list[Reject]) -> list[Item]:
    rows = read_table(table)
    require(table, rows, (_IMAGE, part.label, *_FOVEA))
    values = (part.label, *_FOVEA)
    items = []
    for key, row, image in pairing.join(
        _pictures(folder, rejects), rows, _IMAGE, values, table, rejects
    ):
        if (label := whole(row[part.label], 1)) is None:
            detail = f"{table.name}: {part.label} {row[part.label]!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            items.append(_item(key, part.split, image, label, row))
    return items


def _item(key: str, split: str, image: Blob, label: int, row: Row) -> Item:
    return Item(
        key=key,
        split=split,
        image=image,
        caption=words.caption(key, words.GLAUCOMA[label]),
        label=label,
        values=tuple(_coordinate(row.get(column, "")) for column in _FOVEA),
    )


def _coordinate(cell: str) -> float:
    """Return a coordinate in pixels, -1.0 for any other text."""
    try:
        number = float(cell)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) and number >= 0 else -1.0
