"""MESSIDOR: 1200 photographs of three French departments, graded for diabetic retinopathy.

Decencière et al., "Feedback on a publicly distributed image database: the Messidor database", Image
Analysis and Stereology 33(3):231-234, 2014. Layout, from ADCIS's site:

    Base11/ ... Base14/, Base21/ ... Base24/, Base31/ ... Base34/    100 .tif each
    Annotation_Base11.xls ...                                        next to the folders or inside

A base may still be packed in its Base11.zip, and may be some folders down. Its table may be the
later version (Annotation_Base11_update20161024.xls, which is preferred), or converted to .xlsx or
.csv. The images may be converted too, since names count without their suffix.

All twelve bases must exist: the whole is one test split, and a score on part of it would look like
a score on MESSIDOR.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject
from vclip_jax.datasets.readers import pairing, words

CLASSES: Final = (
    "no diabetic retinopathy",
    "mild diabetic retinopathy",
    "moderate diabetic retinopathy",
    "severe or proliferative diabetic retinopathy",
)
"""MESSIDOR's grades 0 to 3: its scale counts lesions and is not ICDR's."""

BASES: Final = tuple(f"Base{department}{part}" for department in "123" for part in "1234")
ERRATA: Final = ("applied", "none")

_NAME, _DEPARTMENT = "Image name", "Ophthalmologic department"
_RETINOPATHY, _DME = "Retinopathy grade", "Risk of macular edema"

_TABLE: Final = re.compile(r"annotation[ _-]*(base\d\d)(?!\d)", re.IGNORECASE)

_WORDS: Final = (
    *words.RETINOPATHY[:3],
    (
        "重度非增殖期或增殖期糖尿病视网膜病变",
        "重度或增殖期糖尿病视网膜病变",
        "糖尿病视网膜病变（重度或增殖期）",
    ),
)

# The errata are published on ADCIS's download page, which was not accessible when this was
# written. The entries are those on which independent public readers of MESSIDOR agree, among them
# mikevoets/jama16-retina-replication (messidor.sh, with the dates) and
# simonEllershaw/Diabetic_Retinopathy_Vision_Transformer (datasets/messidor.py).
_CORRECTIONS: Final = {
    "20051020_63045_0100_PP": (0, "31 August 2016"),
    "20051020_64007_0100_PP": (3, "24 October 2016"),
    "20051020_63936_0100_PP": (1, "24 October 2016"),
    "20060523_48477_0100_PP": (3, "24 October 2016"),
}
"""Image -> its retinopathy grade, and the erratum's date."""

_TWINS: Final = (
    ("20051202_54744_0400_PP", "20051202_55582_0400_PP"),
    ("20051202_40508_0400_PP", "20051202_41076_0400_PP"),
    ("20051202_41238_0400_PP", "20051202_48287_0400_PP"),
    ("20051202_41260_0400_PP", "20051202_48586_0400_PP"),
    ("20051202_54530_0400_PP", "20051202_55457_0400_PP"),
    ("20051205_33025_0400_PP", "20051202_55626_0400_PP"),
    ("20051202_55607_0400_PP", "20051202_54783_0400_PP"),
    ("20051202_41034_0400_PP", "20051202_48575_0400_PP"),
    ("20051205_35099_0400_PP", "20051205_32966_0400_PP"),
    ("20051202_54555_0400_PP", "20051202_55484_0400_PP"),
    ("20051205_35110_0400_PP", "20051205_32981_0400_PP"),
    ("20051202_54611_0400_PP", "20051202_55562_0400_PP"),
    ("20051202_55498_0400_PP", "20051202_54547_0400_PP"),
)
"""Base33 holds 13 photographs twice (erratum of 16 August 2017).

One source drops the first of each pair and the other the second, both in this order; that the order
pairs them is inferred. It is stated for two pairs, whose grades differ (erratum of 9 February
2018): 33025/55626, 54611/55562.
"""


@dataclass(frozen=True, slots=True)
class _Photograph:
    key: str
    image: Blob
    retinopathy: int
    dme: int
    department: str


