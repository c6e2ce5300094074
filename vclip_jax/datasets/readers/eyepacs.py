"""EyePACS: 88,702 photographs of both eyes with grades of retinopathy, from Kaggle's competition.

Diabetic Retinopathy Detection, 2015, https://www.kaggle.com/c/diabetic-retinopathy-detection.
Licence of the data: the competition's rules, for non-commercial research, without redistribution.
Layout:

    trainLabels.csv             image, level (0 to 4)           train/10_left.jpeg ...    35,126
    retinopathy_solution.csv    image, level, Usage             test/1_left.jpeg ...      53,576

The second table was published after the competition, and may be missing. Kaggle's resized copies
have the same tables under other names: trainLabels.csv beside resized_train,
trainLabels_cropped.csv beside resized_train_cropped (both in tanlikesmath/
diabetic-retinopathy-resized, in doubled folders), and labels/trainLabels15.csv and
labels/testLabels15.csv beside "resized train 15" and "resized test 15" (benjaminwarner/
resized-2015-2019-blindness-detection-images). Of several the first of these is read.

Splits: `train`; of the test images `validation` for the Usage Public and `test` for Private, as in
TFDS, and `test` for all without the column. Whether both eyes of a patient always have one Usage is
not verified: the data card counts patients in several splits. Columns and layouts are from programs
that read them. The patient is the number before _left or _right.
"""

import os
import re
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words

Choices = tuple[tuple[str, tuple[str, ...]], ...]
"""Name of the table -> folders of its images, in the order in which they are sought."""

_TRAIN: Final = (
    ("trainLabels.csv", ("train", "resized_train")),
    ("trainLabels15.csv", ("resized train 15", "resized_train_15", "train")),
    ("trainLabels_cropped.csv", ("resized_train_cropped",)),
)
_TEST: Final = (
    ("retinopathy_solution.csv", ("test", "resized_test")),
    ("testLabels15.csv", ("resized test 15", "resized_test_15", "test")),
)
_USAGES: Final = {"public": "validation", "private": "test", "": "test"}
_NAME: Final = re.compile(r"(\d+)_(left|right)", re.ASCII)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List EyePACS. The keys are the images' names.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is another, or a table has a fault.
    """
    root = Path(source)
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    notes = ["The captions are written from the grades."]
    if (train := _find(root, _TRAIN)) is None:
        raise ValueError(
            f"{root}: not EyePACS as distributed, it lacks trainLabels.csv and a folder train"
        )
    _read(*train, items, rejects)
    if (test := _find(root, _TEST)) is None:
        notes.append("The test images or their table are not there: no split 'test'.")
    else:
        _read(*test, items, rejects, test=True)
    return Listing(
        name="eyepacs",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=list(items.values()),
        rejects=rejects,
        columns={"patient": str, "eye": str},
        notes=notes,
        description="Fundus photographs of both eyes with grades of diabetic retinopathy (ICDR) "
        "from EyePACS's screening.",
        homepage="https://www.kaggle.com/c/diabetic-retinopathy-detection",
        licence="Kaggle competition rules: non-commercial research, no redistribution",
    )


def _find(root: Path, choices: Choices) -> tuple[Path, Path] | None:
    """Return the first table that is there together with its images' folder."""
    for name, folders in choices:
        try:
            table = find_below(root, (name, f"labels/{name}"), "EyePACS")
            return table, find_below(root, folders, "EyePACS")
        except ValueError:
            continue
    return None


def _read(
    table: Path,
    folder: Path,
    items: dict[str, Item],
    rejects: list[Reject],
    *,
    test: bool = False,
) -> None:
    rows = read_table(table)
    require(table, rows, ("image", "level"))
    values = [name for name in ("level", "Usage") if name in rows[0]]
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for key, row, image in pairing.join(pictures, rows, "image", values, table, rejects):
        grade, usage = whole(row["level"], 4), row.get("Usage", "")
        split = _USAGES.get(usage.lower(), "") if test else "train"
        if key in items:
            rejects.append(Reject(key, "duplicate row", f"{table.name} lists {key} again"))
        elif grade is None:
            detail = f"{table.name}: {key} has the level {row['level']!r}"
            rejects.append(Reject(key, "invalid label", detail))
        elif not split:
            detail = f"{table.name}: {key} has the Usage {usage!r}"
            rejects.append(Reject(key, "unknown split", detail))
        else:
            match = _NAME.fullmatch(key.lower())
            text = words.caption(key, words.RETINOPATHY[grade])
            items[key] = Item(key, split, image, text, grade, match.groups() if match else ("", ""))
