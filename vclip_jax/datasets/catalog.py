"""The datasets that can be built from files: their names, options and readers.

A reader is imported when it is called, so that command lines and configurations can name datasets
fast.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from vclip_jax.datasets.listing import Listing


@dataclass(frozen=True)
class Dataset:
    """One dataset as distributed."""

    title: str
    """One line of description."""
    licence: str
    """The terms of the data; empty if they are not known."""
    reader: str
    """The module of `vclip_jax.datasets` that lists the dataset, imported when it is called."""
    prompts: str = ""
    """The prompt set for the dataset's classes."""
    split: str = "test"
    """The split that is scored by default, in TFDS's notation."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keyword arguments of `scan` -> their choices, the default first; `()` allows any value."""
    helps: Mapping[str, str] = field(default_factory=dict)
    """Help texts of the options."""
    findings: Mapping[str, str] = field(default_factory=dict)
    """Disease or sign -> its column, where that is not `findings/NAME`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Fact (one of `record.FACTS`) -> its column, where that has another name."""
    source: str = ""
    """The folder of a dataset that comes with the package; empty if it must be downloaded."""
    own: bool = False
    """True for a folder of the user's own, whose reader accounts for every file itself. For a
    published dataset, `scan` counts the images that are in no record."""

    @property
    def scan(self) -> "Callable[..., Listing]":
        """`scan(source, **options)` lists the dataset; raises ValueError for another layout."""
        scan = cast("Callable[..., Listing]", import_module(f"{_ROOM}.{self.reader}").scan)
        return scan if self.own else _counted(scan)

    @property
    def fixture(self) -> Callable[[Path], None]:
        """A function that writes a miniature in the distributed layout, quirks included."""
        name = self.reader.rpartition(".")[2]
        return cast("Callable[[Path], None]", import_module(f"{_ROOM}.fixtures.{name}").write)

    @property
    def line(self) -> str:
        """Title and licence in one line."""
        return f"{self.title} ({self.licence})" if self.licence else self.title


_ROOM: Final = __package__


def _counted(scan: "Callable[..., Listing]") -> "Callable[..., Listing]":
    """Extend a published dataset's reader with a count of the images that are in no record."""
    from vclip_jax.datasets.own.folders import left_out

    @wraps(scan)
    def counting(source: str | os.PathLike[str], **options: str) -> "Listing":
        listing = scan(source, **options)
        used = (item.image.path for item in listing.items)
        listing.notes.extend(left_out(source, used, listing.no_photographs))
        return listing

    return counting