def scan(source: str | os.PathLike[str], *, errata: str = "applied") -> Listing:
    """List MESSIDOR.

    The keys are the images' names, the same as in MESSIDOR-2. `dme` is the risk of macular oedema:
    0 no hard exudates, 1 outside, 2 within one disc diameter of the fovea.

    Args:
        source: the folder with the bases.
        errata: "applied" corrects four grades and leaves out one of each two copies of a
            photograph, or both if their grades differ; "none" changes nothing.

    Raises:
        ValueError: bases or their tables are missing, a table is not MESSIDOR's, an archive
            cannot be read, or `errata` has another value.
    """
    pairing.check_choice("errata", errata, ERRATA)
    rejects: list[Reject] = []
    photographs: dict[str, _Photograph] = {}
    for base, (pictures, table) in _find_bases(Path(source)).items():
        for one in _read_base(pictures, table, rejects):
            if one.key in photographs:
                detail = f"{one.image} in {base}, besides {photographs[one.key].image}"
                rejects.append(Reject(one.key, "duplicate image", detail))
            else:
                photographs[one.key] = one
    notes = _apply_errata(photographs, rejects) if errata == "applied" else []
    items = [
        Item(
            key=one.key,
            split="test",
            image=one.image,
            caption=words.caption(one.key, _WORDS[one.retinopathy], words.OEDEMA[one.dme]),
            label=one.retinopathy,
            values=(one.dme, one.department),
        )
        for one in photographs.values()
    ]
    return Listing(
        name="messidor",
        classes=CLASSES,
        ordered=True,
        items=items,
        rejects=rejects,
        columns={"dme": int, "department": str},
        variant="" if errata == "applied" else "no-errata",
        notes=notes,
        description="Photographs graded 0 to 3 for diabetic retinopathy and 0 to 2 for the risk "
        "of macular oedema, from three French departments of ophthalmology.",
        homepage="https://www.adcis.net/en/third-party/messidor/",
        licence="research and education only, not to be passed on",
    )


def _find_bases(root: Path) -> dict[str, tuple[list[pairing.Picture], Path]]:
    """Return the pictures and the table of every base.

    Raises:
        ValueError: some are missing.
    """
    folders: dict[str, Path] = {}
    archives: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    # Later entries win: the highest folder, and of tables in one folder the update ("." < "_").
    for path in sorted(root.rglob("*"), key=lambda path: (-len(path.parts), path.name)):
        if path.name.startswith("."):
            continue
        name = path.stem.capitalize()
        if path.is_dir():
            folders[path.name.capitalize()] = path
        elif path.suffix.lower() == ".zip":
            archives[name] = path
        elif path.suffix.lower() in (".xls", ".xlsx", ".csv") and (match := _TABLE.match(name)):
            tables[match[1].capitalize()] = path
    bases, missing = {}, []
    for base in BASES:
        pictures = pairing.pictures_below(folders[base]) if base in folders else []
        if not pictures and base in archives:
            pictures = pairing.pictures_in_zip(archives[base])
        if not pictures:
            missing.append(f"the images of {base}")
        elif base not in tables:
            missing.append(f"Annotation_{base}.xls")
        else:
            bases[base] = pictures, tables[base]
    if missing:
        raise ValueError(f"{root}: not MESSIDOR as distributed, it lacks {', '.join(missing)}")
    return bases


def _read_base(
    pictures: Sequence[pairing.Picture], table: Path, rejects: list[Reject]
) -> list[_Photograph]:
    rows = read_table(table)
    require(table, rows, (_NAME, _DEPARTMENT, _RETINOPATHY, _DME))
    named = pairing.by_name(pictures, rejects)
    photographs = []
    for key, row, image in pairing.join(named, rows, _NAME, (_RETINOPATHY, _DME), table, rejects):
        retinopathy, dme = whole(row[_RETINOPATHY], 3), whole(row[_DME], 2)
        if retinopathy is None or dme is None:
            detail = f"{table.name}: grade {row[_RETINOPATHY]!r}, risk {row[_DME]!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            photographs.append(_Photograph(key, image, retinopathy, dme, row[_DEPARTMENT]))
    return photographs


def _apply_errata(photographs: dict[str, _Photograph], rejects: list[Reject]) -> list[str]:
    """Correct grades and remove duplicates; return a sentence on each change."""
    notes = []
    for key, (grade, date) in _CORRECTIONS.items():
        # Later tables have the correct grade already.
        if key in photographs and photographs[key].retinopathy != grade:
            wrong = photographs[key].retinopathy
            photographs[key] = replace(photographs[key], retinopathy=grade)
            notes.append(f"Erratum of {date}: {key} has retinopathy grade {grade}, not {wrong}.")
    for first, second in _TWINS:
        if first not in photographs or second not in photographs:
            continue
        one, other = photographs[first], photographs.pop(second)
        if (one.retinopathy, one.dme) == (other.retinopathy, other.dme):
            rejects.append(Reject(second, "duplicate image", f"the same photograph as {first}"))
            notes.append(f"Erratum of 16 August 2017: {second} is {first} again, left out.")
            continue
        del photographs[first]
        grades = (
            f"retinopathy grades {one.retinopathy} and {other.retinopathy}, "
            f"risks of macular oedema {one.dme} and {other.dme}"
        )
        for key, twin in ((first, second), (second, first)):
            rejects.append(Reject(key, "conflicting duplicate", f"{twin} again: {grades}"))
        notes.append(
            f"Erratum of 9 February 2018: {first} and {second} are one photograph with {grades}, "
            "both left out."
        )
    return notes
