"""G1020: 1,020 photographs of 432 patients with and without glaucoma, from a German practice.

Bajwa et al., "G1020: A Benchmark Retinal Fundus Image Dataset for Computer-Aided Glaucoma
Detection", arXiv:2006.09158, 2020. Layout (in Kaggle's copy, arnavjain1/glaucoma-datasets, beside
ORIGA and REFUGE):

    G1020/G1020.csv             imageID (image_0.jpg), binaryLabels (0 or 1)
    G1020/Images/image_0.jpg ...        image_0.json beside it has outlines of disc and cup
    G1020/Masks/, Images_Square/, Images_Cropped/, NerveRemoved_Images/    not read

The table does not name the patients, so any split of this reader might part one: all images are in
the split "test". Columns and layouts are from programs that read them.

Licence of the data: not known; the publisher's terms could not be seen.
"""

import os
from typing import Final

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.datasets.listing import Item, Listing, Reject, find_below
from vclip_jax.datasets.readers import pairing, words

_FOLDERS: Final = ("Images", "images")


def scan(source: str | os.PathLike[str]) -> Listing:
    """List G1020. The keys are the images' names.

    Args:
        source: the folder as downloaded, or its parent.

    Raises:
        ValueError: one line: the layout is another, or the table has a fault.
    """
    table = find_below(source, ("G1020.csv",), "G1020")
    folder = next((f for name in _FOLDERS if (f := table.parent / name).is_dir()), None)
    if folder is None:
        raise ValueError(f"{table.parent}: not G1020 as distributed, it lacks {_FOLDERS[0]}")
    rows = read_table(table)
    require(table, rows, ("imageID", "binaryLabels"))
    items: list[Item] = []
    rejects: list[Reject] = []
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for key, row, image in pairing.join(
        pictures, rows, "imageID", ("binaryLabels",), table, rejects
    ):
        label = whole(row["binaryLabels"], 1)
        if label is None:
            detail = f"{table.name}: {key} has the label {row['binaryLabels']!r}"
            rejects.append(Reject(key, "invalid label", detail))
        else:
            caption = words.caption(key, words.GLAUCOMA[label])
            items.append(Item(key, "test", image, caption, label))
    return Listing(
        name="g1020",
        classes=words.GLAUCOMA_CLASSES,
        items=items,
        rejects=rejects,
        notes=[
            "The captions are written from the labels.",
            "Patients are not named: intervals take all images for those of different patients.",
        ],
        no_photographs=("*/masks/*", "*/masks_cropped/*", "*/masks_square/*"),
        description="Photographs with and without glaucoma, from Germany.",
        homepage="https://arxiv.org/abs/2006.09158",
        licence="not known: ask the authors",
    )