DATASETS: Final[dict[str, Dataset]] = {
    "synfundus": Dataset(
        "SynFundus-1M: a million synthetic photographs with Chinese descriptions",
        "CC BY-NC-SA 4.0",
        "readers.synfundus",
        prompts="zh/synfundus",
        options={
            "table": ("auto", "annotation", "gen_cond"),
            "split": ("hash", "random"),
            "readable": ("all", "fundus", "strict"),
        },
        findings={
            "diabetic retinopathy": "dr_grade",
            "age-related macular degeneration": "is_amd",
            "anomaly of the optic nerve": "is_aon",
            "chorioretinal disease": "is_crp",
            "degenerative myopia": "is_dm",
            "diabetic macular oedema": "is_dme",
            "epiretinal membrane": "is_em",
            "glaucoma": "is_gc",
            "hypertensive retinopathy": "is_htr",
            "pathologic myopia": "is_pm",
            "retinal vein occlusion": "is_rvo",
        },
        facts={"eye": "eyes_side", "quality": "retinal_region_quality_score"},
    ),
    "messidor": Dataset(
        "MESSIDOR: 1200 photographs, retinopathy 0-3 and risk of macular oedema",
        "research and education only",
        "readers.messidor",
        prompts="zh/messidor",
        options={"errata": ("applied", "none")},
        facts={"site": "department"},
    ),
    "messidor2": Dataset(
        "MESSIDOR-2: 1748 photographs, adjudicated ICDR grades",
        "research and education only",
        "readers.messidor2",
        prompts="zh/idrid",
    ),
    "fives": Dataset(
        "FIVES: 800 photographs, normal, AMD, DR and glaucoma",
        "CC BY 4.0",
        "readers.fives",
        prompts="zh/fives",
        split="train+test",  # all 800, as FLAIR scores them
    ),
    "refuge": Dataset(
        "REFUGE: 1200 photographs, glaucoma or not",
        "research only, rules of the challenge",
        "readers.refuge",
        prompts="zh/refuge",
        options={"files": ("all", "flair")},
    ),
    "idrid": Dataset(
        "IDRiD: 516 photographs, retinopathy and macular oedema",
        "CC BY 4.0",
        "readers.idrid",
        prompts="zh/idrid",
    ),
    "idrid_sample": Dataset(
        "12 photographs of IDRiD that come with this package, by Porwal, Pachade and Kokare",
        "CC BY 4.0",
        "readers.idrid_sample",
        prompts="zh/idrid",
        source=str(Path(__file__).parent / "idrid_sample"),
    ),
    "odir": Dataset(
        "ODIR-5K: both eyes of 3500 patients, eight classes",
        "rules of the challenge",
        "readers.odir",
        prompts="zh/odir",
        split="train",  # the challenge published no other labels
        findings={
            "normal": "N",
            "diabetic retinopathy": "D",
            "glaucoma": "G",
            "cataract": "C",
            "age-related macular degeneration": "A",
            "hypertensive retinopathy": "H",
            "pathologic myopia": "M",
            "other diseases": "O",
        },
    ),
    "aptos": Dataset(
        "APTOS 2019: 3662 photographs, ICDR grades",
        "rules of the competition",
        "readers.aptos",
        prompts="zh/idrid",
        split="train",
    ),
    "acrima": Dataset(
        "ACRIMA: 705 photographs of the optic disc, glaucoma or not",
        "CC BY 4.0",
        "readers.acrima",
        prompts="zh/refuge",
    ),
    "papila": Dataset(
        "PAPILA: both eyes of 244 patients, glaucoma, suspect or neither",
        "CC BY 4.0",
        "readers.papila",
        prompts="zh/papila",
    ),
    "deepdrid": Dataset(
        "DeepDRiD: two photographs an eye, ICDR grades",
        "rules of the challenge",
        "readers.deepdrid",
        prompts="zh/idrid",
        split="validation",
        facts={"quality": "overall_quality"},
    ),
    "rfmid": Dataset(
        "RFMiD: 3200 photographs, normal or abnormal, 45 diseases and signs",
        "CC BY 4.0 as reported",
        "readers.rfmid",
        prompts="zh/rfmid",
    ),
    "rfmid2": Dataset(
        "RFMiD 2.0: 860 photographs, normal or abnormal, 50 diseases and signs",
        "CC BY 4.0 as reported",
        "readers.rfmid2",
        prompts="zh/rfmid",
    ),
    "brset": Dataset(
        "BRSET: 16266 photographs, ICDR grades, sixteen findings, facts of patients",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "readers.brset",
        prompts="zh/idrid",
    ),
    "mbrset": Dataset(
        "mBRSET: 5164 photographs from a handheld camera, ICDR grades, facts of patients",
        "PhysioNet Credentialed Health Data License 1.5.0",
        "readers.mbrset",
        prompts="zh/idrid",
    ),
    "airogs": Dataset(
        "AIROGS: 101442 photographs, referable glaucoma or not",
        "CC BY-NC-ND 4.0 as reported",
        "readers.airogs",
        prompts="zh/refuge",
        split="train",  # the challenge published no other labels
    ),
    "eyepacs": Dataset(
        "EyePACS: 88702 photographs of both eyes, ICDR grades",
        "rules of the competition",
        "readers.eyepacs",
        prompts="zh/idrid",
    ),
    "ddr": Dataset(
        "DDR: 13673 photographs, ICDR grades or ungradable",
        "not stated for the photographs",
        "readers.ddr",
        prompts="zh/idrid",
    ),
    "g1020": Dataset(
        "G1020: 1020 photographs, glaucoma or not",
        "terms not known",
        "readers.g1020",
        prompts="zh/refuge",
    ),
    "generic": Dataset(
        "your own: a folder per class, a table with image, caption and label, Parquet, WebDataset, "
        "Chinese-CLIP's files",
        "",
        "own.generic",
        own=True,
        prompts="labels",
        options={
            "name": (),
            "image_column": (),
            "caption_column": (),
            "label_column": (),
            "split_column": (),
            "group_column": (),
            "finding_columns": (),
            "label": (),
            "classes": (),
            "ordered": ("no", "yes"),
            "spellings": ("refuse", "merge", "keep"),
        },
        helps={
            "name": "name of the built dataset (default: generic)",
            "image_column": "the column with paths or ids of photographs",
            "caption_column": "the column with captions",
            "label_column": "the column with classes",
            "split_column": "the column with train, validation and test",
            "group_column": "the column that names patients; a patient is in one split only",
            "finding_columns": "columns of 0 and 1, one for each disease, separated by commas",
            "label": "the same as --label-column",
            "classes": "the classes in their order, separated by commas",
            "ordered": "yes if the classes are grades, in their order (default: no)",
            "spellings": "for classes that differ by case, width or white space (default: refuse)",
        },
    ),
}

SYNTHETIC: Final = "rendered, needs no source: synthetic fundus photographs with captions"
"""The description of the dataset that is rendered rather than built from files."""


def known_columns(name: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return `Dataset.findings` and `Dataset.facts` of a built dataset, by its name.

    The rendered datasets have SynFundus-1M's columns; they have no facts worth a subgroup.

    Examples:
        >>> from vclip_jax.datasets.catalog import known_columns
        >>> known_columns("messidor/1500px-q92")[1]
        {'site': 'department'}
    """
    base = name.partition("/")[0]
    if base == "synthetic":
        return DATASETS["synfundus"].findings, {}
    known = DATASETS.get(base)
    return (known.findings, known.facts) if known else ({}, {})
