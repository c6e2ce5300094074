"""mBRSET: 5,164 photographs of 1,291 patients with diabetes (Brazil), from a handheld camera.

Wu et al., "A portable retina fundus photos dataset for clinical, demographic, and diabetic
retinopathy prediction", Scientific Data 12:323, 2025; PhysioNet, mbrset. Licence of the data:
PhysioNet Credentialed Health Data License 1.5.0. Layout:

    labels_mbrset.csv       images/1.1.jpg, 1.2.jpg ...    (patient and photograph)

Columns that are read: file, patient, age (a number or ">= 90"), sex (0 female, 1 male), laterality
(left or right), final_icdr (0 to 4, empty for 280 photographs), final_edema and final_quality (yes
or no). Columns and codes are from descriptions of the PhysioNet page and from programs that read
the table: files are given to credentialed users only. Education, insurance, treatment and other
diseases of the patients are not read.

The source has no splits: a hash of the patient gives them, 8:1:1.
"""

import os
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below, split_by_hash
from vclip_jax.datasets.own.labels import whole_number
from vclip_jax.datasets.readers import findings, pairing, words

OEDEMA: Final = (("未见黄斑水肿", "无黄斑水肿"), findings.PHRASES["macular oedema"])
"""Phrases for absent and present macular oedema."""

_SEXES: Final[dict[int | None, str]] = {0: "female", 1: "male"}
_EYES: Final = ("left", "right")
_QUALITIES: Final = {"yes": "adequate", "no": "inadequate"}
_ANSWERS: Final = {"yes": 1, "no": 0, "1": 1, "0": 0}
_OLDEST: Final = 90
"""The age that stands for all ages from it on."""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List mBRSET.

    A photograph without a grade has the label -1.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is another, or the table has a fault.
    """
    table = find_below(source, ("labels_mbrset.csv",), "mBRSET")
    folder = find_below(table.parent, ("images",), "mBRSET")
    rows = read_table(table)
    require(table, rows, ("file", "patient", "final_icdr", "final_edema"))
    items: list[Item] = []
    rejects: list[Reject] = []
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for key, row, image in pairing.join(
        pictures, rows, "file", ("patient", "final_icdr", "final_edema"), table, rejects
    ):
        grade = whole(row["final_icdr"], 4) if row["final_icdr"] else -1
        if grade is None:
            detail = f"{table.name}: {key} has final_icdr {row['final_icdr']!r}"
            rejects.append(Reject(key, "invalid label", detail))
            continue
        oedema = _ANSWERS.get(row["final_edema"].lower(), -1)
        phrases: list[tuple[str, ...]] = [words.RETINOPATHY[grade]] if grade >= 0 else []
        phrases += [OEDEMA[oedema]] if oedema >= 0 else []
        patient = whole_number(row["patient"])
        eye = row.get("laterality", "").lower()
        items.append(
            Item(
                key=key,
                split=split_by_hash(patient or key),
                image=image,
                caption=words.caption(key, *phrases) if phrases else words.UNKNOWN,
                label=grade,
                values=(
                    patient,
                    eye if eye in _EYES else "",
                    _SEXES.get(whole(row.get("sex", ""), 1), ""),
                    _age(row),
                    _QUALITIES.get(row.get("final_quality", "").lower(), ""),
                    (grade > 0) - (grade < 0),
                    oedema,
                ),
            )
        )
    return Listing(
        name="mbrset",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=items,
        rejects=rejects,
        columns={
            "patient": str,
            "eye": str,
            "sex": str,
            "age": int,
            "quality": str,
            **findings.columns(("diabetic retinopathy", "macular oedema")),
        },
        notes=[
            "The captions are written from the grades and the column of oedema.",
            "A hash of the patient gives the splits.",
            f"{sum(item.label < 0 for item in items)} photographs have no grade: their label is "
            "-1.",
        ],
        description="Fundus photographs of patients with diabetes from a handheld camera, with "
        "grades of diabetic retinopathy (ICDR), from Brazil.",
        homepage="https://physionet.org/content/mbrset/",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
    )


def _age(row: Row) -> int:
    text = row.get("age", "")
    if text.replace(" ", "") == f">={_OLDEST}":
        return _OLDEST
    age = whole(text, 120)
    return -1 if age is None else age
