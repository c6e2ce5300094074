"""FIVES: 800 photographs of four kinds, 200 each, with their quality (China).

Jin et al., "FIVES: A Fundus Image Dataset for Artificial Intelligence based Vessel Segmentation",
Scientific Data 9:475, 2022; figshare 19688169, CC BY 4.0. Layout, in the source or up to two
folders below:

    train/Original/1_A.png ...         600 images; the letter is the class
    train/Ground truth/1_A.png ...     vessels, not read
    test/Original/1_A.png ...          200 images
    Quality Assessment.xlsx            sheets train and test: Disease, Number, IC, Blur, LC

Numbers start from 1 in both splits, so keys contain the split: "train/1_A". The classes are in
FLAIR's order.
"""

import os
import re
from collections.abc import Container
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject
from vclip_jax.datasets.readers import pairing, words

CLASSES: Final = (
    "normal",
    "age-related macular degeneration",
    "diabetic retinopathy",
    "glaucoma",
)

_LETTERS: Final = "NADG"
_WORDS: Final = (
    ("正常眼底", "眼底正常", "未见明显异常", "眼底未见明显异常"),
    ("年龄相关性黄斑变性", "老年性黄斑变性"),
    ("糖尿病视网膜病变", "糖尿病性视网膜病变"),
    words.GLAUCOMA[1],
)
_NAME: Final = re.compile(r"\d+_([NADG])", re.IGNORECASE)
_SPLITS: Final = ("train", "test")
_QUALITY_TABLE: Final = "Quality Assessment.xlsx"
_QUALITY: Final = ("IC", "Blur", "LC")


def scan(source: str | os.PathLike[str]) -> Listing:
    """List FIVES.

    `ic`, `blur` and `lc` are 1 if the image is free of uneven illumination and colour, of blur, and
    of low contrast, 0 if not, -1 if this is not known. The meaning of the abbreviations is inferred
    from the authors' other papers.

    Raises:
        ValueError: the images of a split are missing, or the table of quality cannot be read.
    """
    root = _find_root(Path(source))
    rejects: list[Reject] = []
    notes: list[str] = []
    items = []
    for split in _SPLITS:
        originals = pairing.pictures_below(root / split / "Original")
        if not originals:
            raise ValueError(f"{root}: not FIVES as distributed, {split}/Original has no images")
        pictures = pairing.by_name(originals, rejects, prefix=f"{split}/")
        quality = _read_quality(root / _QUALITY_TABLE, split, pictures, rejects, notes)
        for lower, picture in pictures.items():
            key = f"{split}/{picture.name}"
            if (match := _NAME.fullmatch(picture.name)) is None:
                detail = f"{picture.blob} is not named like 1_A, 1_D, 1_G or 1_N"
                rejects.append(Reject(key, "invalid label", detail))
                continue
            label = _LETTERS.index(match[1].upper())
            items.append(
                Item(
                    key=key,
                    split=split,
                    image=picture.blob,
                    caption=words.caption(key, _WORDS[label]),
                    label=label,
                    values=quality.get(lower, (-1, -1, -1)),
                )
            )
    return Listing(
        name="fives",
        classes=CLASSES,
        items=items,
        rejects=rejects,
        columns={column.lower(): int for column in _QUALITY},
        notes=notes,
        no_photographs=("*/ground truth/*",),
        description="Photographs of normal eyes and of three diseases, with the image's quality.",
        homepage="https://doi.org/10.6084/m9.figshare.19688169",
        licence="CC BY 4.0",
    )


def _find_root(source: Path) -> Path:
    """Return the folder with both splits.

    Raises:
        ValueError: it is neither the source nor one or two folders below.
    """
    for parent in (source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/"))):
        missing = [split for split in _SPLITS if not (parent / split / "Original").is_dir()]
        if not missing:
            return parent
        if len(missing) < len(_SPLITS):
            raise ValueError(f"{parent}: not FIVES as distributed, it lacks {missing[0]}/Original")
    raise ValueError(f"{source}: not FIVES as distributed, it lacks train/Original, test/Original")


def _read_quality(
    table: Path, split: str, pictures: Container[str], rejects: list[Reject], notes: list[str]
) -> dict[str, tuple[int, int, int]]:
    """Map lower-case names to IC, Blur, LC; empty, with a note, if the table or sheet is missing.

    Raises:
        ValueError: the table cannot be read or lacks columns.
    """
    if not table.exists():
        notes.append(f"The quality of the images in {split} is not known: no {table.name}.")
        return {}
    try:
        rows = read_table(table, sheet=split)
    except ValueError as error:
        if "there is no sheet" not in str(error):
            raise
        notes.append(f"The quality of the images in {split} is not known: no sheet of that name.")
        return {}
    require(table, rows, ("Disease", "Number", *_QUALITY))
    entries = [pairing.NamedRow(f"{_number(row['Number'])}_{row['Disease']}", row) for row in rows]
    unique = pairing.by_row(entries, pictures, _QUALITY, table, rejects, prefix=f"{split}/")
    grades = {
        name: [whole(entry.row[column], 1) for column in _QUALITY] for name, entry in unique.items()
    }
    return {
        name: (-1 if ic is None else ic, -1 if blur is None else blur, -1 if lc is None else lc)
        for name, (ic, blur, lc) in grades.items()
    }


def _number(cell: str) -> str:
    number = whole(cell, 10**9)
    return cell if number is None else str(number)
