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
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject, find_below, image_files
from vclip_jax.datasets.own.words import caption
from vclip_jax.files.errors import few

CLASSES: Final = ("no glaucoma", "glaucoma", "suspected glaucoma")
WORDS: Final = (
    ("未见青光眼征象", "未见青光眼性改变", "无青光眼", "视盘形态正常，未见青光眼"),
    ("青光眼", "青光眼性视神经病变", "青光眼性视神经改变"),
    ("疑似青光眼", "可疑青光眼", "青光眼待排"),
)
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
    files = image_files(root / "FundusImages")
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    for side, eye in _EYES.items():
        table = find_below(root, (f"ClinicalData/patient_data_{side}.xlsx",), "PAPILA")
        for row in read_clinical(table):
            patient = _patient(row["ID"])
            key = f"RET{patient:03d}{side.upper()}"
            label = whole(row["Diagnosis"], 2)
            if key in items:
                rejects.append(
                    Reject(key, "duplicate row", f"{table.name} lists {row['ID']} again")
                )
            elif key.lower() not in files:
                rejects.append(Reject(key, "missing image", f"FundusImages lacks {key}.jpg"))
            elif label is None:
                detail = f"{table.name}: {row['ID']} has the diagnosis {row['Diagnosis']!r}"
                rejects.append(Reject(key, "invalid label", detail))
            else:
                age = whole(row["Age"], 120)
                values = (
                    patient,
                    eye,
                    -1 if age is None else age,
                    _SEXES.get(whole(row["Gender"], 1), ""),
                )
                image = Blob(str(files[key.lower()]))
                items[key] = Item(key, "test", image, caption(key, WORDS[label]), label, values)
    listed = {key.lower() for key in (*items, *(reject.key for reject in rejects))}
    for stem in sorted(files.keys() - listed):
        detail = f"no row of ClinicalData is of {files[stem].name}"
        rejects.append(Reject(files[stem].stem, "missing row", detail))
    return Listing(
        name="papila",
        classes=CLASSES,
        items=list(items.values()),
        rejects=rejects,
        columns={"patient": int, "eye": str, "age": int, "sex": str},
        notes=[
            "The captions are written from the diagnoses.",
            "Both eyes of a patient are there: they are not independent.",
        ],
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
