"""BRSET: 16,266 photographs of 8,524 patients from São Paulo, with grades and findings.

Nakayama et al., "BRSET: A Brazilian Multilabel Ophthalmological Dataset of Retina Fundus Photos",
PLOS Digital Health 3(7):e0000454, 2024; PhysioNet, brazilian-ophthalmological. Licence of the data:
PhysioNet Credentialed Health Data License 1.5.0. Layout:

    fundus_photos/img00001.jpg ...
    labels_brset.csv        1.0.1; label_brset.csv in 1.0.2, labels.csv in mirrors

Columns that are read: image_id, patient_id, camera, patient_age, patient_sex (1 male, 2 female),
exam_eye (1 right, 2 left), DR_ICDR (0 to 4), quality (Adequate or Inadequate), optic_disc, vessels
and macula (1 normal, 2 abnormal), and thirteen findings (1 or 0). Version 1.0.2 spells drusens
drusen, and corrects exam_eye. Columns and codes are from descriptions of the PhysioNet page and
from programs that read the tables: files are given to credentialed users only. The Scottish grades,
the parts of the quality, diabetes and comorbidities are not read.

Some photographs have a grade and the opposite in diabetic_retinopathy; the label is the grade, the
finding is the column. The source has no splits: a hash of the patient gives them, 8:1:1.
"""

import os
from collections.abc import Sequence
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import (
    Item,
    Listing,
    Reject,
    Value,
    find_below,
    split_by_hash,
)
from vclip_jax.datasets.own.labels import whole_number
from vclip_jax.datasets.readers import findings, pairing, words

FINDINGS: Final = {
    "diabetic_retinopathy": "diabetic retinopathy",
    "macular_edema": "macular oedema",
    "scar": "scar",
    "nevus": "naevus",
    "amd": "age-related macular degeneration",
    "vascular_occlusion": "vascular occlusion",
    "hypertensive_retinopathy": "hypertensive retinopathy",
    "drusen": "drusen",
    "hemorrhage": "haemorrhage",
    "retinal_detachment": "retinal detachment",
    "myopic_fundus": "myopia",
    "increased_cup_disc": "increased cup-to-disc ratio",
    "other": "other diseases",
}
"""Column -> finding."""
STRUCTURES: Final = {
    "optic_disc": "abnormal optic disc",
    "vessels": "abnormal vessels",
    "macula": "abnormal macula",
}
"""Column -> finding."""

_TABLES: Final = ("label_brset.csv", "labels_brset.csv", "labels.csv")
_FOLDERS: Final = ("fundus_photos", "images")
_OLD_SPELLINGS: Final = {"drusens": "drusen"}
_EYES: Final[dict[int | None, str]] = {1: "right", 2: "left"}
_SEXES: Final[dict[int | None, str]] = {1: "male", 2: "female"}
_ABNORMAL: Final[dict[int | None, int]] = {1: 0, 2: 1}


def scan(source: str | os.PathLike[str]) -> Listing:
    """List BRSET. The keys are the images' names.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is another, or the table has a fault.
    """
    table = find_below(source, _TABLES, "BRSET")
    folder = find_below(table.parent, _FOLDERS, "BRSET")
    raw = read_table(table)
    rows = [{_OLD_SPELLINGS.get(n, n): cell for n, cell in row.items()} for row in raw]
    require(table, rows, ("image_id", "patient_id", "DR_ICDR"))
    columns = {
        "patient": str,
        "eye": str,
        "sex": str,
        "age": int,
        "camera": str,
        "quality": str,
        **findings.columns((*FINDINGS.values(), *STRUCTURES.values())),
    }
    items: list[Item] = []
    rejects: list[Reject] = []
    contradictions = 0
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for key, row, image in pairing.join(
        pictures, rows, "image_id", ("patient_id", "DR_ICDR"), table, rejects
    ):
        grade = whole(row["DR_ICDR"], 4)
        if grade is None:
            detail = f"{table.name}: {key} has DR_ICDR {row['DR_ICDR']!r}"
            rejects.append(Reject(key, "invalid label", detail))
            continue
        found = _findings(row)
        contradictions += found["diabetic retinopathy"] == int(grade == 0)
        patient = whole_number(row["patient_id"])
        values = (patient, *_facts(row), *found.values())
        items.append(
            Item(
                key,
                split_by_hash(patient or key),
                image,
                _caption(key, grade, found),
                grade,
                values,
            )
        )
    notes = [
        "The captions are written from the grades and findings.",
        "A hash of the patient gives the splits.",
        f"{contradictions} photographs have a grade and the opposite in diabetic_retinopathy: "
        "their label is the grade, their finding is the column.",
    ]
    if raw and "drusens" in raw[0]:
        notes.append("The table is older than version 1.0.2, which corrects exam_eye.")
    return Listing(
        name="brset",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=items,
        rejects=rejects,
        columns=columns,
        notes=notes,
        description="Fundus photographs with grades of diabetic retinopathy (ICDR), findings and "
        "quality, from Brazil.",
        homepage="https://physionet.org/content/brazilian-ophthalmological/",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
    )


def _findings(row: Row) -> dict[str, int]:
    """Return the rating of each finding."""
    structures = {
        name: _ABNORMAL.get(whole(row.get(column, ""), 2), -1)
        for column, name in STRUCTURES.items()
    }
    marked = {name: findings.rating(row.get(column, "")) for column, name in FINDINGS.items()}
    return marked | structures


def _facts(row: Row) -> Sequence[Value]:
    """Return eye, sex, age, camera and quality."""
    age = whole(row.get("patient_age", ""), 120)
    return (
        _EYES.get(whole(row.get("exam_eye", ""), 2), ""),
        _SEXES.get(whole(row.get("patient_sex", ""), 2), ""),
        -1 if age is None else age,
        row.get("camera", ""),
        row.get("quality", "").lower(),
    )


def _caption(key: str, grade: int, found: dict[str, int]) -> str:
    """Name the grade and the findings; an abnormal structure only without another finding."""
    grades = words.RETINOPATHY[grade]
    if grade == 0 and set(found.values()) == {0}:
        return words.caption(key, findings.NORMAL, grades)
    named = [name for name in FINDINGS.values() if found[name] == 1]
    diseases = [name for name in named if name != "diabetic retinopathy"]
    structures = [name for name in STRUCTURES.values() if found[name] == 1]
    rest = structures if grade == 0 and not named else diseases
    return words.caption(key, grades, *(findings.PHRASES[name] for name in rest))
