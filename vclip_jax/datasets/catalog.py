"""The datasets that can be built from files: what each is called and which module reads it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Final

from vclip_jax.datasets import fixtures
from vclip_jax.datasets.listing import Listing
from vclip_jax.datasets.own import generic
from vclip_jax.datasets.own.folders import left_out
from vclip_jax.datasets.readers import (
    acrima,
    aptos,
    deepdrid,
    fives,
    idrid,
    messidor,
    messidor2,
    odir,
    papila,
    refuge,
    synfundus,
)


@dataclass(frozen=True)
class Dataset:
    """One dataset as distributed."""

    title: str
    """A line for people."""
    licence: str
    """The terms that the data comes under; empty where they are not ours to know."""
    scan: Callable[..., Listing]
    """`scan(source, **options)` lists it; raises ValueError if the layout is another's."""
    prompts: str = ""
    """The prompt set for its classes."""
    split: str = "test"
    """What is scored by default, in TFDS's notation."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keyword arguments of `scan` -> their choices, the default first; no choices means any."""
    helps: Mapping[str, str] = field(default_factory=dict)
    """What options are for, in a few words."""
    fixture: Callable[[Path], None] | None = None
    """Writes a miniature in the distributed layout, quirks included."""

    @property
    def line(self) -> str:
        """Title and licence."""
        return f"{self.title} ({self.licence})" if self.licence else self.title


def _counted(scan: Callable[..., Listing]) -> Callable[..., Listing]:
    """A published dataset's reader, which also counts the images that are in no record."""

    @wraps(scan)
    def counting(source: str | os.PathLike[str], **options: str) -> Listing:
        listing = scan(source, **options)
        listing.notes.extend(left_out(source, (item.image.path for item in listing.items)))
        return listing

    return counting


DATASETS: Final[dict[str, Dataset]] = {
    "synfundus": Dataset(
        "SynFundus-1M: a million synthetic photographs with Chinese descriptions",
        "CC BY-NC-SA 4.0",
        _counted(synfundus.scan),
        prompts="zh/synfundus",
        options={
            "table": ("auto", "annotation", "gen_cond"),
            "split": ("hash", "random"),
            "readable": ("all", "fundus", "strict"),
        },
        fixture=fixtures.synfundus.write,
    ),
    "messidor": Dataset(
        "MESSIDOR: 1200 photographs, retinopathy 0-3 and risk of macular oedema",
        "research and education only",
        _counted(messidor.scan),
        prompts="zh/messidor",
        options={"errata": ("applied", "none")},
        fixture=fixtures.messidor.write,
    ),
    "messidor2": Dataset(
        "MESSIDOR-2: 1748 photographs, adjudicated ICDR grades",
        "research and education only",
        _counted(messidor2.scan),
        prompts="zh/idrid",
        fixture=fixtures.messidor2.write,
    ),
    "fives": Dataset(
        "FIVES: 800 photographs, normal, AMD, DR and glaucoma",
        "CC BY 4.0",
        _counted(fives.scan),
        prompts="zh/fives",
        split="train+test",  # all 800, as FLAIR scores them
        fixture=fixtures.fives.write,
    ),
    "refuge": Dataset(
        "REFUGE: 1200 photographs, glaucoma or not",
        "research only, rules of the challenge",
        _counted(refuge.scan),
        prompts="zh/refuge",
        options={"files": ("all", "flair")},
        fixture=fixtures.refuge.write,
    ),
    "idrid": Dataset(
        "IDRiD: 516 photographs, retinopathy and macular oedema",
        "CC BY 4.0",
        _counted(idrid.scan),
        prompts="zh/idrid",
        fixture=fixtures.idrid.write,
    ),
    "odir": Dataset(
        "ODIR-5K: both eyes of 3500 patients, eight classes",
        "rules of the challenge",
        _counted(odir.scan),
        prompts="zh/odir",
        split="train",  # the challenge published no other labels
        fixture=fixtures.odir.write,
    ),
    "aptos": Dataset(
        "APTOS 2019: 3662 photographs, ICDR grades",
        "rules of the competition",
        _counted(aptos.scan),
        prompts="zh/idrid",
        split="train",
        fixture=fixtures.aptos.write,
    ),
    "acrima": Dataset(
        "ACRIMA: 705 photographs of the optic disc, glaucoma or not",
        "CC BY 4.0",
        _counted(acrima.scan),
        prompts="zh/refuge",
        fixture=fixtures.acrima.write,
    ),
    "papila": Dataset(
        "PAPILA: both eyes of 244 patients, glaucoma, suspect or neither",
        "CC BY 4.0",
        _counted(papila.scan),
        prompts="zh/papila",
        fixture=fixtures.papila.write,
    ),
    "deepdrid": Dataset(
        "DeepDRiD: two photographs an eye, ICDR grades",
        "rules of the challenge",
        _counted(deepdrid.scan),
        prompts="zh/idrid",
        split="validation",
        fixture=fixtures.deepdrid.write,
    ),
    "generic": Dataset(
        "your own: a folder a class, a table with image, caption and label, Parquet, WebDataset",
        "",
        generic.scan,
        prompts="labels",
        options={
            "name": (),
            "image_column": (),
            "caption_column": (),
            "label_column": (),
            "split_column": (),
            "label": (),
            "classes": (),
            "ordered": ("no", "yes"),
            "spellings": ("refuse", "merge", "keep"),
        },
        helps={
            "name": "of the built dataset (default: generic)",
            "image_column": "the column with paths or ids of photographs",
            "caption_column": "the column with captions",
            "label_column": "the column with classes",
            "split_column": "the column with train, validation and test",
            "label": "the same as --label-column",
            "classes": "the classes in their order, parted by commas",
            "ordered": "whether the classes are grades, in their order (default: no)",
            "spellings": "of classes that differ by case, width or white space (default: refuse)",
        },
        fixture=fixtures.generic.write,
    ),
}
