"""MESSIDOR-2: 874 examinations of two photographs each, with adjudicated grades.

Images: ADCIS, https://www.adcis.net/en/third-party/messidor2/ (1058 .png from MESSIDOR, 690 .JPG
from Brest). Grades: Krause et al., "Grader variability and the importance of reference standards
for evaluating machine learning models for diabetic retinopathy", Ophthalmology 125:1264, 2018; 4 of
the 1748 images are not gradable. Layout:

    IMAGES/20051020_43808_0100_PP.png, IM000001.JPG ...    or any other folders
    messidor_data.csv     image_id, adjudicated_dr_grade, adjudicated_dme, adjudicated_gradable

Mirrors give the table another name and the columns id_code, diagnosis, adjudicated_dme and
adjudicated_gradable; the table is recognised by its columns. ADCIS's own messidor-2.csv lists the
two images of each examination in a row and has no grades. Converted images match by their names
without the suffix.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject
from vclip_jax.datasets.readers import pairing, words
from vclip_jax.files.foreign import read_bytes

_COLUMNS: Final = (("image_id", "adjudicated_dr_grade"), ("id_code", "diagnosis"))
"""The columns of name and grade, in either variant of the table."""
_DME, _GRADABLE = "adjudicated_dme", "adjudicated_gradable"
_MOST: Final = 1 << 20
"""Bytes of messidor-2.csv, which has some 50,000."""
_NO_PAIRS: Final = (
    "messidor-2.csv, which lists the two images of each examination, is not there: intervals take "
    "all images for those of different patients."
)

_DME_WORDS: Final = (
    ("未见需转诊的糖尿病黄斑水肿", "无需转诊的糖尿病黄斑水肿"),
    ("可见糖尿病黄斑水肿", "需转诊的糖尿病黄斑水肿", *words.OEDEMA[2]),
)
"""Words for referable macular oedema: hard exudates within one disc diameter of the fovea.

Without it there may be exudates elsewhere.
"""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List MESSIDOR-2.

    The keys are the images' names; images from MESSIDOR have the same key there. `dme` is 1 for
    referable macular oedema, 0 for none, -1 for no grade. `patient` is the key of the first image
    of the examination, "" without messidor-2.csv.

    Args:
        source: the folder with the images and the table, each at any depth.

    Raises:
        ValueError: there is no table with grades or no image.
    """
    root = Path(source)
    rejects: list[Reject] = []
    table, rows, (name, grade) = _find_table(root)
    pictures = pairing.by_name(pairing.pictures_below(root), rejects)
    if not pictures:
        raise ValueError(f"{root}: not MESSIDOR-2 as distributed, there is no image in it")
    patients = _patients(root)
    items = []
    values = (grade, _DME, _GRADABLE)
    for key, row, image in pairing.join(pictures, rows, name, values, table, rejects):
        retinopathy, dme = whole(row[grade], 4), whole(row[_DME], 1)
        if whole(row[_GRADABLE], 1) == 0:
            rejects.append(Reject(key, "not gradable", f"{table.name}: {_GRADABLE} is 0"))
        elif retinopathy is None:
            rejects.append(Reject(key, "invalid label", f"{table.name}: {grade} {row[grade]!r}"))
        else:
            findings: list[tuple[str, ...]] = [words.RETINOPATHY[retinopathy]]
            if dme is not None:
                findings.append(_DME_WORDS[dme])
            items.append(
                Item(
                    key=key,
                    split="test",
                    image=image,
                    caption=words.caption(key, *findings),
                    label=retinopathy,
                    values=(patients.get(key.lower(), ""), -1 if dme is None else dme),
                )
            )
    return Listing(
        name="messidor2",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=items,
        rejects=rejects,
        columns={"patient": str, "dme": int},
        notes=[] if patients else [_NO_PAIRS],
        description="Examinations of diabetic patients, an image an eye, with grades that three "
        "retina specialists agreed on.",
        homepage="https://www.adcis.net/en/third-party/messidor2/",
        licence="research and education only, not to be passed on",
    )


def _patients(root: Path) -> dict[str, str]:
    """Return the first image of each image's examination, by lower-case names.

    A row of the table holds the names of two images, whatever separates them.
    """
    found: dict[str, str] = {}
    for path in sorted(root.rglob("messidor-2.csv")):
        text = read_bytes(path, _MOST).decode("utf-8-sig", "replace")
        for line in text.splitlines():
            names = [pairing.stem(cell.strip(" \"'")) for cell in re.split("[;,\t]", line)]
            names = [name for name in names if name]
            found |= dict.fromkeys(map(str.lower, names), names[0] if names else "")
    return found


def _find_table(root: Path) -> tuple[Path, Sequence[Row], tuple[str, str]]:
    """Return the table with the grades, its rows, and its columns for the name and the grade.

    Raises:
        ValueError: there is none, or messidor_data.csv is not as expected.
    """
    paths = sorted(
        (
            path
            for path in root.rglob("*")
            if path.suffix.lower() in (".csv", ".xls", ".xlsx") and not path.name.startswith(".")
        ),
        key=lambda path: (path.stem != "messidor_data", path),
    )
    for path in paths:
        try:
            rows = read_table(path)
        except ValueError:
            if path.stem == "messidor_data":
                raise
            continue  # another file
        for columns in _COLUMNS:
            if rows and set(columns) <= rows[0].keys():
                require(path, rows, (_DME, _GRADABLE))
                return path, rows, columns
    raise ValueError(
        f"{root}: not MESSIDOR-2 with grades, it lacks messidor_data.csv "
        "(a table with image_id and adjudicated_dr_grade, or id_code and diagnosis)"
    )
