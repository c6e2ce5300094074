"""DeepDRiD: two regular photographs of each eye, graded for retinopathy and image quality.

Liu et al., "DeepDRiD: Diabetic Retinopathy - Grading and Image Quality Estimation Challenge",
Patterns 3(6):100512, 2022; https://github.com/deepdrdoc/DeepDRiD. Licence of the data: reported as
CC BY-SA 4.0 on Zenodo (not verified; the repository states none). Layout:

    regular_fundus_images/
      regular-fundus-training/regular-fundus-training.csv, Images/1/1_l1.jpg ...     1,200 images
      regular-fundus-validation/regular-fundus-validation.csv, Images/...              400 images
      Online-Challenge1&2-Evaluation/Challenge1_labels.xlsx (image_id, DR_Levels),
        Challenge2_labels.xlsx (image_id and the qualities), Images/347/347_l1.jpg     400 images

Splits: `train`, `validation` and `test`; the last two may be missing. The columns of the .csv
tables are from the repository, those of the .xlsx tables from programs that use them. A row has the
level of its own eye in `left_eye_DR_Level` or `right_eye_DR_Level` and leaves the other empty. If
only the column of the other eye is filled (as for 56_r3), its level is taken; if both are filled,
that of the name's eye. `image_path` names folders that do not exist and is not used. The
ultra-widefield photographs are another kind of picture and are not read.
"""

import os
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words

QUALITIES: Final = ("Overall quality", "Artifact", "Clarity", "Field definition")
"""Columns: 1 good enough for a diagnosis or 0 not; 0 to 10, where a high artefact score is bad."""

_TRAINING: Final = "regular-fundus-training"
_VALIDATION: Final = "regular-fundus-validation"
_EVALUATION: Final = "Online-Challenge1&2-Evaluation"
_LEVEL: Final = "level of the eye"
"""A column that this module adds."""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List DeepDRiD's regular photographs.

    Args:
        source: the repository, `regular_fundus_images`, or the repository's parent.

    Raises:
        ValueError: one line: the layout is another, or a table has a fault.
    """
    names = (f"{_TRAINING}/{_TRAINING}.csv", f"regular_fundus_images/{_TRAINING}/{_TRAINING}.csv")
    root = find_below(source, names, "DeepDRiD").parents[1]
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    for folder, split in ((_TRAINING, "train"), (_VALIDATION, "validation")):
        table = root / folder / f"{folder}.csv"
        if split == "train" or table.exists():
            rows = read_table(table)
            require(table, rows, ("image_id", "left_eye_DR_Level", "right_eye_DR_Level"))
            rows = [{**row, _LEVEL: _level(row)} for row in rows]
            _scan_part(table, split, rows, items, rejects)
    table = root / _EVALUATION / "Challenge1_labels.xlsx"
    if table.exists():
        rows = read_table(table)
        level = next((n for n in ("DR_Levels", "DR_Level") if rows and n in rows[0]), "DR_Levels")
        require(table, rows, ("image_id", level))
        quality = table.with_name("Challenge2_labels.xlsx")
        by_id = (
            {pairing.stem(row.get("image_id", "")).lower(): row for row in read_table(quality)}
            if quality.exists()
            else {}
        )
        rows = [
            {**by_id.get(pairing.stem(row["image_id"]).lower(), {}), **row, _LEVEL: row[level]}
            for row in rows
        ]
        _scan_part(table, "test", rows, items, rejects)
    return Listing(
        name="deepdrid",
        classes=words.RETINOPATHY_CLASSES,
        ordered=True,
        items=list(items.values()),
        rejects=rejects,
        columns={
            "patient": str,
            "eye": str,
            "overall_quality": int,
            "artefact": int,
            "clarity": int,
            "field_definition": int,
        },
        notes=[
            "The captions are written from the grades.",
            "A grade is of the eye: both photographs of an eye have it.",
        ],
        description="Two fundus photographs an eye with grades of diabetic retinopathy (ICDR).",
        homepage="https://github.com/deepdrdoc/DeepDRiD",
        licence="CC BY-SA 4.0 (as reported; the repository states none)",
    )


def _level(row: Row) -> str:
    """Return the level of the row's own eye, or that of the other eye if it is empty."""
    left, right = row["left_eye_DR_Level"], row["right_eye_DR_Level"]
    is_right = pairing.stem(row["image_id"]).lower().partition("_")[2].startswith("r")
    return (right or left) if is_right else (left or right)


def _scan_part(
    table: Path, split: str, rows: list[Row], items: dict[str, Item], rejects: list[Reject]
) -> None:
    folder = table.parent / "Images"
    if not folder.is_dir():
        raise ValueError(f"{table.parent}: not DeepDRiD as distributed, it lacks Images")
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for name, row, image in pairing.join(pictures, rows, "image_id", (_LEVEL,), table, rejects):
        key, grade = name.lower(), whole(row[_LEVEL], 4)
        if key in items:
            rejects.append(Reject(key, "duplicate row", f"{table.name} lists {name} again"))
        elif grade is None:
            detail = f"{table.name}: {key} has the level {row[_LEVEL]!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            text = words.caption(key, words.RETINOPATHY[grade])
            items[key] = Item(key, split, image, text, grade, _values(key, row))


def _values(key: str, row: Row) -> tuple[int | str, ...]:
    """Return patient and eye by the name, and the qualities, -1 if they are not given."""
    patient, _, view = key.partition("_")
    eye = {"l": "left", "r": "right"}.get(view[:1], "")
    qualities = [whole(row.get(column, ""), 10) for column in QUALITIES]
    return patient, eye, *(-1 if quality is None else quality for quality in qualities)
