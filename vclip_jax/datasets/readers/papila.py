"""PAPILA: both eyes of 244 patients, healthy, with glaucoma or suspected glaucoma, from Murcia.

Kovalyk et al., "PAPILA: Dataset with fundus images and clinical data of both eyes of the same
patient for glaucoma assessment", Scientific Data 9:291, 2022. Licence of the data: CC BY 4.0.
Layout (in figshare's archive below PapilaDB-PAPILA-COMMIT/):

    FundusImages/RET002OD.jpg, RET002OS.jpg ...             488 images, 2576 x 1934
    ClinicalData/patient_data_od.xlsx, patient_data_os.xlsx
    ExpertsSegmentations/, HelpCode/                        not used

The sheets have three header rows: the first names Age, Gender and Diagnosis, the second has "ID"
above the patients' numbers ("#002"), the third names the parts of merged columns. The reader takes
every named column above the first row that has a number, so two header rows are accepted too. The
diagnosis (0 healthy, 1 glaucoma, 2 suspect) belongs to the eye; gender 0 is male and 1 female by
the paper's table (not verified against the files). All images are in the split "test".
"""

import os
import re
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats.tables import whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing
from vclip_jax.datasets.readers.words import caption
from vclip_jax.files.errors import few

CLASSES: Final = ("no glaucoma", "glaucoma", "suspected glaucoma")
WORDS: Final = (
    ("未见青光眼征象", "未见青光眼性改变", "无青光眼", "视盘形态正常，未见青光眼"),
    ("青光眼", "青光眼性视神经病变", "青光眼性视神经改变"),
    ("疑似青光眼", "可疑青光眼", "青光眼待排"),
)
_CLINICAL: Final = "ClinicalData"
_NAME, _SIDE = "name of the image", "side"
"""Columns that this module adds."""
_EYES: Final = {"od": "right", "os": "left"}
_SEXES: Final[dict[int | None, str]] = {0: "male", 1: "female"}
_NUMBER: Final = re.compile(r"#?(\d+)(\.0*)?", re.ASCII)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List PAPILA.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is another, or a table has a fault.
    """
    root = find_below(source, ("FundusImages",), "PAPILA").parent
    rejects: list[Reject] = []
    pictures = pairing.by_name(pairing.pictures_below(root / "FundusImages"), rejects)
    rows = []
    for side in _EYES:
        table = find_below(root, (f"{_CLINICAL}/patient_data_{side}.xlsx",), "PAPILA")
        for row in read_clinical(table):
            rows.append({**row, _NAME: f"RET{_patient(row['ID']):03d}{side.upper()}", _SIDE: side})
    items = []
    for key, row, image in pairing.join(
        pictures, rows, _NAME, ("Diagnosis",), root / _CLINICAL, rejects
    ):
        label, age = whole(row["Diagnosis"], 2), whole(row["Age"], 120)
        if label is None:
            detail = f"{_CLINICAL}: {key} has the diagnosis {row['Diagnosis']!r}"
            rejects.append(Reject(key, "invalid label", detail))
            continue
        items.append(
            Item(
                key=key,
                split="test",
                image=image,
                caption=caption(key, WORDS[label]),
                label=label,
                values=(
                    _patient(row["ID"]),
                    _EYES[row[_SIDE]],
                    -1 if age is None else age,
                    _SEXES.get(whole(row["Gender"], 1), ""),
                ),
            )
        )
    return Listing(
        name="papila",
        classes=CLASSES,
        items=items,
        rejects=rejects,
        columns={"patient": int, "eye": str, "age": int, "sex": str},
        notes=[
            "The captions are written from the diagnoses.",
            "Both eyes of a patient are there: they are not independent.",
        ],
        no_photographs=("*/expertssegmentations/*",),
        description="Fundus photographs of both eyes with diagnoses of glaucoma, from Spain.",
        homepage="https://doi.org/10.6084/m9.figshare.14798004",
        licence="CC BY 4.0",
    )


def read_clinical(table: Path) -> list[dict[str, str]]:
    """Return the rows of a clinical sheet, by the names in its header rows.

    Raises:
        ValueError: one line: the file is not an Excel file, or lacks the patients or a column.
    """
    cells = _cells(table)
    starts = [i for i, line in enumerate(cells) if line and _NUMBER.fullmatch(line[0])]
    if not starts:
        raise ValueError(f"{table}: no row starts with a patient's number, such as #002")
    places: dict[str, int] = {"ID": 0}
    for line in cells[: starts[0]]:
        for place, name in enumerate(line):
            if name:
                places.setdefault(name, place)
    if missing := [name for name in ("Age", "Gender", "Diagnosis") if name not in places]:
        raise ValueError(
            f"{table}: expected the columns {', '.join(missing)}, got {few(map(repr, places), 20)}"
        )
    return [
        {name: cells[i][place] for name, place in places.items() if place < len(cells[i])}
        for i in starts
    ]


def _patient(cell: str) -> int:
    match = _NUMBER.fullmatch(cell)
    assert match is not None  # `read_clinical` returns no other rows
    return int(match[1])


def _cells(table: Path) -> list[list[str]]:
    import python_calamine

    try:
        sheet = python_calamine.load_workbook(os.fspath(table)).get_sheet_by_index(0)
        return [[_text(cell) for cell in line] for line in sheet.to_python(skip_empty_area=False)]
    except (python_calamine.CalamineError, OSError) as error:
        raise ValueError(f"{table}: not an Excel file ({error})") from error


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
