"""APTOS 2019 Blindness Detection: grades of diabetic retinopathy from Aravind's camps in India.

Asia Pacific Tele-Ophthalmology Society, https://www.kaggle.com/c/aptos2019-blindness-detection.
Licence of the data: the competition's rules, for non-commercial use, without redistribution. Two
layouts are read. Kaggle's own has a test set without grades:

    train.csv   id_code, diagnosis (0 to 4)      train_images/*.png     3,662 images
    test.csv    id_code                          test_images/*.png      1,928 images

A mirror divides Kaggle's training set and has grades in all parts:

    train_1.csv, valid.csv, test.csv             train_images/train_images/*.png,
    id_code, diagnosis                           val_images/val_images, test_images/test_images

Splits: `train` and `unlabelled`, or `train`, `validation` and `test`. An image has the same key in
both layouts. The training set holds some pictures twice under different names, a few of them with
different grades; they are kept here.
"""

import os
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words

_KAGGLE: Final = (("train.csv", "train_images", "train"), ("test.csv", "test_images", "unlabelled"))
_MIRROR: Final = (
    ("train_1.csv", "train_images", "train"),
    ("valid.csv", "val_images", "validation"),
    ("test.csv", "test_images", "test"),
)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List APTOS 2019.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is neither of the above, or a table has a fault.
    """
    root = find_below(source, ("train.csv", "train_1.csv"), "APTOS 2019").parent
    parts = _MIRROR if (root / "train_1.csv").exists() else _KAGGLE
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    for table, folder, split in parts:
        # Parts of the mirror are often missing.
        if (root / table).exists() or split == "train":
            _scan_part(root / table, root / folder, split, items, rejects)
    return Listing(
        name="aptos",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=list(items.values()),
        rejects=rejects,
        variant="mirror" if parts is _MIRROR else "",
        notes=["The captions are written from the grades."],
        description="Fundus photographs with grades of diabetic retinopathy (ICDR) from India.",
        homepage="https://www.kaggle.com/c/aptos2019-blindness-detection",
        licence="Kaggle competition rules: non-commercial use, no redistribution",
    )


def _scan_part(
    table: Path, folder: Path, split: str, items: dict[str, Item], rejects: list[Reject]
) -> None:
    if not folder.is_dir():
        raise ValueError(f"{table.parent}: not APTOS 2019 as distributed, it lacks {folder.name}")
    graded = ("diagnosis",) if split != "unlabelled" else ()
    rows = read_table(table)
    require(table, rows, ("id_code", *graded))
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for name, row, image in pairing.join(pictures, rows, "id_code", graded, table, rejects):
        key, grade = name.lower(), whole(row["diagnosis"], 4) if graded else -1
        if key in items:
            rejects.append(Reject(key, "duplicate row", f"{table.name} lists {name} again"))
        elif grade is None:
            detail = f"{table.name}: {key} has the grade {row['diagnosis']!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            text = words.caption(key, words.RETINOPATHY[grade]) if graded else words.UNKNOWN
            items[key] = Item(key, split, image, text, grade)
