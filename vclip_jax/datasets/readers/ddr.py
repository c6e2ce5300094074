"""DDR: 13,673 photographs with grades of retinopathy or ungradable, from 147 hospitals in China.

Li et al., "Diagnostic assessment of deep learning algorithms for diabetic retinopathy screening",
Information Sciences 501:511, 2019; https://github.com/nkicsl/DDR-dataset (also called OIA-DDR). Two
layouts are read:

    DR_grading/train.txt    "007-0004-000.jpg 0"    DR_grading/train/*.jpg    6,835 images
    DR_grading/valid.txt                            DR_grading/valid/*.jpg    2,733 images
    DR_grading/test.txt                             DR_grading/test/*.jpg     4,105 images

    DR_grading.csv          id_code, diagnosis      DR_grading/DR_grading/*.jpg    12,522 images

The lists have no header; 5 is ungradable. The second layout is Kaggle's copy
(mariaherrerot/ddrdataset), without ungradable photographs and splits: all its images are in the
split "test". Layouts are from programs that read them. The parts for lesions (lesion_detection,
lesion_segmentation) are not read. Patients, 9,598 of them, are not named, and the publisher's
splits may part one.

Licence of the data: the repository is under the MIT License, which speaks of software; whether the
photographs are under it is not stated (copies name CC BY 4.0).
"""

import os
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.text import decode_text

UNGRADABLE: Final = 5
WORDS: Final = ("图像质量差，无法分级", "图像质量较差，无法评估糖尿病视网膜病变")
"""Phrases for an ungradable photograph, of poor quality by the paper."""

_PARTS: Final = {"train": "train", "valid": "validation", "test": "test"}
_NAME, _GRADE = "id_code", "diagnosis"
_MOST: Final = 1 << 22
"""Bytes of a list, which has some 150,000."""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List DDR's part for grading.

    `quality` is "gradable" or "ungradable"; an ungradable photograph has the label -1.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is neither of the above, or a list has a fault.
    """
    found = find_below(source, ("DR_grading/train.txt", "DR_grading.csv", "train.txt"), "DDR")
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    notes = [
        "The captions are written from the grades.",
        "Patients are not named: intervals take all images for those of different patients.",
    ]
    mirror = found.suffix == ".csv"
    if mirror:
        rows = read_table(found)
        require(found, rows, (_NAME, _GRADE))
        _read(found, rows, found.parent / "DR_grading", "test", items, rejects)
        notes.append("This copy has no splits: all images are in the split 'test'.")
    for part, split in _PARTS.items() if not mirror else ():
        table = found.with_name(f"{part}.txt")
        if table.exists() or part == "train":
            _read(table, _rows(table), found.parent / part, split, items, rejects)
        else:
            notes.append(f"{part}.txt is not there: no split {split!r}.")
    return Listing(
        name="ddr",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=list(items.values()),
        rejects=rejects,
        columns={"quality": str},
        variant="mirror" if mirror else "",
        notes=notes,
        no_photographs=("*/lesion_segmentation/*label*",),
        description="Fundus photographs with grades of diabetic retinopathy (ICDR) or ungradable, "
        "from China.",
        homepage="https://github.com/nkicsl/DDR-dataset",
        licence="not stated for the photographs; the repository is under the MIT License",
    )


def _rows(table: Path) -> list[Row]:
    """Return the rows of a list: name and grade, separated by white space.

    Raises:
        ValueError: one line: the file cannot be read, or a line has something else.
    """
    try:
        lines = decode_text(read_bytes(table, _MOST)).splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{table}: cannot read the list: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = line.rsplit(maxsplit=1)
        if len(cells) == 1:
            raise ValueError(f"{table}: line {number} is {line[:60]!r}, not a name and a grade")
        if cells:
            rows.append({_NAME: cells[0], _GRADE: cells[1]})
    return rows


def _read(
    table: Path,
    rows: list[Row],
    folder: Path,
    split: str,
    items: dict[str, Item],
    rejects: list[Reject],
) -> None:
    if not folder.is_dir():
        raise ValueError(f"{table.parent}: not DDR as distributed, it lacks {folder.name}")
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for key, row, image in pairing.join(pictures, rows, _NAME, (_GRADE,), table, rejects):
        grade = whole(row[_GRADE], UNGRADABLE)
        if key in items:
            rejects.append(Reject(key, "duplicate row", f"{table.name} lists {key} again"))
        elif grade is None:
            detail = f"{table.name}: {key} has the grade {row[_GRADE]!r}"
            rejects.append(Reject(key, "invalid label", detail))
        elif grade == UNGRADABLE:
            text = words.caption(key, WORDS)
            items[key] = Item(key, split, image, text, -1, ("ungradable",))
        else:
            text = words.caption(key, words.RETINOPATHY[grade])
            items[key] = Item(key, split, image, text, grade, ("gradable",))
