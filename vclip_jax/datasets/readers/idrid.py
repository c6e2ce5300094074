"""IDRiD's disease-grading task: 516 photographs graded for retinopathy and macular oedema (India).

Porwal et al., "Indian Diabetic Retinopathy Image Dataset (IDRiD)", Data 3(3):25, 2018. Licence of
the data: CC BY 4.0. Layout:

    B. Disease Grading/
      1. Original Images/a. Training Set/IDRiD_001.jpg ...      413 images
      1. Original Images/b. Testing Set/IDRiD_001.jpg ...       103 images, optional
      2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv
      2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv

Splits: `train` (about 80 %) and `holdout` (about 20 %) divide the training set by a hash of the
key, and `test` is the testing set, if it exists. IDRiD's own training set is "train+holdout". Keys
contain the set too, because both sets count from IDRiD_001.
"""

import os
import re
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, choose, find_below, hash_of
from vclip_jax.datasets.readers import pairing, words

CLASSES: Final = words.RETINOPATHY_CLASSES
"""ICDR grades 0 to 4, the order of the labels."""

_IMAGES: Final = "1. Original Images"
_LABELS: Final = "2. Groundtruths"
_PARTS: Final = {
    "train": ("a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv"),
    "test": ("b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv"),
}
_PUBLISHED: Final = re.compile("idrid_", re.IGNORECASE)
"""The published prefix in any case: mirrors and rewritten tables lose or gain capitals."""
_NAME, _RETINOPATHY, _DME = "Image name", "Retinopathy grade", "Risk of macular edema"

# Not `words.caption`: models were trained on exactly these sentences.
_TEMPLATES: Final = ("{dr}，{dme}。", "眼底彩照：{dr}，{dme}。", "眼底照：{dr}；{dme}。")


def scan(source: str | os.PathLike[str]) -> Listing:
    """List IDRiD.

    `dme` is the risk of macular oedema: 0 no hard exudates, 1 outside, 2 within one disc diameter
    of the fovea. The captions are written from the grades; IDRiD has none.

    Args:
        source: the folder "B. Disease Grading" or its parent.

    Raises:
        ValueError: the training set is missing, the testing set is incomplete, a label file
            is not IDRiD's, or no photograph has a label.
    """
    # "A. Segmentation" has the same folders, but only "B. Disease Grading" has these labels.
    labels = find_below(source, [f"{_LABELS}/{_PARTS['train'][1]}"], "IDRiD's disease grading")
    root = labels.parent.parent
    rejects: list[Reject] = []
    items: list[Item] = []
    for part, (images, name) in _PARTS.items():
        folder, table = root / _IMAGES / images, root / _LABELS / name
        if part == "test" and not folder.is_dir() and not table.is_file():
            continue
        for needed in (folder, table):
            if not needed.exists():
                raise ValueError(
                    f"{source}: not IDRiD's disease grading as distributed, it lacks "
                    f"{needed.relative_to(root)}"
                )
        items += _read_part(part, folder, table, rejects)
    if not items:
        raise ValueError(f"{source}: there is no photograph with a label in it")
    return Listing(
        name="idrid",
        classes=CLASSES,
        ordered=True,
        items=items,
        rejects=rejects,
        columns={"dme": int},
        no_photographs=("*/2. all segmentation groundtruths/*",),
        description="Fundus photographs of IDRiD's disease-grading task with grades and Chinese "
        "captions written from them.",
        homepage="https://doi.org/10.3390/data3030025",
        licence="CC BY 4.0",
    )


def _read_part(part: str, folder: Path, table: Path, rejects: list[Reject]) -> list[Item]:
    """Return the photographs of the training or the testing set, in the order of their keys."""
    rows = read_table(table)
    require(table, rows, (_NAME, _RETINOPATHY, _DME))
    prefix = f"{part}/"
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects, prefix=prefix)
    joined = pairing.join(
        pictures, rows, _NAME, (_RETINOPATHY, _DME), table, rejects, prefix=prefix
    )
    items = []
    for name, row, image in sorted(joined, key=lambda one: one[0]):
        key = _PUBLISHED.sub("IDRiD_", name)  # the key determines the split
        retinopathy, dme = whole(row[_RETINOPATHY], 4), whole(row[_DME], 2)
        if retinopathy is None or dme is None:
            detail = f"{table.name}: grade {row[_RETINOPATHY]!r}, risk {row[_DME]!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            items.append(
                Item(
                    key=key,
                    split=split_of(key),
                    image=image,
                    caption=caption(key, retinopathy, dme),
                    label=retinopathy,
                    values=(dme,),
                )
            )
    return items


def split_of(key: str) -> str:
    """Return the split of a photograph, by its key alone.

    A fifth of the training set is held out.
    """
    if key.startswith("test/"):
        return "test"
    return "holdout" if hash_of(key, "split") % 5 == 0 else "train"


def caption(key: str, retinopathy: int, dme: int) -> str:
    """Return a Chinese caption of the grades; the wording depends only on the key."""
    return choose(_TEMPLATES, key, "template").format(
        dr=choose(words.RETINOPATHY[retinopathy], key, "dr"),
        dme=choose(words.OEDEMA[dme], key, "dme"),
    )
