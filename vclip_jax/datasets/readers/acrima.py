"""ACRIMA: 705 photographs cropped to the optic disc, 396 of them with glaucoma (Spain).

Diaz-Pinto et al., "CNNs for automatic glaucoma assessment using fundus images: an extensive
validation", BioMedical Engineering OnLine 18:29, 2019; figshare 7613135. Layout:

    Database/Images/Im001_ACRIMA.jpg        no glaucoma
    Database/Images/Im310_g_ACRIMA.jpg      glaucoma

Only the name gives the label, so any folder with such files is accepted. Some names end in .JPG,
and mirrors convert the images to .png.
"""

import os
import re
from pathlib import Path
from typing import Final

from vclip_jax.datasets.listing import Item, Listing, Reject
from vclip_jax.datasets.readers import pairing, words

_NAME: Final = re.compile(r"im\d+(_g)?_acrima", re.IGNORECASE)


def scan(source: str | os.PathLike[str]) -> Listing:
    """List ACRIMA. The keys are the images' names.

    Raises:
        ValueError: there is no image with such a name.
    """
    rejects: list[Reject] = []
    items = []
    for picture in pairing.by_name(pairing.pictures_below(Path(source)), rejects).values():
        if (match := _NAME.fullmatch(picture.name)) is None:
            detail = f"{picture.blob} is not named like Im001_ACRIMA or Im310_g_ACRIMA"
            rejects.append(Reject(picture.name, "invalid label", detail))
            continue
        label = int(match[1] is not None)
        items.append(
            Item(
                key=picture.name,
                split="test",
                image=picture.blob,
                caption=words.caption(picture.name, words.GLAUCOMA[label]),
                label=label,
            )
        )
    if not items:
        raise ValueError(
            f"{source}: not ACRIMA as distributed, it lacks images named like Im001_ACRIMA.jpg"
        )
    return Listing(
        name="acrima",
        classes=words.GLAUCOMA_CLASSES,
        items=items,
        rejects=rejects,
        description="Photographs cropped to the optic disc, with and without glaucoma.",
        homepage="https://doi.org/10.6084/m9.figshare.7613135",
        licence="CC BY 4.0 as stated by figshare, not verified",
    )
