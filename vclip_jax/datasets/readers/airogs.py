"""Rotterdam EyePACS AIROGS: 101,442 photographs with and without referable glaucoma.

De Vente et al., "AIROGS: Artificial Intelligence for RObust Glaucoma Screening Challenge",
arXiv:2302.01738; Zenodo 5793241, the challenge's training set. Two layouts are read:

    train_labels.csv        challenge_id, class (RG or NRG)
    0/TRAIN000000.jpg ... 5/TRAIN101441.jpg, or any other folders beside the table

    train/RG/*.jpg, train/NRG/*.jpg, validation/..., test/...

The second is of Kaggle's balanced subsets (deathtrooper/eyepacs-airogs-light and ...-light-v2),
whose folders are the labels and the splits. The first version has each photograph three times
(release-crop, release-pad, release-raw): name one of the folders as the source. Columns, folders
and names are from programs that read them. The challenge AIROGS Lite has a table of its own, which
could not be seen and is not read.

The labels are those of REFUGE, "glaucoma" for RG: signs of glaucoma for which the eye should be
referred. NRG may have lesser signs, so the captions speak of referral. Ungradable photographs were
left out by the publisher. Patients are not named; the training set is one split, so that no split
of this reader parts one.

Licence of the data: CC BY-NC-ND 4.0 as reported of Zenodo, not verified (other programs say
CC BY-NC-SA).
"""

import os
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words
from vclip_jax.files.errors import few

WORDS: Final = (
    ("未见需转诊的青光眼", "未见需要转诊的青光眼", "未见需转诊的青光眼征象"),
    ("需转诊的青光眼", "青光眼，需转诊", "青光眼性改变，需转诊"),
)
"""Phrases for absent and present referable glaucoma."""

_CLASSES: Final = {"NRG": 0, "RG": 1}
_SPLITS: Final = ("train", "validation", "test")
_TABLE: Final = "train_labels.csv"
_DEPTH: Final = 5
"""Levels below the source at which the folder of a class may lie."""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List AIROGS's training set, or one of Kaggle's balanced subsets.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is neither of the above, the subset has several copies of
            the photographs, or the table has a fault.
    """
    rejects: list[Reject] = []
    try:
        table = find_below(source, (_TABLE,), "AIROGS")
    except ValueError as error:
        root = _light(Path(source))
        if root is None:
            raise ValueError(
                f"{source}: not AIROGS as distributed, it lacks {_TABLE} or folders train/RG and "
                "train/NRG"
            ) from error
        items, variant = _read_folders(root, rejects), "light"
    else:
        items, variant = _read_table(table, rejects), ""
    return Listing(
        name="airogs",
        classes=words.GLAUCOMA_CLASSES,
        items=items,
        rejects=rejects,
        variant=variant,
        notes=[
            "The captions are written from the classes.",
            "The label glaucoma is referable glaucoma.",
            "Patients are not named: intervals take all images for those of different patients.",
        ],
        description="Photographs of EyePACS's screening with and without referable glaucoma, "
        f"{'half of each' if variant else 'three in a hundred with'}.",
        homepage="https://airogs.grand-challenge.org/",
        licence="CC BY-NC-ND 4.0 (as reported, not verified)",
    )


def _read_table(table: Path, rejects: list[Reject]) -> list[Item]:
    rows = read_table(table)
    require(table, rows, ("challenge_id", "class"))
    pictures = pairing.by_name(pairing.pictures_below(table.parent), rejects)
    items = []
    for key, row, image in pairing.join(pictures, rows, "challenge_id", ("class",), table, rejects):
        label = _CLASSES.get(row["class"].upper())
        if label is None:
            detail = f"{table.name}: {key} has the class {row['class']!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            items.append(_item(key, "train", image, label))
    return items


def _light(root: Path) -> Path | None:
    """Return the folder with the splits of Kaggle's subset, None if there is none.

    Raises:
        ValueError: one line: there are several.
    """
    folders = [root] if root.is_dir() else []
    roots = set()
    for _ in range(_DEPTH):
        folders = [
            inner
            for outer in folders
            for inner in outer.iterdir()
            if inner.is_dir() and not inner.name.startswith(".")
        ]
        roots |= {
            path.parents[1] for path in folders if path.name == "RG" and path.parent.name in _SPLITS
        }
    if len(roots) > 1:
        names = few(sorted(str(path.relative_to(root)) for path in roots))
        raise ValueError(
            f"{root}: each photograph is there several times: give one of the folders {names} as "
            "the source"
        )
    return next(iter(roots), None)


def _read_folders(root: Path, rejects: list[Reject]) -> list[Item]:
    items = []
    for split in _SPLITS:
        # Both classes may have photographs of the same name.
        pictures: dict[str, list[pairing.Picture]] = {name: [] for name in _CLASSES}
        for picture in pairing.pictures_below(root / split):
            folder = Path(picture.blob.path).parent.name.upper()
            if folder in pictures:
                pictures[folder].append(picture)
            else:
                detail = f"{picture.blob} is in neither RG nor NRG"
                rejects.append(Reject(f"{split}/{picture.name}", "invalid label", detail))
        for name, label in _CLASSES.items():
            prefix = f"{split}/{name}/"
            for picture in pairing.by_name(pictures[name], rejects, prefix=prefix).values():
                items.append(_item(prefix + picture.name, split, picture.blob, label))
    return items


def _item(key: str, split: str, image: Blob, label: int) -> Item:
    return Item(key, split, image, words.caption(key, WORDS[label]), label)
