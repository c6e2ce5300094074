"""RFMiD: 3,200 photographs with 45 diseases and signs (India), in three parts.

Pachade et al., "Retinal Fundus Multi-Disease Image Dataset (RFMiD)", Data 6(2):14, 2021. Kaggle's
copy (andrewmvd/retinal-disease-classification) doubles the folders; the challenge RIADD has other
names:

    Training_Set/RFMiD_Training_Labels.csv          Training_Set/Training/1.png ...    1,920 images
    Evaluation_Set/RFMiD_Validation_Labels.csv      Evaluation_Set/Validation/1.png      640 images
    Test_Set/RFMiD_Testing_Labels.csv               Test_Set/Test/1.png                  640 images

    2. Groundtruths/a. RFMiD_Training_Labels.csv    1. Original Images/a. Training Set/1.png ...

The tables have ID, Disease_Risk (0 normal, 1 abnormal) and a column for each of 45 codes. Columns
and layouts are from programs that read them, as are the meanings of the codes; programs differ over
a few rare ones (ST, PT, TD, CF, CL, PLQ), for which the meaning of most is taken. Numbers start
from 1 in each part, so keys contain the split: "train/1". Neither patients nor eyes are named.

Licence of the data: CC BY 4.0 as reported of IEEE DataPort (CC BY-SA 4.0 of Kaggle's copy), not
verified.
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject
from vclip_jax.datasets.own.labels import whole_number
from vclip_jax.datasets.readers import findings, pairing, words

CLASSES: Final = ("normal", "abnormal")

CODES: Final = {
    "DR": "diabetic retinopathy",
    "ARMD": "age-related macular degeneration",
    "MH": "media haze",
    "DN": "drusen",
    "MYA": "myopia",
    "BRVO": "branch retinal vein occlusion",
    "TSLN": "tessellation",
    "ERM": "epiretinal membrane",
    "LS": "laser scars",
    "MS": "macular scar",
    "CSR": "central serous retinopathy",
    "ODC": "optic disc cupping",
    "CRVO": "central retinal vein occlusion",
    "TV": "tortuous vessels",
    "AH": "asteroid hyalosis",
    "ODP": "optic disc pallor",
    "ODE": "optic disc oedema",
    "ST": "optociliary shunt",
    "AION": "anterior ischaemic optic neuropathy",
    "PT": "parafoveal telangiectasia",
    "RT": "retinal traction",
    "RS": "retinitis",
    "CRS": "chorioretinitis",
    "EDN": "exudation",
    "RPEC": "retinal pigment epithelium changes",
    "MHL": "macular hole",
    "RP": "retinitis pigmentosa",
    "CWS": "cotton wool spots",
    "CB": "coloboma",
    "ODPM": "optic disc pit maculopathy",
    "PRH": "preretinal haemorrhage",
    "MNF": "myelinated nerve fibres",
    "HR": "haemorrhagic retinopathy",
    "CRAO": "central retinal artery occlusion",
    "TD": "tilted disc",
    "CME": "cystoid macular oedema",
    "PTCR": "post-traumatic choroidal rupture",
    "CF": "choroidal folds",
    "VH": "vitreous haemorrhage",
    "MCA": "macroaneurysm",
    "VS": "vasculitis",
    "BRAO": "branch retinal artery occlusion",
    "PLQ": "plaque",
    "HPED": "haemorrhagic pigment epithelial detachment",
    "CL": "collateral vessels",
    # The tables of the challenge's first stage have 27 codes and this column.
    "OTHER": "other diseases",
}
"""Code -> finding."""

_PARTS: Final = {
    "training": (
        "train",
        ("training", "train", "training_set", "train_set", "a. training set"),
    ),
    "validation": (
        "validation",
        ("validation", "valid", "val", "validation_set", "evaluation_set", "b. validation set"),
    ),
    "testing": ("test", ("test", "testing", "test_set", "c. testing set")),
}
"""Word of the table's name -> split, and lower-case names of the folder with the images."""
_SPELLINGS: Final = {"id": "ID", "OPDM": "ODPM"}
_NAME: Final = "name of the image"
"""A column that this module adds."""


@dataclass(frozen=True)
class Release:
    """One of the two datasets called RFMiD."""

    name: str
    title: str
    prefix: str
    """The start of the tables' names, before "Training_Labels.csv"."""
    codes: Mapping[str, str]
    column: str
    """The column that says whether the eye is normal."""
    normal: int
    """The value of `column` for a normal eye; the other of 0 and 1 is for an abnormal one."""
    description: str
    homepage: str
    licence: str


RELEASE: Final = Release(
    name="rfmid",
    title="RFMiD",
    prefix="RFMiD_",
    codes=CODES,
    column="Disease_Risk",
    normal=0,
    description="Photographs with a column for each of 45 diseases and signs, from India.",
    homepage="https://ieee-dataport.org/open-access/"
    "retinal-fundus-multi-disease-image-dataset-rfmid",
    licence="CC BY 4.0 (as reported, not verified)",
)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List RFMiD.

    Args:
        source: the folder with the parts, of which some may be missing.

    Raises:
        ValueError: one line: there is no table, a part has a table and no images, or a table has a
            fault.
    """
    return list_release(source, RELEASE)


def list_release(source: str | os.PathLike[str], release: Release) -> Listing:
    """List a dataset called RFMiD; see `scan`."""
    root = Path(source)
    folders: dict[Path, list[pairing.Picture]] = {}
    for picture in pairing.pictures_below(root):
        folders.setdefault(Path(picture.blob.path).parent, []).append(picture)
    tables = _tables(root, release)
    rows = {word: _rows(table, release) for word, table in tables.items()}
    known = {name for part in rows.values() for name in part[0]}
    codes = [code for code in release.codes if code in known]
    items: list[Item] = []
    rejects: list[Reject] = []
    for word, table in tables.items():
        folder = _folder(word, table, folders)
        if folder is None:
            lacks = f"the images of {table.name}, in a folder such as {_PARTS[word][1][0]}"
            raise ValueError(f"{root}: not {release.title} as distributed, it lacks {lacks}")
        split = _PARTS[word][0]
        pictures = pairing.by_name(folders[folder], rejects, prefix=f"{split}/")
        values = [code for code in (release.column, *codes) if code in rows[word][0]]
        for key, row, image in pairing.join(
            pictures, rows[word], _NAME, values, table, rejects, prefix=f"{split}/"
        ):
            ratings = {code: findings.rating(row.get(code, "")) for code in codes}
            present = [code for code, rating in ratings.items() if rating == 1]
            value = whole(row[release.column], 1)
            if value is None:
                detail = f"{table.name}: {key} has {release.column} {row[release.column]!r}"
                rejects.append(Reject(key, "invalid label", detail))
            elif value == release.normal and present:
                detail = f"{table.name}: {key} is normal and has {', '.join(present)}"
                rejects.append(Reject(key, "contradicting labels", detail))
            else:
                phrases = [findings.PHRASES[release.codes[code]] for code in present]
                rest = findings.NORMAL if value == release.normal else findings.ABNORMAL
                caption = words.caption(key, *(phrases or [rest]))
                label = int(value != release.normal)
                items.append(Item(key, split, image, caption, label, tuple(ratings.values())))
    return Listing(
        name=release.name,
        classes=CLASSES,
        items=items,
        rejects=rejects,
        columns=findings.columns(release.codes[code] for code in codes),
        notes=[
            "The captions are written from the columns of diseases.",
            "Patients are not named: intervals take all images for those of different patients.",
            *(
                f"The table of the {word} part is not there: no split {split!r}."
                for word, (split, _) in _PARTS.items()
                if word not in tables
            ),
        ],
        description=release.description,
        homepage=release.homepage,
        licence=release.licence,
    )


def _tables(root: Path, release: Release) -> dict[str, Path]:
    """Return the table of each part that is there, by the part's word; the highest of several.

    Raises:
        ValueError: one line: there is none.
    """
    parts = "|".join(_PARTS)
    name = re.compile(rf"([abc]\. )?{release.prefix}({parts})_labels?\.csv", re.IGNORECASE)
    tables: dict[str, Path] = {}
    for path in sorted(root.rglob("*.csv"), key=lambda path: (len(path.parts), path)):
        if match := name.fullmatch(path.name):
            tables.setdefault(match[2].lower(), path)
    if not tables:
        lacks = f"{release.prefix}Training_Labels.csv"
        raise ValueError(f"{root}: not {release.title} as distributed, it lacks {lacks}")
    return {word: tables[word] for word in _PARTS if word in tables}


def _rows(table: Path, release: Release) -> list[Row]:
    """Return the rows, with the image's name.

    Raises:
        ValueError: one line: a column is missing.
    """
    rows = [{_SPELLINGS.get(n, n): cell for n, cell in row.items()} for row in read_table(table)]
    require(table, rows, ("ID", release.column))
    return [{**row, _NAME: whole_number(pairing.stem(row["ID"]))} for row in rows]


def _folder(word: str, table: Path, folders: Collection[Path]) -> Path | None:
    """Return the folder of a part's images: of its name and nearest to the table, or the table's.

    In RFMiD 2.0 the images lie beside the table.
    """
    named = [folder for folder in folders if folder.name.lower() in _PARTS[word][1]]
    if not named:
        return table.parent if table.parent in folders else None

    def distance(folder: Path) -> tuple[int, Path]:
        shared = len(Path(os.path.commonpath((folder, table.parent))).parts)
        return len(folder.parts) + len(table.parent.parts) - 2 * shared, folder

    return min(named, key=distance)
